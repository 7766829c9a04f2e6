"""Visual Genome questions: `question_answers.json`, some seventeen questions per picture with one answer each."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.drafts import Draft, drafted_from_files, usable_text
from pipelines.media_folder import MediaFolder
from pipelines.questions import QuestionIds, ask
from pipelines.source import Source, SourceConfig, Target
from pipelines.visual_genome import VisualGenome, read_pictures
from shards.records import Answer


class Config(SourceConfig):
    """`split` only names the split; Visual Genome has none of its own."""

    media: str
    """The folder of the pictures, or the one that holds `VG_100K` and `VG_100K_2`."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config.annotations, folder), config=config, target=target)


def _pictures(path: str, folder: MediaFolder) -> Iterator[Draft]:
    release = VisualGenome(folder)
    seen: set[str] = set()
    ids = QuestionIds()
    for number, row in enumerate(read_pictures(path, holding="qas", what="question_answers.json")):
        picture = release.draft(row, where=f"[{number}]")
        if picture.id in seen:
            picture.problem = ("duplicate_id", f"[{number}] repeats the picture {picture.id}")
        seen.add(picture.id)
        for place, qa in enumerate(row["qas"]):
            where = f"[{number}].qas[{place}]"
            fields = qa if isinstance(qa, dict) else {}
            with picture.refusing(str(fields.get("qa_id", where))):
                answer = usable_text(fields.get("answer"), what="answer", where=where)
                ask(
                    picture,
                    fields.get("question"),
                    id=ids.take(fields.get("qa_id"), where=where),
                    answers=(Answer(text=answer),),
                    where=where,
                )
        yield picture
