"""Visual Genome questions: `question_answers.json`, some seventeen questions per picture with one answer each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.drafts import Draft, Place, drafted_from_files, usable_text
from pipelines.media_folder import MediaFolder
from pipelines.questions import QuestionIds, ask
from pipelines.raw_text import read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.records import Answer

_FOLDERS = ("VG_100K", "VG_100K_2")  # as the two picture archives unpack


class Config(SourceConfig):
    """`split` only names the split; Visual Genome has none of its own."""

    media: str
    """The folder of the pictures, or the one that holds `VG_100K` and `VG_100K_2`."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config.annotations, folder), config=config, target=target)


def _pictures(path: str, folder: MediaFolder) -> list[Draft]:
    drafts: list[Draft] = []
    seen: set[str] = set()
    ids = QuestionIds()
    for number, image in enumerate(_images(path)):
        id = str(image.get("id", image.get("image_id", f"[{number}]")))
        draft = Draft(id=id, stem=id)
        if not id.isdecimal():
            draft.problem = ("missing_field", f"[{number}] has no image id")
        elif id in seen:
            draft.problem = ("duplicate_id", f"[{number}] repeats the picture {id}")
        else:
            draft.media.append(Place(file=_file(id, folder)))
        seen.add(id)
        for place, qa in enumerate(image["qas"]):
            where = f"[{number}].qas[{place}]"
            fields = qa if isinstance(qa, dict) else {}
            with draft.refusing(str(fields.get("qa_id", where))):
                answer = usable_text(fields.get("answer"), what="answer", where=where)
                ask(
                    draft,
                    fields.get("question"),
                    id=ids.take(fields.get("qa_id"), where=where),
                    answers=(Answer(text=answer),),
                    where=where,
                )
        drafts.append(draft)
    return drafts


def _images(path: str) -> Sequence[Mapping[str, Any]]:
    images = read_json(path, key="source.annotations")
    if (
        not isinstance(images, list)
        or not images
        or not all(isinstance(image, dict) and isinstance(image.get("qas"), list) for image in images)
    ):
        raise InputError(
            f"source.annotations: {path} is no list of pictures with `qas`; give Visual Genome's question_answers.json"
        )
    return images


def _file(id: str, folder: MediaFolder) -> str:
    names = (f"{id}.jpg", *(f"{below}/{id}.jpg" for below in _FOLDERS))
    if not folder.is_local:
        return names[0]
    return next((name for name in names if folder.size(name) is not None), names[0])
