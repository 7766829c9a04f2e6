"""Predictions on disk: parts while a job runs, so that a killed one goes on; one file and a card when all is done.

OUT/predictions.jsonl   one JSON object a line, or predictions.parquet with the same columns
OUT/prediction.json     written last: task, rows, checkpoint, dataset, and the digest of everything that they depend on

A row is keyed by `key`, the record, and `annotation`, its number in the record; `id` is the raw dataset's own. Beside them:

| kind | columns |
| --- | --- |
| ranking: vqa, entailment, statement | `text` as asked; `predicted`; `ranked` of {text, score}, best first, by probability |
| map: grounding | `text`; `peak` x, y in pixels; `map`, rows of patches, 0 to 255 of the peak; `ranked` of {box, score} |
| nearest: pretraining, retrieval | `direction`; `text` of a text; `ranked` of {key, score}, or {key, annotation, text, score} |

A box is x, y, width and height in pixels of the stored picture.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shards.config import digest
from shards.errors import ConfigError, OstrakaError
from trainers.config import changed_keys
from trainers.results import as_lines, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

CARD = "prediction.json"

Kind = Literal["ranking", "map", "nearest"]

_PARTS = ".parts-"
_ROWS_PER_GROUP = 4096  # of a Parquet file


class PredictionFolder:
    """The folder of one job. Only one process writes."""

    def __init__(self, path: Path, *, kind: Kind, form: Literal["jsonl", "parquet"], facts: Mapping[str, Any]) -> None:
        """Find what an earlier attempt left.

        Args:
            path: the folder.
            kind: which columns the rows have.
            form: of the finished file.
            facts: everything that the predictions depend on, as plain values.

        Raises:
            ConfigError: the folder holds finished predictions that depend on something else.
            OstrakaError: it cannot be read.
        """
        self.path = path
        self._kind: Kind = kind
        self._form = form
        self._facts = {"kind": kind, **facts}
        self._digest = digest(self._facts)
        self._parts = path / f"{_PARTS}{self._digest[:8]}"
        self.is_finished = self._found_finished()
        self.done = 0 if self.is_finished else sum(_lines(part) for part in self._part_files())

    @property
    def file(self) -> Path:
        """Where the predictions are, once all is done."""
        return self.path / f"predictions.{self._form}"

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Keep some more rows, those that follow on the ones that are done."""
        kept = list(rows)
        write_whole(self._parts / f"{self.done:012d}.jsonl", as_lines(kept))
        self.done += len(kept)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Read what is kept, in order: of the finished file, else of the parts."""
        if self.is_finished and self._form == "parquet":
            yield from self._read_parquet()
            return
        for part in [self.file] if self.is_finished else self._part_files():
            with part.open(encoding="utf-8") as file:
                yield from map(json.loads, file)

    def finish(self) -> None:
        """Make one file of the parts, then the card, and drop the parts."""
        if self._form == "jsonl":
            write_whole(self.file, as_lines(self.rows()))
        else:
            self._write_parquet()
        card = {"digest": self._digest, "form": self._form, "rows": self.done, **self._facts}
        write_whole(self.path / CARD, [json.dumps(card, indent=1, ensure_ascii=False) + "\n"])
        self.is_finished = True
        for left in self.path.glob(f"{_PARTS}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _part_files(self) -> list[Path]:
        return sorted(self._parts.glob("*.jsonl"))

    def _found_finished(self) -> bool:
        card = self.path / CARD
        if not card.is_file():
            return False
        try:
            found = json.loads(card.read_text(encoding="utf-8"))
            known, form = found.pop("digest"), found.pop("form")
            found.pop("rows")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise OstrakaError(f"{card}: is damaged ({error}); remove the folder or choose another output") from error
        if known == self._digest and form == self._form and self.file.is_file():
            return True
        if known != self._digest:
            differ = ", ".join(changed_keys(found, json.loads(json.dumps(self._facts))))
            raise ConfigError(
                f"output={str(self.path)!r} holds predictions that differ in {differ}; choose another output, or remove it"
            )
        return False

    def _read_parquet(self) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.file) as file:
            for batch in file.iter_batches(_ROWS_PER_GROUP):
                yield from batch.to_pylist()

    def _write_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = _schema(self._kind)
        unfinished = self.file.with_name(f".{self.file.name}")
        try:
            with pq.ParquetWriter(unfinished, schema) as writer:
                held: list[dict[str, Any]] = []
                for row in self.rows():
                    held.append(row)
                    if len(held) == _ROWS_PER_GROUP:
                        writer.write_table(pa.Table.from_pylist(held, schema=schema))
                        held = []
                writer.write_table(pa.Table.from_pylist(held, schema=schema))
            unfinished.replace(self.file)
        except OSError as error:
            raise OstrakaError(f"{self.file}: cannot be written ({error}); choose another output") from error


def _schema(kind: Kind) -> pa.Schema:
    """The columns of a Parquet file, those of the JSON rows; without it, a column of nothing but nulls would have no type."""
    import pyarrow as pa

    text, number, score = pa.string(), pa.int64(), pa.float64()
    where: dict[str, Any] = {"key": text, "annotation": number}
    columns: dict[Kind, dict[str, Any]] = {
        "ranking": {
            **where,
            "id": text,
            "text": text,
            "predicted": text,
            "ranked": pa.list_(pa.struct({"text": text, "score": score})),
        },
        "map": {
            **where,
            "id": text,
            "text": text,
            "peak": pa.list_(number),
            "ranked": pa.list_(pa.struct({"box": pa.list_(score), "score": score})),
            "map": pa.list_(pa.list_(pa.uint8())),
        },
        "nearest": {
            "direction": text,
            **where,
            "text": text,
            "ranked": pa.list_(pa.struct({**where, "text": text, "score": score})),
        },
    }
    return pa.schema(columns[kind])


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
