"""The TSV files of OFA and UnIVAL: which column of which task holds what, and how a row's cells become annotations.

The files have no header. Several values in one cell are joined by `&&`, an answer is `confidence|!+text`. The `objects` column
is a detector's word list for making negatives; it describes no picture reliably and is not stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from pipelines.boxes import from_corners
from pipelines.drafts import Draft, usable_text
from pipelines.glue_tasks import GLUE, GlueTask
from pipelines.raw_text import printable
from shards.media import MediaProblem
from shards.records import (
    Annotation,
    Answer,
    Detection,
    Entailment,
    Grounding,
    ImageCode,
    Label,
    Question,
    Text,
)

Cells = Mapping[str, str]  # by column name; without the media, which stays in the file
Reader = Callable[[Draft, Cells, str, str], None]  # adds to the draft what a row (its cells, its id, its place) says

OfaTask = Literal[
    "pretrain",
    "text",
    "image_infilling",
    "detection",
    "caption",
    "vqa",
    "refcoco",
    "snli_ve",
    "image_gen",
    "imagenet",
    "ocr",
    "gigaword",
    "cola",
    "mnli",
    "mrpc",
    "qnli",
    "qqp",
    "rte",
    "sst2",
]

_JOIN, _CONFIDENCE = "&&", "|!+"
_MNLI = {"0": "neutral", "1": "entailment", "2": "contradiction"}  # as OFA numbers them: maybe, yes, no


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One task's columns by name, from 0, and what reads them."""

    columns: Mapping[str, int]
    read: Reader
    optional: frozenset[str] = frozenset({"id", "image_id"})  # columns that a row can do without

    @property
    def essential(self) -> frozenset[str]:
        return frozenset(self.columns) - self.optional


def _caption(draft: Draft, cells: Cells, id: str, where: str) -> None:
    texts = cells["caption"].split(_JOIN)
    for number, text in enumerate(texts):
        draft.add_caption(text, id=id if len(texts) == 1 else f"{id}.{number}", where=where)


def _question(draft: Draft, cells: Cells, id: str, where: str) -> None:
    question = usable_text(cells["question"], what="question", where=where)
    answers = tuple(_answer(raw, where=where) for raw in cells["answers"].split(_JOIN) if raw.strip())
    ranked = tuple(sorted(answers, key=lambda answer: -answer.weight))
    draft.annotations.append(Question(id=id, question=question, answers=ranked))


def _answer(raw: str, *, where: str) -> Answer:
    """`1.0|!+yes`; the confidence is stored as it is: a soft score does not say how many annotators it came from."""
    confidence, mark, text = raw.partition(_CONFIDENCE)
    try:
        weight = float(confidence) if mark else float("nan")
    except ValueError:
        weight = float("nan")
    if not 0 <= weight <= 1:
        raise MediaProblem("missing_field", f"{where}: {printable(raw)[:80]} is no answer like `0.6{_CONFIDENCE}yes`")
    return Answer(text=usable_text(text, what="answer", where=where), weight=weight)


def _grounding(draft: Draft, cells: Cells, id: str, where: str) -> None:
    text = usable_text(cells["text"], what="text", where=where)
    corners = cells["box"].split(",")
    if len(corners) != 4:
        raise MediaProblem("missing_field", f"{where}: {printable(cells['box'])[:80]} is no box like `x0,y0,x1,y1`")
    draft.annotations.append(Grounding(id=id, text=text, box=from_corners(*corners, where=where)))


def _detection(draft: Draft, cells: Cells, id: str, where: str) -> None:
    for number, raw in enumerate(cells["boxes"].split(_JOIN)):
        own, here = f"{id}.{number}", f"{where} box {number}"
        with draft.refusing(own):
            parts = raw.split(",", 5)  # the class's name may hold commas
            if len(parts) != 6:
                raise MediaProblem("missing_field", f"{here} is not `x0,y0,x1,y1,class id,class name`")
            label = usable_text(parts[5], what="class name", where=here)
            draft.annotations.append(Detection(id=own, box=from_corners(*parts[:4], where=here), label=label))


def _entailment(draft: Draft, cells: Cells, id: str, where: str) -> None:
    premise = cells.get("premise", "")
    draft.annotations.append(
        Entailment(
            id=id,
            hypothesis=usable_text(cells["hypothesis"], what="hypothesis", where=where),
            premise=usable_text(premise, what="premise", where=where) if premise.strip() else None,
            label=usable_text(cells["label"], what="label", where=where),
        )
    )


def _codes(draft: Draft, cells: Cells, id: str, where: str) -> None:
    text = cells.get("caption", "")
    usable = usable_text(text, what="caption", where=where) if text.strip() else None
    try:
        codes = tuple(int(code) for code in cells["codes"].split())
    except ValueError:
        raise MediaProblem("missing_field", f"{where}: its codes are no whole numbers") from None
    if not codes or min(codes) < 0:
        raise MediaProblem("missing_field", f"{where} has no image codes")
    draft.annotations.append(ImageCode(id=id, codes=codes, text=usable))


def _label(draft: Draft, cells: Cells, id: str, where: str) -> None:
    name = usable_text(cells["class_words"], what="class words", where=where)
    number = cells.get("class_number", "").strip()
    if number and not number.isdecimal():
        raise MediaProblem("missing_field", f"{where}: {printable(number)[:80]} is no class number")
    index = int(number) - 1 if number else None  # the files count classes from 1
    if index is not None and index < 0:
        raise MediaProblem("missing_field", f"{where}: class numbers begin at 1")
    draft.annotations.append(Label(id=id, name=name, index=index))


def _text(draft: Draft, cells: Cells, id: str, where: str) -> None:
    source = usable_text(cells["source"], what="text", where=where)
    target = usable_text(cells["target"], what="title", where=where) if "target" in cells else None
    draft.annotations.append(Text(id=id, source=source, target=target))


def _pretrain(draft: Draft, cells: Cells, id: str, where: str) -> None:
    """The mixed file: a row's `type` says what its other columns mean."""
    kind = pretrain_kind(cells)
    if kind == "caption":
        _caption(draft, cells, id, where)
    elif kind == "question":
        _question(draft, cells, id, where)
    elif kind == "grounding":
        _grounding(draft, {"text": cells["caption"], "box": cells["answers"]}, id, where)
    else:
        raise MediaProblem("unsupported", f"{where} is of type {printable(cells['type'])!r}")


def pretrain_kind(cells: Cells) -> str:
    """What a row of the mixed file is, so that one record holds one kind: `qa` and `video_qa` are both questions."""
    raw = cells.get("type", "").strip()
    if raw == "caption" or raw.endswith("_caption"):
        return "caption"
    if raw == "qa" or raw.endswith("_qa"):
        return "question"
    return "grounding" if raw == "visual_grounding" else raw


def _glue(task: GlueTask, *, words: Mapping[str, str] | None = None) -> Reader:
    """One of GLUE's tasks; records are those of `source.kind=glue`."""
    known = GLUE[task].words if words is None else words

    def read(draft: Draft, cells: Cells, id: str, where: str) -> None:
        raw = usable_text(cells["label"], what="label", where=where)
        hypothesis = usable_text(cells["hypothesis"], what="sentence", where=where)
        label = known.get(raw, raw)
        made: Annotation
        if "premise" in cells:
            premise = usable_text(cells["premise"], what="sentence", where=where)
            made = Entailment(id=id, premise=premise, hypothesis=hypothesis, label=label)
        else:
            made = Text(id=id, source=hypothesis, target=label)
        draft.annotations.append(made)

    return read


LAYOUTS: Mapping[OfaTask, Layout] = {
    "pretrain": Layout(
        columns={"id": 0, "image": 1, "caption": 2, "question": 3, "answers": 4, "type": 7}, read=_pretrain
    ),
    "text": Layout(columns={"id": 0, "source": 1}, read=_text),
    "image_infilling": Layout(columns={"id": 0, "image": 1, "codes": 2}, read=_codes),
    "detection": Layout(columns={"id": 0, "image": 1, "boxes": 2}, read=_detection),
    "caption": Layout(columns={"id": 0, "image_id": 1, "caption": 2, "image": 4}, read=_caption),
    "vqa": Layout(columns={"id": 0, "image_id": 1, "question": 2, "answers": 3, "image": 5}, read=_question),
    "refcoco": Layout(columns={"id": 0, "image_id": 1, "text": 2, "box": 3, "image": 4}, read=_grounding),
    "snli_ve": Layout(
        columns={"id": 0, "image_id": 1, "image": 2, "hypothesis": 3, "premise": 4, "label": 5},
        read=_entailment,
        optional=frozenset({"id", "image_id", "premise"}),
    ),
    "image_gen": Layout(
        columns={"id": 0, "codes": 1, "caption": 2}, read=_codes, optional=frozenset({"id", "image_id", "image"})
    ),
    "imagenet": Layout(
        columns={"image": 0, "class_number": 1, "class_words": 2},
        read=_label,
        optional=frozenset({"id", "image_id", "class_number"}),
    ),
    "ocr": Layout(columns={"id": 0, "image": 1, "caption": 2}, read=_caption),
    "gigaword": Layout(columns={"source": 0, "target": 1}, read=_text),
    "cola": Layout(columns={"hypothesis": 1, "label": 2}, read=_glue("cola")),
    "mnli": Layout(columns={"premise": 0, "hypothesis": 1, "label": 2}, read=_glue("mnli", words=_MNLI)),
    "mrpc": Layout(columns={"premise": 0, "hypothesis": 1, "label": 2}, read=_glue("mrpc")),
    "qnli": Layout(columns={"hypothesis": 1, "premise": 2, "label": 3}, read=_glue("qnli")),
    "qqp": Layout(columns={"premise": 3, "hypothesis": 4, "label": 5}, read=_glue("qqp")),
    "rte": Layout(columns={"premise": 1, "hypothesis": 2, "label": 3}, read=_glue("rte")),
    "sst2": Layout(columns={"hypothesis": 0, "label": 1}, read=_glue("sst2")),
}
assert set(LAYOUTS) == set(get_args(OfaTask))
COLUMN_NAMES = frozenset(name for layout in LAYOUTS.values() for name in (*layout.columns, *layout.optional))


def tasks_with(columns: Mapping[str, int]) -> list[OfaTask]:
    """The tasks that exactly these columns could be; of those that are read alike only the first."""
    given = frozenset(columns)
    fitting = [
        (task, layout)
        for task, layout in LAYOUTS.items()
        if layout.essential <= given <= layout.essential | layout.optional
    ]
    reads = [layout.read for _, layout in fitting]
    return [task for place, (task, layout) in enumerate(fitting) if layout.read not in reads[:place]]
