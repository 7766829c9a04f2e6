"""eP-ALM's lists: questions on pictures and clips with scored answers, captions of clips and sounds.

source.kind=epalm source.annotations=karpathy_train.json source.media=COCO/images
source.kind=epalm source.annotations=msrvtt_vqa_train.json source.media=videos/all
source.kind=epalm source.annotations=audiocaps_caption_train.json source.media=audios

A JSON list of objects, or a CSV with the same names in its first line. What an object is about is told by its keys: `img_id`
(VQA, GQA), `video` (MSR-VTT, MSRVTT-QA, MSVD-QA) or `audio` (AudioCaps); what it says by `sent` or `question` with `label`, or by
`caption`. The weight of an answer is its score in `label`, which is what eP-ALM draws its training answer by. COCO captions are
Karpathy's own file there: use `source.kind=karpathy`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from pipelines.coco_pictures import coco_file, coco_stem
from pipelines.drafts import Draft, Place, drafted_from_files, usable_text
from pipelines.grouping import grouped
from pipelines.media_folder import MediaFolder
from pipelines.object_lists import NotedIds, read_objects_of
from pipelines.packed import plain_name
from pipelines.questions import annotators_answers, ask
from pipelines.raw_text import is_broken, read_rows
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import Answer, MediaKind

KEY = "source.annotations"
_MEDIA: Mapping[str, MediaKind] = {"img_id": "image", "video": "video", "audio": "audio"}
_TEXTS = ("sent", "question", "caption")
_WANTED = (
    f"give one of eP-ALM's lists, with one of {', '.join(_MEDIA)} and one of {', '.join(_TEXTS)}; "
    "COCO's captions are read by source.kind=karpathy"
)
_COCO = re.compile(r"COCO_([a-z]+\d{4})_(\d{12})")
_SPLIT = re.compile(r"(train|val|valid|testdev|test)(?![a-z]{2})")


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    SPLIT_IN_NAME: ClassVar = _SPLIT

    media: str
    """The folder that `video` and `audio` are relative to, or that holds the pictures (of COCO also its train2014 and so on)."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _items(config.annotations, folder), config=config, target=target)


def _items(path: str, folder: MediaFolder) -> Iterator[Draft]:
    """Every picture, clip or sound with all that is said about it, by first appearance."""
    ids = NotedIds(lambda: (row for _, row in _rows(path)))
    for _, rows in grouped(_by_media(path, ids)):
        number, first, _ = rows[0]
        item = _item(first, where=f"[{number}]", folder=folder)
        for number, row, noted in rows:
            where = f"[{number}]"
            text = row.get("sent", row.get("question"))
            if text is None and "caption" in row:
                _add_captions(item, row["caption"], where=where)
                continue
            with item.refusing(str(row.get("question_id", where))):
                ask(
                    item,
                    text,
                    id=ids.take(row, noted, where=where),
                    answers=_answers(row, where=where),
                    where=where,
                    question_type=row.get("question_type"),
                    answer_type=row.get("answer_type"),
                )
        yield item


def _by_media(path: str, ids: NotedIds) -> Iterator[tuple[str, tuple[int, dict[str, Any], int | None]]]:
    """Yield (what to group by, (number, object, number of its question id))."""
    for number, row in _rows(path):
        named = _named(row)
        yield named[1] if named else f"[{number}]", (number, row, ids.note(row))


def _named(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Which key of an object names its picture, clip or sound, and the name; None where none does."""
    key = next((key for key in _MEDIA if key in row), None)
    name = None if key is None else row[key]
    usable = isinstance(name, str | int) and not isinstance(name, bool) and name != "" and not is_broken(str(name))
    return (key, str(name)) if key is not None and usable else None


def _item(row: Mapping[str, Any], *, where: str, folder: MediaFolder) -> Draft:
    named = _named(row)
    if named is None:
        return Draft(id=where, stem=where, problem=("missing_field", f"{where} has none of {', '.join(_MEDIA)}"))
    key, name = named
    if key == "img_id":
        return _picture(name, folder)
    stem = name.removesuffix(".mp4").removesuffix(".wav")  # other endings stay, as two files may differ in nothing else
    return Draft(id=name, stem=stem, media=[Place(kind=_MEDIA[key], file=name)])


def _picture(name: str, folder: MediaFolder) -> Draft:
    """COCO's pictures under any of their names, and Visual Genome's by their number."""
    found = _COCO.fullmatch(name)
    if found is None:
        return Draft(id=name, stem=name, media=[Place(file=f"{name}.jpg")])
    number = int(found[2])
    file = coco_file(folder, number, subset=found[1])
    return Draft(id=str(number), stem=coco_stem(number), media=[Place(file=file)])


def _add_captions(item: Draft, raw: Any, *, where: str) -> None:
    captions = raw if isinstance(raw, list) else [raw]
    for place, caption in enumerate(captions):
        item.add_caption(caption, id=None, where=where if len(captions) == 1 else f"{where} caption {place}")
    if not captions:
        item.refuse(where, "missing_field", f"{where} has an empty list of captions")


def _answers(row: Mapping[str, Any], *, where: str) -> tuple[Answer, ...]:
    """The answers of `label` by score; else the annotators' own; none in a test file."""
    label = row.get("label")
    if isinstance(label, dict):
        scored = [_scored(text, score, where=where) for text, score in label.items()]
        return tuple(sorted(scored, key=lambda answer: -answer.weight))
    answers = row.get("answers")
    return annotators_answers(answers, where=where) if answers else ()


def _scored(text: Any, score: Any, *, where: str) -> Answer:
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score) or score < 0:
        raise MediaProblem("missing_field", f"{where}: the score {score!r} of an answer is no number")
    return Answer(text=usable_text(text, what="answer", where=where), weight=float(score))


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, object)."""
    if plain_name(path).lower().endswith(".csv"):
        return _csv_rows(path)
    return read_objects_of(path, key=KEY, is_right=_is_right, wanted=_WANTED)


def _is_right(row: Mapping[str, Any]) -> bool:
    return bool(row.keys() & _MEDIA.keys() and row.keys() & set(_TEXTS))


def _csv_rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    parse: Mapping[str, Callable[[str], Any]] = {"label": _label_cell, "answers": _list_cell, "caption": _list_cell}
    header: tuple[str, ...] = ()
    for row in read_rows(path, key=KEY, delimiter=","):
        if row.number == 1:
            header = tuple(cell.strip() for cell in row.cells)
            if not _is_right(dict.fromkeys(header)):
                raise InputError(f"{KEY}: {path} has the columns {', '.join(header)}; {_WANTED}")
            continue
        cells = zip(header, row.cells, strict=False)
        yield row.number - 2, {name: parse.get(name, str)(cell) for name, cell in cells if cell.strip()}


def _label_cell(cell: str) -> Any:
    """Answers with scores as a JSON object, or one answer plainly written."""
    parsed = _json(cell)
    return parsed if isinstance(parsed, dict) else {cell.strip(): 1.0}


def _list_cell(cell: str) -> Any:
    """Several texts as a JSON list, or one plainly written."""
    parsed = _json(cell) if cell.lstrip().startswith("[") else None
    return parsed if isinstance(parsed, list) else [cell]


def _json(cell: str) -> Any:
    try:
        return json.loads(cell)
    except json.JSONDecodeError:
        return None  # plain text that happens to begin with a bracket
