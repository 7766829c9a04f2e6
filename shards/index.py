"""The index of a shard: where each member of each record lies, and the few numbers that choosing and batching need.

One small Parquet per shard. It is parsed once and then held as numpy arrays, so that finding a record costs no parsing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.errors import DatasetError
from shards.records import Annotation, Caption, Record
from shards.storage import Storage

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("member", pa.list_(pa.string()), nullable=False),  # extensions, in the order of the tar
        pa.field("offset", pa.list_(pa.int64()), nullable=False),  # of the data, not of the tar header
        pa.field("size", pa.list_(pa.int64()), nullable=False),
        pa.field("xxh3", pa.list_(pa.uint64()), nullable=False),
        pa.field("annotations", pa.int32(), nullable=False),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("frames", pa.int32()),
        pa.field("duration_s", pa.float64()),
        pa.field("text_length", pa.int32(), nullable=False),
    ]
)
_LISTS = ("member", "offset", "size", "xxh3")
_VECTORS = ("annotations", "width", "height", "frames", "duration_s", "text_length")


def shard_name(dataset: str, split: str, number: int) -> str:
    """The name of a shard, its index and its sidecars, without suffix: `coco-train-00042`."""
    return f"{dataset}-{split}-{number:05d}"


def tar_path(name: str) -> str:
    """Where the tar of a shard lies in its dataset."""
    return f"shards/{name}.tar"


def index_path(name: str) -> str:
    """Where the index of a shard lies in its dataset."""
    return f"index/{name}.parquet"


class Member(NamedTuple):  # made for every file of a dataset, and a tuple is made in a third of a dataclass's time
    """One tar member of a record: where its bytes are and what they hash to."""

    extension: str
    offset: int  # bytes from the start of the tar
    size: int  # bytes
    xxh3: int  # 64 bits


class IndexRow(NamedTuple):
    """What the index says about one record; its fields are the columns of the file, in their order."""

    key: str
    members: Sequence[Member]
    annotations: int
    width: int | None
    height: int | None
    frames: int | None
    duration_s: float | None
    text_length: int  # characters of the longest annotation text


def index_row(record: Record, members: Sequence[Member]) -> IndexRow:
    """Describe a record whose members have just been placed. Sizes and times are those of its first media item."""
    annotations = record.annotations
    longest = max(map(text_length, annotations)) if annotations else 0
    if not record.media:
        return IndexRow(record.key, members, len(annotations), None, None, None, None, longest)
    first = record.media[0]
    return IndexRow(
        record.key, members, len(annotations), first.width, first.height, first.frames, first.duration_s, longest
    )


def encode_index(rows: Sequence[IndexRow]) -> bytes:
    """Write an index as Parquet bytes that depend on nothing but the rows (and the version of pyarrow)."""
    keys, members, *vectors = zip(*rows, strict=True) if rows else [()] * len(IndexRow._fields)
    starts = np.cumsum([0, *map(len, members)], dtype=np.int32)
    flat = [member for some in members for member in some]
    columns = [pa.array(keys, type=SCHEMA.field("key").type)]
    for name, values in zip(_LISTS, zip(*flat, strict=True) if flat else [()] * len(_LISTS), strict=True):
        columns.append(pa.ListArray.from_arrays(starts, pa.array(values, type=SCHEMA.field(name).type.value_type)))
    columns += [pa.array(values, type=SCHEMA.field(name).type) for name, values in zip(_VECTORS, vectors, strict=True)]
    return encode_parquet(pa.Table.from_arrays(columns, schema=SCHEMA))


def encode_parquet(table: pa.Table) -> bytes:
    """Write a table as Parquet bytes, the same for the same table."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def decode_parquet(data: bytes, *, schema: pa.Schema | None = None, check_pages: bool = False) -> pa.Table:
    """Read Parquet bytes, by this thread alone.

    `pq.read_table` reads by threads that may still hold the bytes when it returns. One of them that lets go of them while the
    interpreter ends aborts the process, and a command that had just said what was wrong dies with another exit code.

    Args:
        data: the file.
        schema: what the table must look like, column by column; columns beyond it are left out.
        check_pages: compare every page with its checksum.

    Raises:
        pa.ArrowException, OSError: the bytes are no Parquet file, or damaged.
        KeyError: a column of the schema is missing.
    """
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=check_pages)
    table: pa.Table = file.read(use_threads=False)
    if schema is None or table.schema.equals(schema):
        return table
    return table.select(schema.names).cast(schema)


class ShardIndex:
    """The index of one shard in memory; row numbers are those of the shard.

    Attributes:
        annotations: int32 (records,).
        width, height, frames: int32 (records,); -1 where the record has no such number.
        duration_s: float64 (records,); nan where the record has none.
        text_length: int32 (records,), characters of the longest annotation text.
    """

    annotations: npt.NDArray[np.int32]
    width: npt.NDArray[np.int32]
    height: npt.NDArray[np.int32]
    frames: npt.NDArray[np.int32]
    duration_s: npt.NDArray[np.float64]
    text_length: npt.NDArray[np.int32]

    def __init__(self, name: str, table: pa.Table) -> None:
        self.name = name
        table = table.combine_chunks()
        self._keys = table["key"]
        lists = {column: _flat(table[column]) for column in _LISTS}
        self._starts = lists["member"][0]
        if any(not np.array_equal(starts, self._starts) for starts, _ in lists.values()):
            raise DatasetError(f"{index_path(name)}: its member lists differ in length; rebuild the index")
        codes = lists["member"][1].dictionary_encode()
        self._extensions: tuple[str, ...] = tuple(codes.dictionary.to_pylist())
        self._codes = codes.indices.to_numpy()
        self._offsets, self._sizes, self._hashes = (
            lists[column][1].to_numpy() for column in ("offset", "size", "xxh3")
        )
        for column in _VECTORS:
            missing = float("nan") if column == "duration_s" else -1
            setattr(self, column, _combined(table[column]).fill_null(missing).to_numpy())

    def __len__(self) -> int:
        return len(self._starts) - 1

    @cached_property
    def keys(self) -> list[str]:
        """The key of every record, in the order of the shard."""
        keys: list[str] = self._keys.to_pylist()
        return keys

    def row(self, key: str) -> int:
        """The row of a key. Raises `KeyError`."""
        return self._rows[key]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """(records,): how many annotations the shard holds up to and with each record."""
        return np.cumsum(self.annotations, dtype=np.int64)

    def locate(self, annotation: int) -> tuple[int, int]:
        """Find an annotation by its number in the shard: the record's row, and its number in the record."""
        row = int(self._ends.searchsorted(annotation, side="right"))
        return row, annotation - (int(self._ends[row - 1]) if row else 0)

    def members(self, row: int) -> list[tuple[str, int, int, int]]:
        """The members of a record as `(extension, offset, size, xxh3)`, in the order of the tar."""
        return self.places(range(row, row + 1))[0]

    def places(self, rows: range) -> list[list[tuple[str, int, int, int]]]:
        """The members of some neighbouring records, each as `members` says them."""
        starts = self._starts[rows.start : rows.stop + 1].tolist()
        span = slice(starts[0], starts[-1])
        names = [self._extensions[code] for code in self._codes[span].tolist()]
        columns = (names, self._offsets[span].tolist(), self._sizes[span].tolist(), self._hashes[span].tolist())
        members = list(zip(*columns, strict=True))
        if len(starts) == 2:
            return [members]
        return [members[start - starts[0] : end - starts[0]] for start, end in pairwise(starts)]

    def extents(self) -> tuple[list[int], list[int]]:
        """The first byte of every record's members in the tar, and the byte behind the last; 0 where it has none."""
        reach = self._offsets + self._sizes
        some = self._starts[:-1] < self._starts[1:]
        starts, ends = np.zeros((2, len(self)), dtype=np.int64)
        starts[some] = self._offsets[self._starts[:-1][some]]
        ends[some] = reach[self._starts[1:][some] - 1]
        return starts.tolist(), ends.tolist()


def read_index(
    storage: Storage, name: str, *, xxh3: str | None = None, view: Callable[[pa.Table], pa.Table] | None = None
) -> ShardIndex:
    """Read the index of a shard.

    Args:
        storage: the dataset.
        name: the shard, without suffix.
        xxh3: what the file must hash to, as the manifest says.
        view: leaves out rows and puts other counts in, where the shard is seen through a column.

    Raises:
        DatasetError: the file is missing, damaged or no index.
    """
    path = index_path(name)
    advice = "run the `verify` verb on the dataset"
    try:
        data = storage.read(path)
    except FileNotFoundError as problem:
        raise DatasetError(f"{storage.path(path)} is missing; {advice}") from problem
    if xxh3 is not None and xxhash.xxh3_64_hexdigest(data) != xxh3:
        raise DatasetError(f"{storage.path(path)} does not match the checksum in the manifest; {advice}")
    try:
        table = decode_parquet(data, schema=SCHEMA)
        return ShardIndex(name, table if view is None else view(table))
    except (pa.ArrowException, KeyError, OSError, ValueError) as problem:
        raise DatasetError(f"{storage.path(path)} is no shard index ({problem}); {advice}") from problem


def text_length(annotation: Annotation) -> int:
    """Characters of the longest text that an annotation holds."""
    if type(annotation) is Caption:
        return len(annotation.text)
    texts = [getattr(annotation, name, None) for name in ("text", "question", "hypothesis", "source", "label", "name")]
    return max((len(text) for text in texts if isinstance(text, str)), default=0)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _flat(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """A list column as the start of every row's items, shape (rows + 1,), and all items in one array."""
    lists = _combined(column)
    return lists.offsets.to_numpy().astype(np.int64) - (
        lists.offsets[0].as_py() if len(lists.offsets) else 0
    ), lists.flatten()
