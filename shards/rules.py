"""Rules over what is known of records: `similarity > 0.28 and text_length < 200`, from sidecar columns and the index."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shards.errors import ConfigError, DatasetError
from shards.sidecar import open_sidecar

if TYPE_CHECKING:
    from shards.index import ShardIndex
    from shards.reader import Dataset
    from shards.sidecar import Sidecar

Values = npt.NDArray[Any]
Count = Literal["records", "annotations"]

_INDEX_FIELDS = ("annotations", "width", "height", "frames", "duration_s", "text_length")
_COMPARE: Mapping[str, Callable[[Values, float], Values]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_CONDITION = re.compile(
    r"(?P<negated>not\s+)?(?P<name>[A-Za-z0-9_-]+(\.[A-Za-z0-9_]+)?)\s*((?P<sign>[<>=!]=|[<>])\s*(?P<number>\S+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison with a number, or one column of truth values taken as it is, or negated."""

    name: str  # a column of the index, or `column` or `column.field` of a sidecar
    sign: str | None = None
    number: float = 0.0
    negated: bool = False

    def holds(self, values: Values) -> npt.NDArray[np.bool_]:
        """Say for each value whether it meets the condition; no number (NaN) meets none."""
        if self.sign is not None:
            known = ~np.isnan(values) if values.dtype.kind == "f" else True
            met = _COMPARE[self.sign](values, self.number) & known
        elif values.dtype == np.bool_:
            met = values
        else:
            raise ConfigError(f"{self.name!r} holds numbers; compare it, as in `{self.name} > 0.5`")
        return ~met if self.negated else met


def parse_rule(rule: str) -> tuple[Condition, ...]:
    """Read a rule: conditions joined by `and`.

    Raises:
        ConfigError: a condition is neither `name`, `not name` nor `name <sign> number`.
    """
    conditions = []
    for text in re.split(r"\s+and\s+", rule.strip()):
        found = _CONDITION.fullmatch(text.strip())
        number = 0.0
        try:
            number = float(found["number"]) if found and found["number"] else 0.0
        except ValueError:
            found = None
        if found is None:
            raise ConfigError(
                f"cannot read {text!r} in the rule {rule!r}; write conditions such as `similarity > 0.28`, `scores.keep` or "
                "`not scores.keep`, joined by `and`"
            )
        conditions.append(
            Condition(name=found["name"], sign=found["sign"], number=number, negated=bool(found["negated"]))
        )
    return tuple(conditions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a shard: one value per record, or one per annotation."""

    values: Values
    by_annotation: bool


class Lookup:
    """Values by name: from the index of a shard, or from a sidecar joined to it by key."""

    def __init__(self, dataset: Dataset, names: Iterable[str]) -> None:
        """Open the sidecars that the names mean.

        Args:
            dataset: whose records are looked up.
            names: columns of the index, or `column` or `column.field` of sidecars.

        Raises:
            DatasetError: a sidecar is missing, or does not cover the dataset.
        """
        self._dataset = dataset
        self._columns: dict[str, tuple[Sidecar, str]] = {}
        for name in names:
            if name in _INDEX_FIELDS:
                continue
            column, _, field = name.partition(".")
            sidecar = _open(dataset, column)
            if not sidecar.is_complete:
                raise DatasetError(
                    f"{dataset.path}: sidecar {sidecar.folder} does not cover every shard; run the job that makes it again"
                )
            self._columns[name] = (sidecar, field or self._only_field(sidecar))

    @property
    def folders(self) -> list[str]:
        """The exact sidecars that are read."""
        return sorted({sidecar.folder for sidecar, _ in self._columns.values()})

    def __call__(self, name: str, shard: int) -> Known:
        """Look up one name for all records of a shard, in the order of its index.

        Raises:
            DatasetError: a record has no row, the values are no numbers or truth values, or a list has not one value per
                annotation.
        """
        index = self._dataset.index(shard)
        if name in _INDEX_FIELDS:
            return Known(values=getattr(index, name), by_annotation=False)
        sidecar, field = self._columns[name]
        column = self._joined(sidecar, field, shard, index)
        if not (pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)):
            return Known(values=self._plain(column, name), by_annotation=False)
        lengths = np.asarray(column.value_lengths().fill_null(0))
        if not np.array_equal(lengths, index.annotations):
            raise DatasetError(
                f"{self._dataset.path}: {name} does not hold one value per annotation in {index.name}; "
                "choose a field that does, or one with a value per record"
            )
        return Known(values=self._plain(column.flatten(), name), by_annotation=True)

    def _only_field(self, sidecar: Sidecar) -> str:
        fields: list[str] = [name for name in sidecar.table(0).column_names if name != "key"]
        for field in (sidecar.column, "keep"):
            if field in fields:
                return field
        if len(fields) != 1:
            raise ConfigError(
                f"{self._dataset.path}: sidecar {sidecar.folder} has several fields; write one of: "
                + ", ".join(f"{sidecar.column}.{field}" for field in fields)
            )
        return fields[0]

    def _joined(self, sidecar: Sidecar, field: str, shard: int, index: ShardIndex) -> pa.Array:
        table = sidecar.table(shard, fields=(field,))
        column = table[field].combine_chunks()
        keys = table["key"].to_pylist()
        if keys != index.keys:
            places = {key: place for place, key in enumerate(keys)}
            missing = next((key for key in index.keys if key not in places), None)
            if missing is not None:
                raise DatasetError(
                    f"{self._dataset.path}: {sidecar.folder} has no row for the record {missing!r} of {index.name}; "
                    "make the column again for this dataset"
                )
            column = column.take(pa.array([places[key] for key in index.keys], pa.int64()))
        return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column

    def _plain(self, column: pa.Array, name: str) -> Values:
        if pa.types.is_boolean(column.type):
            return np.asarray(column.fill_null(False).to_numpy(zero_copy_only=False))
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return np.asarray(column.cast(pa.float64()).fill_null(float("nan")).to_numpy(zero_copy_only=False))
        raise DatasetError(
            f"{self._dataset.path}: {name} holds {column.type}, and a rule takes numbers and truth values"
        )


def _open(dataset: Dataset, column: str) -> Sidecar:
    try:
        return open_sidecar(dataset, column)
    except DatasetError as problem:
        raise DatasetError(f"{problem}; of the index, a rule knows {', '.join(_INDEX_FIELDS)}") from problem


def chosen(
    rule: Sequence[Condition], look_up: Lookup, index: ShardIndex, shard: int, count: Count
) -> npt.NDArray[np.bool_]:
    """Say which items of a shard meet every condition.

    An annotation is judged by its own values and by its record's; a record by its own and, where values go by annotation, by
    whether any one annotation meets them all.

    Returns:
        bool (records,) or (annotations,), as `count` says.
    """
    records = np.ones(len(index), dtype=np.bool_)
    annotations: npt.NDArray[np.bool_] | None = None
    for condition in rule:
        known = look_up(condition.name, shard)
        met = condition.holds(known.values)
        if known.by_annotation:
            annotations = met if annotations is None else annotations & met
        else:
            records = records & met
    if count == "annotations":
        spread = np.repeat(records, index.annotations)
        return spread if annotations is None else spread & annotations
    if annotations is None:
        return records
    owners = np.repeat(np.arange(len(index)), index.annotations)
    return records & (np.bincount(owners[annotations], minlength=len(index)) > 0)
