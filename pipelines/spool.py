"""The plan on disk: raw items of any number, cut into units that load their items only when somebody asks for them.

A plan of ten million items would fill the driver's memory several times over. Its items lie in one temporary file instead,
compressed unit by unit; what stays in memory is a few numbers per unit.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, overload

from pipelines.units import RawItem, Unit, as_line, hash_of_items
from shards.errors import OstrakaError

_LEVEL = 1  # of zstandard; the texts shrink to about a quarter, at several hundred MB/s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """Where the items of one unit lie in the spool, and what they are worth hashing to."""

    offset: int
    packed_size: int
    size: int
    items: int
    content: str


class SpooledItems(Sequence[RawItem]):
    """The raw items of one unit, parsed whenever they are read; nothing of them is kept.

    Pickled, as for a Ray task, they are their own compressed bytes and know nothing of the file any more.
    """

    __slots__ = ("_file", "_packed", "_piece", "content")

    def __init__(self, piece: _Piece, *, file: BinaryIO | None = None, packed: bytes | None = None) -> None:
        """Args:
        piece: the place and the size of the items.
        file: the spool, or
        packed: the compressed items themselves.
        """
        self._piece = piece
        self._file = file
        self._packed = packed
        self.content = piece.content  # a hash over all items, in their order

    def __len__(self) -> int:
        return self._piece.items

    def __iter__(self) -> Iterator[RawItem]:
        # As one list: a parser called for every line takes as long to get going as to parse it.
        items: list[RawItem] = json.loads(b"[" + self._text().replace(b"\n", b",") + b"]")
        return iter(items)

    @overload
    def __getitem__(self, at: int) -> RawItem: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[RawItem]: ...
    def __getitem__(self, at: int | slice) -> RawItem | Sequence[RawItem]:
        lines = self._lines()
        if isinstance(at, slice):
            return [json.loads(line) for line in lines[at]]
        item: RawItem = json.loads(lines[at])
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._piece, self._bytes())

    def _lines(self) -> list[bytes]:
        return self._text().split(b"\n")

    def _text(self) -> bytes:
        """One item a line; JSON escapes the line ends inside of a text."""
        import pyarrow as pa

        text: bytes = pa.decompress(self._bytes(), decompressed_size=self._piece.size, codec="zstd", asbytes=True)
        return text

    def _bytes(self) -> bytes:
        if self._packed is not None:
            return self._packed
        assert self._file is not None
        packed = os.pread(self._file.fileno(), self._piece.packed_size, self._piece.offset)
        if len(packed) != self._piece.packed_size:
            raise OstrakaError("the plan's temporary file was cut while it was in use; run the same command again")
        return packed


def _restored(piece: _Piece, packed: bytes) -> SpooledItems:
    return SpooledItems(piece, packed=packed)


class SpooledUnits(Sequence[Unit]):
    """A plan: units by number, in constant memory per unit. Its file has no name, so nothing is left of it after a crash."""

    def __init__(self, items: Iterable[RawItem], *, size: int, first_index: int = 0) -> None:
        """Write the items down.

        Args:
            items: read once, one at a time.
            size: items of a unit; the last has what is left.
            first_index: number of the first unit, where a dataset already has some.

        Raises:
            OstrakaError: the temporary folder is full.
        """
        self._first_index = first_index
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="ostraka-plan-")  # noqa: SIM115 (it lives as long as the plan)
        self._pieces: list[_Piece] = []
        try:
            self._write(iter(items), size)
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise  # about a raw file, not about the spool
            raise OstrakaError(
                f"the plan could not be written to {tempfile.gettempdir()} ({error.strerror}); "
                "free some space there, or set TMPDIR to a larger disk"
            ) from error

    @property
    def item_count(self) -> int:
        """Raw items of all units."""
        return sum(piece.items for piece in self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)

    @overload
    def __getitem__(self, at: int) -> Unit: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Unit]: ...
    def __getitem__(self, at: int | slice) -> Unit | Sequence[Unit]:
        numbers = range(len(self._pieces))[at]
        return self._unit(numbers) if isinstance(numbers, int) else [self._unit(number) for number in numbers]

    def _unit(self, number: int) -> Unit:
        return Unit(index=self._first_index + number, items=SpooledItems(self._pieces[number], file=self._file))

    def _write(self, items: Iterator[RawItem], size: int) -> None:
        import pyarrow as pa

        codec = pa.Codec("zstd", compression_level=_LEVEL)
        offset = 0
        while lines := [as_line(item) for item in islice(items, size)]:
            text = b"\n".join(lines)
            packed = codec.compress(text, asbytes=True)
            self._file.write(packed)
            piece = _Piece(
                offset=offset,
                packed_size=len(packed),
                size=len(text),
                items=len(lines),
                content=hash_of_items(lines),
            )
            self._pieces.append(piece)
            offset += len(packed)
        self._file.flush()
