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
from pipelines.media_folder import MediaFolder
from pipelines.questions import QuestionIds, annotators_answers, ask
from pipelines.raw_text import is_broken, printable, read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError
from shards.media import MediaProblem
from shards.reader import Dataset
from shards.records import Answer, Entailment, Statement

KEY = "source.annotations"
Row = Mapping[str, Any]
Reader = Callable[[Draft, Row, str], None]

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
        name = PurePath(self.annotations).stem
        found = next((split for split in _SPLITS if split in name), None)
        return found if self.split is None and found else super().split_name()


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _items(config), config=config, target=target)


def sidecars(config: Config, target: Target, dataset: Dataset) -> tuple[str, ...]:
    """Write the concepts of the list beside the finished dataset; nothing where it has none. See `pipelines.side_columns`."""
    concepts = ConceptLists()
    for row, _ in _rows(config.annotations):
        files = _files(row, config)
        lists = [_phrases(row.get(name)) for name in (("kwords1", "kwords2") if "images" in row else ("kwords",))]
        key = target.key(_stem(files)) if files else None
        if key is not None and key not in concepts and any(lists):  # the objects of a picture repeat its concepts
            concepts.add(key, *lists)
    if not concepts:
        return ()
    return (write_concepts(dataset, concepts, source="vicha_json"),)


def _items(config: Config) -> list[Draft]:
    """Every picture or pair of pictures with all that is said about it, by first appearance."""
    items: dict[str, Draft] = {}
    question_ids = QuestionIds()
    readers: Mapping[str, Reader] = {
        "question": lambda draft, row, where: _question(draft, row, where, ids=question_ids, config=config),
        "images": _statement,
        "sentence": _entailment,
        "text": _expression,
        "caption": _captions,
    }
    for row, where in _rows(config.annotations):
        item = _item(items, row, where=where, config=config)
        reader = next((read for key, read in readers.items() if key in row), _captions)
        with item.refusing(printable(str(row.get("question_id", row.get("ref_id", where))))):
            reader(item, row, where)
    return list(items.values())


def _item(items: dict[str, Draft], row: Row, *, where: str, config: Config) -> Draft:
    files = _files(row, config)
    if files is None:
        problem = ("missing_field", f"{where} has no usable path of its picture")
        return items.setdefault(where, Draft(id=where, stem=where, problem=problem))  # type: ignore[arg-type]
    id = "|".join(files)
    if id not in items:
        items[id] = Draft(id=id, stem=_stem(files), media=[Place(file=file) for file in files])
    return items[id]


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


def _question(draft: Draft, row: Row, where: str, *, ids: QuestionIds, config: Config) -> None:
    answer = row.get("answer")
    if answer is None:
        answers: tuple[Answer, ...] = ()  # a test file
    elif isinstance(answer, list):
        answers = annotators_answers(answer, where=where)
    else:
        weight = config.vg_weight if row.get("dataset") == "vg" else 1.0
        answers = (Answer(text=usable_text(answer, what="answer", where=where), weight=weight),)
    id = ids.take(row.get("question_id"), where=where)
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


def _rows(path: str) -> Iterator[tuple[Row, str]]:
    """Yield (object, its place in the list)."""
    content = read_json(path, key=KEY)
    if (
        not isinstance(content, list)
        or not content
        or not all(isinstance(row, dict) for row in content)
        or not any({"image", "images"} & row.keys() for row in content)
    ):
        raise InputError(
            f"{KEY}: {path} is no list of objects with `image` or `images`; give one of ViCHA's lists, such as coco.json, "
            "vqa_train.json or nlvr_train.json"
        )
    yield from ((row, f"[{number}]") for number, row in enumerate(content))
