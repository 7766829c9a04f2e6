"""The tasks of GLUE: what their columns are called, and what their numbered labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

GlueTask = Literal["ax", "cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]

_ENTAILS = {"0": "not_entailment", "1": "entailment"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskColumns:
    """How one task is written.

    `premise` is the first sentence of a pair; a task of single sentences has only `hypothesis`.
    """

    hypothesis: str
    premise: str | None = None
    label: str
    words: Mapping[str, str] = field(default_factory=dict)  # of labels that the file writes as numbers
    id: tuple[str, ...] = ("index",)  # columns that together name a row


GLUE: Mapping[GlueTask, TaskColumns] = {
    "ax": TaskColumns(premise="sentence1", hypothesis="sentence2", label="label"),
    "cola": TaskColumns(hypothesis="sentence", label="label", words={"0": "unacceptable", "1": "acceptable"}),
    "mnli": TaskColumns(premise="sentence1", hypothesis="sentence2", label="gold_label"),
    "mrpc": TaskColumns(
        premise="#1 String",
        hypothesis="#2 String",
        label="Quality",
        words={"0": "not_equivalent", "1": "equivalent"},
        id=("#1 ID", "#2 ID"),
    ),
    "qnli": TaskColumns(premise="sentence", hypothesis="question", label="label"),
    "qqp": TaskColumns(
        premise="question1",
        hypothesis="question2",
        label="is_duplicate",
        words={"0": "not_duplicate", "1": "duplicate"},
        id=("id",),
    ),
    "rte": TaskColumns(premise="sentence1", hypothesis="sentence2", label="label", words=_ENTAILS),
    "sst2": TaskColumns(hypothesis="sentence", label="label", words={"0": "negative", "1": "positive"}),
    "stsb": TaskColumns(premise="sentence1", hypothesis="sentence2", label="score"),
    "wnli": TaskColumns(premise="sentence1", hypothesis="sentence2", label="label", words=_ENTAILS),
}

# CoLA's training and development files have no header line: source, label, the linguists' own mark, sentence.
COLA_HEADER = ("source", "label", "mark", "sentence")
FOLDERS: Mapping[str, GlueTask] = {
    "cola": "cola",
    "mnli": "mnli",
    "mrpc": "mrpc",
    "qnli": "qnli",
    "qqp": "qqp",
    "rte": "rte",
    "sst-2": "sst2",
    "sst2": "sst2",
    "sts-b": "stsb",
    "stsb": "stsb",
    "wnli": "wnli",
    "diagnostic": "ax",
    "ax": "ax",
}
