"""ViCHA's JSON lists for pretraining, retrieval, VQA, visual entailment, NLVR2 and RefCOCO+, with their concepts.

source.kind=vicha_json source.annotations=coco.json source.media=data
source.kind=vicha_json source.annotations=vqa_train.json source.media=data source.folders.vqa=coco source.folders.vg=visual_genome

What a list is for is told by the keys of its objects. All objects of one picture become one record. The concepts in `kwords`
(`kwords1` and `kwords2` of NLVR2) become the sidecar column `concepts`, which `train` reads as it reads one of the `concepts`
verb. RefCOCO+ lists hold expressions without boxes and are trained on like captions; boxes come from `source.kind=refcoco`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath, PurePosixPath
from typing import Any

from pydantic import Field, NonNegativeInt

from pipelines.concept_column import ConceptLists, write_concepts
from pipelines.drafts import Draft, Place, drafted_from_files, usable_text
from pipelines.grouping import grouped
from pipelines.media_folder import MediaFolder
from pipelines.object_lists import NotedIds, read_objects_of
from pipelines.packed import plain_name
from pipelines.questions import annotators_answers, ask
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, SourceConfig, Target
from shards.media import MediaProblem
from shards.reader import Dataset
from shards.records import Answer, Entailment, Statement

KEY = "source.annotations"
Row = Mapping[str, Any]
Reader = Callable[[Draft, Row, str], None]

_FIELDS = frozenset(
    [
        "image",
        "images",
        "caption",
        "question",
        "question_id",
        "answer",
        "dataset",
        "sentence",
        "label",
        "text",
        "ref_id",
    ]
)  # what an item is made of
_TRUTH: Mapping[Any, bool] = {"True": True, "False": False, True: True, False: False}
_SPLITS = ("train", "val", "test", "dev")


class Config(SourceConfig):
    """`split` only names the split; unset, it is read off the file's name."""

    media: str
    """The folder that paths are relative to, once the authors' own folders are taken off absolute ones."""
    drop_parts: NonNegativeInt = 4
    """How many leading parts of an absolute path are the authors' (`/data/user/data/coco/x.jpg` is `coco/x.jpg`)."""
    folders: dict[str, str] = Field(default_factory=dict)
    """Where the pictures of a `dataset` that objects name lie below `media`; unset: in `media` itself."""
    vg_weight: float = Field(0.5, gt=0, le=1)
    """Weight of the one answer of a Visual Genome question, as ViCHA trains with it; others weigh their annotators' share."""

    def split_name(self) -> str:
        name = PurePath(plain_name(self.annotations)).stem
        found = next((split for split in _SPLITS if split in name), None)
        return found if self.split is None and found else super().split_name()


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _items(config), config=config, target=target)


def sidecars(config: Config, target: Target, dataset: Dataset) -> tuple[str, ...]:
    """Write the concepts of the list beside the finished dataset; nothing where it has none. See `pipelines.side_columns`."""
    concepts = ConceptLists()
    for _, row in _rows(config.annotations):
        files = _files(row, config)
        lists = [_phrases(row.get(name)) for name in (("kwords1", "kwords2") if "images" in row else ("kwords",))]
        key = target.key(_stem(files)) if files else None
        if key is not None and key not in concepts and any(lists):  # the objects of a picture repeat its concepts
            concepts.add(key, *lists)
    if not concepts:
        return ()
    return (write_concepts(dataset, concepts, source="vicha_json"),)


def _items(config: Config) -> Iterator[Draft]:
    """Every picture or pair of pictures with all that is said about it, by first appearance."""
    ids = NotedIds(lambda: (row for _, row in _rows(config.annotations)))
    for _, rows in grouped(_by_pictures(config, ids)):
        number, first, _ = rows[0]
        item = _item(first, where=f"[{number}]", config=config)
        for number, row, noted in rows:
            where = f"[{number}]"
            with item.refusing(printable(str(row.get("question_id", row.get("ref_id", where))))):
                if "question" in row:
                    _question(item, row, where, id=ids.take(row, noted, where=where), config=config)
                else:
                    next((read for key, read in _READERS.items() if key in row), _captions)(item, row, where)
        yield item


def _by_pictures(config: Config, ids: NotedIds) -> Iterator[tuple[str, tuple[int, dict[str, Any], int | None]]]:
    """Yield (what to group by, (number, object without its concepts, number of its question id))."""
    for number, row in _rows(config.annotations):
        files = _files(row, config)
        kept = {name: value for name, value in row.items() if name in _FIELDS}
        yield "|".join(files) if files else f"[{number}]", (number, kept, ids.note(row))


def _item(row: Row, *, where: str, config: Config) -> Draft:
    files = _files(row, config)
    if files is None:
        return Draft(id=where, stem=where, problem=("missing_field", f"{where} has no usable path of its picture"))
    return Draft(id="|".join(files), stem=_stem(files), media=[Place(file=file) for file in files])


def _files(row: Row, config: Config) -> tuple[str, ...] | None:
    """The pictures of an object, relative to `media`; None where it names none that can be used."""
    raw = row.get("images", [row.get("image")])
    wanted = 2 if "images" in row else 1
    if not isinstance(raw, list) or len(raw) != wanted:
        return None
    if not all(isinstance(path, str) and path and not is_broken(path) for path in raw):
        return None
    below = config.folders.get(str(row.get("dataset")), "")
    files = [_without_authors_folders(path, config.drop_parts) for path in raw]
    if "sentence" in row and "images" not in row:  # visual entailment names Flickr30k's pictures without their ending
        files = [file if file.endswith(".jpg") else f"{file}.jpg" for file in files]
    return tuple(str(PurePosixPath(below) / file) for file in files)


def _without_authors_folders(path: str, parts: int) -> str:
    return "/".join(path.split("/")[parts:]) if path.startswith("/") else path


def _stem(files: tuple[str, ...]) -> str:
    return "|".join(files).removesuffix(".jpg")


def _captions(draft: Draft, row: Row, where: str) -> None:
    raw = row.get("caption")
    captions = raw if isinstance(raw, list) else [raw]
    for place, caption in enumerate(captions):
        draft.add_caption(caption, id=None, where=where if len(captions) == 1 else f"{where} caption {place}")
    if not captions:
        raise MediaProblem("missing_field", f"{where} has an empty list of captions")


def _expression(draft: Draft, row: Row, where: str) -> None:
    ref = row.get("ref_id")
    draft.add_caption(row.get("text"), id=None if ref is None else str(ref), where=where)


def _question(draft: Draft, row: Row, where: str, *, id: str, config: Config) -> None:
    answer = row.get("answer")
    if answer is None:
        answers: tuple[Answer, ...] = ()  # a test file
    elif isinstance(answer, list):
        answers = annotators_answers(answer, where=where)
    else:
        weight = config.vg_weight if row.get("dataset") == "vg" else 1.0
        answers = (Answer(text=usable_text(answer, what="answer", where=where), weight=weight),)
    ask(draft, row.get("question"), id=id, answers=answers, where=where)


def _entailment(draft: Draft, row: Row, where: str) -> None:
    hypothesis = usable_text(row.get("sentence"), what="sentence", where=where)
    label = usable_text(row.get("label"), what="label", where=where)
    draft.annotations.append(Entailment(hypothesis=hypothesis, label=label))


def _statement(draft: Draft, row: Row, where: str) -> None:
    text = usable_text(row.get("sentence"), what="sentence", where=where)
    raw = row.get("label")
    if raw is not None and (not isinstance(raw, str | bool) or raw not in _TRUTH):
        raise MediaProblem("unsupported", f"{where}: its label {raw!r} is neither True nor False")
    draft.annotations.append(Statement(text=text, label=None if raw is None else _TRUTH[raw]))


def _phrases(raw: Any) -> list[str]:
    usable = raw if isinstance(raw, list) else []
    return [phrase.strip() for phrase in usable if isinstance(phrase, str) and phrase.strip() and not is_broken(phrase)]


_READERS: Mapping[str, Reader] = {
    "images": _statement,
    "sentence": _entailment,
    "text": _expression,
    "caption": _captions,
}


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, object)."""
    return read_objects_of(
        path,
        key=KEY,
        is_right=lambda row: bool({"image", "images"} & row.keys()),
        wanted="give one of ViCHA's lists, such as coco.json, vqa_train.json or nlvr_train.json",
    )
