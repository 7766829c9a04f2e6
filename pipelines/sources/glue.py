"""GLUE: the TSV files of every task, as published, each row a record without media.

A pair of sentences is an `Entailment` whatever the pair is asked for, with the first sentence as premise: entailment,
equivalence (MRPC), duplication (QQP), similarity (STS-B; the label is the score as written) and QNLI, whose sentence is the
premise and whose question is the hypothesis. So both sentences stay apart and no prompt is baked in. A single sentence (CoLA,
SST-2) is a `Text` whose target is the label. Numbered labels are spelt out: `0` of MRPC is `not_equivalent`.
A test file has no labels: its texts have no target, and its pairs no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import PurePath

from pipelines.drafts import Draft, usable_text
from pipelines.glue_tasks import COLA_HEADER, FOLDERS, GLUE, GlueTask, TaskColumns
from pipelines.packed import plain_name
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, SourceConfig, Target, spelt_split
from pipelines.text_items import drafted_texts, numbered_stem, read_lines
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import Entailment, Text

KEY = "source.annotations"
_TELLING = {
    "mrpc": {"#1 String", "#2 String"},
    "qqp": {"question1", "question2"},
    "mnli": {"sentence1", "sentence2", "promptID"},
    "stsb": {"sentence1", "sentence2", "genre"},
    "qnli": {"question", "sentence"},
}  # columns that only this task has
_NO_AGREEMENT = "-"  # of the annotators of MNLI


class Config(SourceConfig):
    """`split` only names the split; unset, it is the file's name, such as `train` or `dev_matched`."""

    task: GlueTask | None = None
    """Which task; unset: told by the folder's name (`RTE/train.tsv`) or by columns that only one task has."""

    def split_name(self) -> str:
        return super().split_name() if self.split else spelt_split(PurePath(plain_name(self.annotations)).stem)


def build(config: Config, target: Target) -> Source:
    return drafted_texts(lambda: _drafts(config), config=config, target=target)


def _drafts(config: Config) -> Iterator[Draft]:
    lines = read_lines(config.annotations, key=KEY)
    first = next(lines, "").split("\t")
    task = config.task or _task_of(config.annotations, first)
    header: tuple[str, ...] = tuple(cell.strip() for cell in first)
    rows: Iterator[tuple[int, str]] = enumerate(lines, start=2)
    if task == "cola" and "sentence" not in header:
        header, rows = COLA_HEADER, chain([(1, "\t".join(first))], rows)
    columns = GLUE[task]
    _check(header, columns, task=task, path=config.annotations)
    ids: set[str] = set()
    for number, line in rows:
        if line.strip():
            cells = dict(zip(header, line.split("\t"), strict=False))
            yield _draft(cells, columns, header=header, number=number, ids=ids)


def _draft(
    cells: Mapping[str, str], columns: TaskColumns, *, header: tuple[str, ...], number: int, ids: set[str]
) -> Draft:
    where = f"line {number}"
    id = _id(cells, columns)
    draft = Draft(id=id or where, stem=id or numbered_stem(number))
    if id is not None and id in ids:
        draft.problem, draft.stem = ("duplicate_id", f"{where} repeats the id of an earlier row"), where
    ids.add(draft.id)
    with draft.refusing(id or where):
        if header[-1] not in cells:
            raise MediaProblem("missing_field", f"{where} has fewer columns than the header's {len(header)}")
        sentence = usable_text(cells[columns.hypothesis], what=columns.hypothesis, where=where)
        label = _label(cells, columns, where=where)
        if columns.premise is None:
            draft.annotations.append(Text(source=sentence, target=label))
        else:
            premise = usable_text(cells[columns.premise], what=columns.premise, where=where)
            draft.annotations.append(Entailment(premise=premise, hypothesis=sentence, label=label))
    return draft


def _id(cells: Mapping[str, str], columns: TaskColumns) -> str | None:
    found = [cells.get(name, "").strip() for name in columns.id]
    return printable("-".join(found)) if all(found) else None


def _label(cells: Mapping[str, str], columns: TaskColumns, *, where: str) -> str | None:
    """The label of a row, spelt out; None in a test file. Raises `MediaProblem` for a row that should have one and has not."""
    if columns.label not in cells:
        return None
    raw = cells[columns.label].strip()
    if raw == _NO_AGREEMENT:
        raise MediaProblem("filtered", f"{where}: the annotators did not agree on a label")
    if not raw:
        raise MediaProblem("missing_field", f"{where} has no {columns.label}")
    if is_broken(raw):
        raise MediaProblem("broken_utf8", f"{where}: its label is {printable(raw)}")
    word = columns.words.get(raw, raw)
    if columns.words and word not in columns.words.values():
        raise MediaProblem("unsupported", f"{where}: its label {printable(raw)} is none of {', '.join(columns.words)}")
    return word


def _task_of(path: str, header: list[str]) -> GlueTask:
    for part in reversed(PurePath(path).parts):
        if (task := FOLDERS.get(PurePath(part).stem.lower())) is not None:
            return task
    names = {cell.strip() for cell in header}
    for task in GLUE:
        if _TELLING.get(task, {""}) <= names:
            return task
    raise InputError(
        f"source.task: neither the folder of {path} nor its first line says which task of GLUE it is; set source.task to one "
        f"of {', '.join(GLUE)}"
    )


def _check(header: tuple[str, ...], columns: TaskColumns, *, task: str, path: str) -> None:
    wanted = [name for name in (columns.premise, columns.hypothesis) if name is not None]
    lacking = [name for name in wanted if name not in header]
    if lacking:
        raise InputError(
            f"{KEY}: {path} has no column {', '.join(lacking)} of {task} (it has: {', '.join(header)}); "
            "give the task's own TSV, or set source.task to the task that it is"
        )
    others = sorted({GLUE[other].label for other in GLUE}.intersection(header))
    if columns.label not in header and others:  # a test file has none at all
        raise InputError(
            f"{KEY}: {path} has the labels {others[0]}, where {task} has {columns.label}; set source.task to the task that "
            "it is, or read the table with source.kind=table"
        )
