"""Tables in the formats people have them: CSV, TSV, JSON Lines, JSON, Parquet; all give rows of named values.

A picture may lie inside a table. Planning must not carry it along, so a row also has an `address` by which a worker reads one
cell again without reading the table.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import xxhash

from pipelines.json_stream import TOP, stream_json
from pipelines.packed import (
    is_packed,
    is_there,
    lines_of,
    located,
    matching,
    open_raw,
    open_seekable,
    plain_name,
    read_slice,
    size_of,
)
from pipelines.raw_text import cells_of, check_file, decode_json, delimiter_of, first_character, printable, read_rows
from shards.errors import InputError

KEY = "source.annotations"
_BATCH_ROWS = 64  # of a Parquet file at a time: pictures are large
_PLANNED_ROWS = 1024  # of a Parquet file at a time while planning: a text may still be a picture in base64
_ENDINGS = frozenset({".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".pq"})
_ROWS_LOOKED_AT = 1000  # for the names of columns, where each row has its own
BytesIn = Literal["none", "one", "several"]
Address = Mapping[str, Any]  # JSON values; opaque to everyone but the table


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One row: its number in the table from 1, its values by column, and where to find its cells again."""

    number: int
    values: Mapping[str, Any]
    address: Address
    surplus: int = 0  # cells behind the last column: a text whose commas nobody quoted


class Table(Protocol):
    """A table file whose rows can be read in order, and whose cells can be read again."""

    def columns(self, wanted: Collection[str] = ()) -> Sequence[str]:
        """The names of the columns. Where each row has its own: of the first rows, and of all until each of `wanted` was met."""
        ...

    def bytes_in(self, column: str) -> BytesIn:
        """Whether the file's own types say that a cell of a column holds bytes rather than text, or a list of such."""
        ...

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        """Read the named columns of all rows; of a list of bytes in a binary file, each is None."""
        ...

    def cell(self, address: Address, column: str) -> Any:
        """Read one cell again."""
        ...


def open_tables(pattern: str) -> dict[str, Table]:
    """Open a table, or all that a pattern such as `data/train-*.parquet` matches; by their names below the common folder.

    Raises:
        InputError: nothing matches, or a file is no table.
    """
    if Path(pattern).is_dir():
        raise InputError(
            f"{KEY}: {Path(pattern).absolute()} is a folder; name its files, e.g. {KEY}='{pattern}/*.parquet'"
        )
    many = glob.has_magic(pattern) and not Path(pattern).exists()
    paths = sorted(located(path) for path in (matching(pattern) if many else [pattern]))
    if not paths:
        raise InputError(f"{KEY}: no file matches {pattern}; check the pattern")
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    tables: dict[str, Table] = {}
    for path in paths:
        name = os.path.join(os.path.relpath(os.path.dirname(path), root), plain_name(path)).removeprefix("./")
        if name in tables:
            raise InputError(
                f"{KEY}: {pattern} matches {name} packed and unpacked; give a pattern that matches one of them"
            )
        tables[name] = _open(path)
    return tables


def _open(path: str) -> Table:
    ending = Path(plain_name(path)).suffix.lower()
    if ending not in _ENDINGS and is_there(path):
        raise InputError(
            f"{KEY}: {path} is no table that is known here by its ending; use .csv, .tsv, .jsonl or .parquet"
        )
    check_file(path, key=KEY)
    if ending in {".parquet", ".pq"}:
        return ParquetTable(path)
    if ending == ".json":
        return JsonLinesTable(path) if _is_json_lines(path) else JsonListTable(path)
    return JsonLinesTable(path) if ending in {".jsonl", ".ndjson"} else DelimitedTable(path)


def _is_json_lines(path: str) -> bool:
    """Whether each line of a `.json` file is an object of its own: its first one is, and holds more than further objects."""
    if first_character(path, key=KEY) == "[":
        return False
    with open_raw(path, key=KEY) as file:
        first = next((line for line in lines_of(file, path=path, key=KEY) if line.strip()), b"")
    try:
        row = decode_json(first.decode("utf-8-sig", "surrogateescape"))
    except json.JSONDecodeError:
        return False
    return not (isinstance(row, dict) and row and all(isinstance(value, dict) for value in row.values()))


@dataclass(slots=True)
class DelimitedTable:
    """CSV or TSV with a header line."""

    path: str
    _header: tuple[str, ...] = field(init=False)
    _delimiter: str = field(init=False)

    def __post_init__(self) -> None:
        self._delimiter = delimiter_of(self.path, key=KEY)
        first = next(read_rows(self.path, key=KEY, delimiter=self._delimiter), None)
        self._header = tuple(cell.strip() for cell in first.cells) if first else ()

    def columns(self, wanted: Collection[str] = ()) -> Sequence[str]:
        return self._header

    def bytes_in(self, column: str) -> BytesIn:
        return "none"

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        places = {column: self._place(column) for column in columns}
        for row in read_rows(self.path, key=KEY, delimiter=self._delimiter):
            if row.number > 1:
                values = {name: row.cells[at] if at < len(row.cells) else None for name, at in places.items()}
                yield TableRow(
                    number=row.number - 1,
                    values=values,
                    address={"offset": row.offset, "size": row.size},
                    surplus=sum(bool(cell.strip()) for cell in row.cells[len(self._header) :]),
                )

    def cell(self, address: Address, column: str) -> Any:
        return cells_of(_slice(self.path, address), delimiter=self._delimiter)[self._place(column)]

    def _place(self, column: str) -> int:
        if self._header.count(column) > 1:
            raise InputError(f"{KEY}: {self.path} has several columns {column!r}; give each a name of its own")
        return self._header.index(column)


@dataclass(slots=True)
class JsonLinesTable:
    """One JSON object per line; the columns are the keys of the objects, which may each leave some out."""

    path: str

    def columns(self, wanted: Collection[str] = ()) -> Sequence[str]:
        return _keys(self._objects(), wanted)

    def bytes_in(self, column: str) -> BytesIn:
        return "none"

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        for number, (address, values) in enumerate(self._objects(), start=1):
            yield TableRow(number=number, values={column: values.get(column) for column in columns}, address=address)

    def cell(self, address: Address, column: str) -> Any:
        return json.loads(_slice(self.path, address).decode("utf-8-sig", "surrogateescape")).get(column)

    def _objects(self) -> Iterator[tuple[Address, Mapping[str, Any]]]:
        offset = 0
        with open_raw(self.path, key=KEY) as file:
            for number, line in enumerate(lines_of(file, path=self.path, key=KEY), start=1):
                address = {"offset": offset, "size": len(line)}
                offset += len(line)
                if not line.strip():
                    continue
                try:
                    values = decode_json(line.decode("utf-8-sig", "surrogateescape"))
                except json.JSONDecodeError as error:
                    raise InputError(
                        f"{KEY}: {self.path}, line {number}: no valid JSON ({error.msg}); each line must be a whole object"
                    ) from error
                if not isinstance(values, dict):
                    raise InputError(f"{KEY}: {self.path}, line {number}: not a JSON object; each line must be one")
                yield address, values


@dataclass(slots=True)
class JsonListTable:
    """One JSON list of objects, or one object of them, whose names for them are passed over.

    Cells are read again going forward, as a unit's rows are in order.
    """

    path: str
    _ahead: Iterator[tuple[int, Mapping[str, Any]]] = field(init=False, default_factory=lambda: iter(()))
    _row: tuple[int, Mapping[str, Any]] = field(init=False, default=(-1, {}))

    def columns(self, wanted: Collection[str] = ()) -> Sequence[str]:
        return _keys(self._objects(), wanted)

    def bytes_in(self, column: str) -> BytesIn:
        return "none"

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        size = size_of(self.path, key=KEY)  # see `ParquetTable`
        for row, values in self._objects():
            cells = {column: values.get(column) for column in columns}
            yield TableRow(number=row + 1, values=cells, address={"row": row, "file_bytes": size})

    def cell(self, address: Address, column: str) -> Any:
        if address["row"] < self._row[0]:
            self._row = (-1, {})
        if self._row[0] < 0:
            self._ahead = self._objects()
        while self._row[0] < address["row"]:
            self._row = next(self._ahead)
        return self._row[1].get(column)

    def _objects(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        for row, (name, values) in enumerate(stream_json(self.path, key=KEY)):
            if not isinstance(values, dict):
                place = f"member {printable(name)!r}" if name != TOP else f"element {row} of its list"
                raise InputError(f"{KEY}: {self.path}, {place} is no JSON object; each must be one")
            yield row, values


@dataclass(slots=True)
class ParquetTable:
    """A Parquet file. Cells are read again in batches, and going forward is cheap, as a unit's rows are in order."""

    path: str
    _batch: list[Any] = field(init=False, default_factory=list)
    _batch_key: tuple[str, int] = field(init=False, default=("", -1))  # (column, first row) of `_batch`
    _ahead: Iterator[tuple[int, list[Any]]] = field(init=False, default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        self._file()

    def columns(self, wanted: Collection[str] = ()) -> Sequence[str]:
        return tuple(self._file().schema_arrow.names)

    def bytes_in(self, column: str) -> BytesIn:
        import pyarrow as pa

        schema = self._file().schema_arrow
        kind = schema.field(schema.names.index(column)).type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return "several" if _is_bytes(kind.value_type) else "none"
        return "one" if pa.types.is_struct(kind) or _is_bytes(kind) else "none"

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow]:
        number = 0
        size = size_of(self.path, key=KEY)  # pictures stay unread, so that they changed shows only here
        lists = {column for column in columns if self.bytes_in(column) == "several"}
        for batch in self._read(_BATCH_ROWS if lists else _PLANNED_ROWS, columns):
            cells = [
                _empty_lists(column) if name in lists else _plain_cells(column)
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            for values in zip(*cells, strict=True):
                named = dict(zip(batch.schema.names, values, strict=True))
                yield TableRow(number=number + 1, values=named, address={"row": number, "file_bytes": size})
                number += 1

    def cell(self, address: Address, column: str) -> Any:
        row = address["row"]
        name, first = self._batch_key
        if name != column or row < first:
            self._ahead = self._batches(column, row)
            self._batch, self._batch_key = [], (column, row)
        while row >= self._batch_key[1] + len(self._batch):
            start, self._batch = next(self._ahead)
            self._batch_key = (column, start)
        return self._batch[row - self._batch_key[1]]

    def _batches(self, column: str, row: int) -> Iterator[tuple[int, list[Any]]]:
        """Read a column from the row group that holds `row` on; yields (first row, values)."""
        file = self._file()
        start, group = 0, 0
        while start + file.metadata.row_group(group).num_rows <= row:
            start += file.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, file.metadata.num_row_groups))
        for batch in self._read(_BATCH_ROWS, [column], groups):
            yield start, _plain_cells(batch.column(0))
            start += batch.num_rows

    def _read(self, batch_rows: int, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[Any]:
        """Read some columns in batches. Raises `InputError` where the file is damaged."""
        import pyarrow as pa

        file = self._file()
        twice = next((name for name in columns if file.schema_arrow.names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{KEY}: {self.path} has several columns {twice!r}; give each a name of its own")
        try:
            yield from file.iter_batches(batch_size=batch_rows, row_groups=groups, columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        return InputError(f"{KEY}: {self.path} is no readable Parquet file ({said}); download it again")

    def _file(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            # A plain file goes by its path, as Arrow reads it without a detour through Python.
            source = open_seekable(self.path, key=KEY) if is_packed(self.path, key=KEY) else self.path
            return pq.ParquetFile(source, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error


def _is_bytes(kind: Any) -> bool:
    """Whether an Arrow type is of bytes, or of a picture as datasets of Hugging Face hold it: bytes and path."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_bytes(kind.field(place).type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(bool(test(kind)) for test in tests)


def _empty_lists(column: Any) -> list[Any]:
    """Lists as long as those of a column, with nothing in them."""
    import pyarrow.compute as pc

    return [None if length is None else [None] * length for length in pc.list_value_length(column).to_pylist()]


def _plain_cells(column: Any) -> list[Any]:
    """An Arrow column as Python values; strings that are no UTF-8 keep their bytes as surrogates."""
    import pyarrow as pa

    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        raw = column.cast(pa.list_(pa.binary()) if is_list else pa.binary()).to_pylist()
        return [_decoded(cell) for cell in raw]


def _decoded(cell: Any) -> Any:
    if isinstance(cell, list):
        return [_decoded(part) for part in cell]
    return cell.decode("utf-8", "surrogateescape") if isinstance(cell, bytes) else cell


def fingerprint(value: Any) -> str | None:
    """A short name of a cell's content, so that a changed picture is a changed unit; None for what was not read."""
    if isinstance(value, str):
        return xxhash.xxh3_64_hexdigest(value.encode("utf-8", "surrogateescape"))
    return None


def _keys(rows: Iterator[tuple[Any, Mapping[str, Any]]], wanted: Collection[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for number, (_, values) in enumerate(rows):
        if number >= _ROWS_LOOKED_AT and names.keys() >= set(wanted):
            break
        names |= dict.fromkeys(values)
    return tuple(names)


def _slice(path: str, address: Address) -> bytes:
    return read_slice(path, offset=address["offset"], size=address["size"], key=KEY)
