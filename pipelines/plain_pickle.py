"""Pickles of plain data, read without any means to run code.

REFER publishes its expressions as a pickle of Python 2. Python's own unpickler calls whatever a file tells it to; even one that
finds no classes can be made to reserve gigabytes by one memo index. So this is no unpickler with doors closed but a reader of
the part of the language that describes lists, dicts, tuples, texts and numbers. It knows no instruction that names, makes or
calls anything else.
"""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pipelines.packed import is_there, open_raw
from shards.errors import InputError

_DEPTH = 32  # of containers inside one another; REFER's have four
_MAX_EXPANSION = 200  # how many times larger than the file its content may be once every reference is spelt out
_INT_BYTES = 8  # longer integers are nobody's id, and printing them takes for ever
_QUOTED = re.compile(rb"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_MARK: Final = object()
_CONSTANTS: Mapping[int, Any] = {ord("N"): None, 0x88: True, 0x89: False}
_NUMBERS: Mapping[int, str] = {ord("K"): "<B", ord("M"): "<H", ord("J"): "<i", ord("G"): ">d"}
_TEXTS: Mapping[int, str] = {  # opcode → format of the length before the bytes
    ord("U"): "<B",  # a Python 2 str
    ord("T"): "<i",
    0x8C: "<B",  # unicode
    ord("X"): "<I",
    0x8D: "<Q",
    ord("C"): "<B",  # bytes
    ord("B"): "<I",
}
_STORES: Mapping[int, str] = {ord("q"): "<B", ord("r"): "<I"}
_FETCHES: Mapping[int, str] = {ord("h"): "<B", ord("j"): "<I"}
_FOREIGN: Mapping[int, str] = {
    ord("c"): "GLOBAL",
    0x93: "STACK_GLOBAL",
    ord("i"): "INST",
    ord("o"): "OBJ",
    ord("R"): "REDUCE",
    ord("b"): "BUILD",
    0x81: "NEWOBJ",
    0x92: "NEWOBJ_EX",
    ord("P"): "PERSID",
    ord("Q"): "BINPERSID",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
}


class _UnsafeError(ValueError):
    """The file holds more than plain data."""


def read_plain_pickle(path: str, *, key: str) -> Any:
    """Read a pickle of lists, tuples, dicts, texts, numbers, booleans and None, of any protocol; nothing in it is ever run.

    Python 2 byte strings are read as UTF-8, or as Latin-1 where they are none.

    Raises:
        InputError: there is no such file, it is no pickle or breaks off, it holds anything but plain data, is nested
            deeper than such a file can be, or would unfold to a multiple of its size.
    """
    file = Path(path)
    if not is_there(path):
        what = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise InputError(f"{key}: {file.absolute()} {what}; point {key} at the pickle that the dataset is published as")
    with open_raw(path, key=key) as opened:
        data = opened.read()
    try:
        content = _Reader(data).read()
        _check_size(content, limit=_MAX_EXPANSION * len(data))
    except _UnsafeError as problem:
        raise InputError(
            f"{key}: {path} is refused: {problem}; nothing of it was run, get the file from its authors"
        ) from problem
    except (ArithmeticError, LookupError, SyntaxError, TypeError, ValueError, struct.error) as problem:
        raise InputError(
            f"{key}: {path} is no pickle or breaks off ({type(problem).__name__}: {problem}); download it again"
        ) from problem
    return content


class _Reader:
    """A stack, a memo, and one method per shape of instruction."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._actions: dict[int, Callable[[], None]] = {
            0x80: lambda: self._skip(1),  # PROTO
            0x95: lambda: self._skip(8),  # FRAME
            ord("("): lambda: self._stack.append(_MARK),
            ord("]"): lambda: self._stack.append([]),
            ord("}"): lambda: self._stack.append({}),
            ord(")"): lambda: self._stack.append(()),
            ord("l"): lambda: self._stack.append(self._since_mark()),
            ord("t"): lambda: self._stack.append(tuple(self._since_mark())),
            ord("d"): lambda: self._stack.append(_paired(self._since_mark())),
            0x85: lambda: self._tuple(1),
            0x86: lambda: self._tuple(2),
            0x87: lambda: self._tuple(3),
            ord("a"): lambda: self._extend([self._pop()]),
            ord("e"): lambda: self._extend(self._since_mark()),
            ord("s"): lambda: self._update(self._last(2)),
            ord("u"): lambda: self._update(self._since_mark()),
            ord("p"): lambda: self._store(int(self._line())),
            0x94: lambda: self._store(len(self._memo)),
            ord("g"): lambda: self._stack.append(self._memo[int(self._line())]),
            ord("I"): lambda: self._stack.append(_integer_line(self._line())),
            ord("L"): lambda: self._stack.append(_integer_line(self._line().removesuffix(b"L"))),
            ord("F"): lambda: self._stack.append(float(self._line())),
            0x8A: lambda: self._stack.append(self._long(self._number("<B"))),
            0x8B: lambda: self._stack.append(self._long(self._number("<i"))),
            ord("S"): lambda: self._stack.append(_quoted(self._line())),
            ord("V"): lambda: self._stack.append(self._line().decode("raw-unicode-escape")),
        }

    def read(self) -> Any:
        while (code := self._take(1)[0]) != ord("."):
            if code in _TEXTS:
                self._stack.append(_text(self._take(self._number(_TEXTS[code]))))
            elif code in _FETCHES:
                self._stack.append(self._memo[self._number(_FETCHES[code])])
            elif code in _STORES:
                self._store(self._number(_STORES[code]))
            elif code in _NUMBERS:
                self._stack.append(self._number(_NUMBERS[code]))
            elif code in _CONSTANTS:
                self._stack.append(_CONSTANTS[code])
            elif code in self._actions:
                self._actions[code]()
            elif code in _FOREIGN:
                raise _UnsafeError(f"it asks for an object beyond plain data ({_FOREIGN[code]} at byte {self._at - 1})")
            else:
                raise ValueError(f"unknown instruction {code:#04x} at byte {self._at - 1}")
        return self._pop()

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size] if size >= 0 else b""
        if len(taken) != size:
            raise ValueError(f"{size} bytes are announced at byte {self._at}, and the file has {len(self._data)}")
        self._at += size
        return taken

    def _skip(self, size: int) -> None:
        self._take(size)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> bytes:
        line = self._data[self._at : self._data.index(b"\n", self._at)]
        self._at += len(line) + 1
        return line

    def _long(self, size: int) -> int:
        if size > _INT_BYTES:
            raise _UnsafeError(f"an integer of {size} bytes")
        return int.from_bytes(self._take(size), "little", signed=True)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing")
        return value

    def _last(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _tuple(self, count: int) -> None:
        self._stack.append(tuple(self._last(count)))

    def _since_mark(self) -> list[Any]:
        values: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _UnsafeError("it appends to something that is no list")
        self._stack[-1].extend(values)

    def _update(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise _UnsafeError("it sets an item of something that is no dict")
        self._stack[-1].update(_paired(values))

    def _store(self, number: int) -> None:
        if self._stack[-1] is _MARK:
            raise ValueError("a mark is no value to remember")
        self._memo[number] = self._stack[-1]


def _paired(values: list[Any]) -> dict[str | int, Any]:
    """Keys and values in turn; a key that is a nest of tuples could keep the machine hashing for ever."""
    if not all(isinstance(key, str | int) for key in values[::2]):
        raise _UnsafeError("a key that is neither text nor a number")
    return dict(zip(values[::2], values[1::2], strict=True))


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _quoted(line: bytes) -> str:
    """A Python 2 str as protocol 0 writes it: with quotes and escapes."""
    if not _QUOTED.fullmatch(line):
        raise ValueError(f"a text without its quotes, {line[:40]!r}")
    if b"\\" not in line:
        return _text(line[1:-1])
    value: bytes = ast.literal_eval(
        "b" + line.decode("ascii")
    )  # the pattern leaves it nothing else to be than one literal
    return _text(value)


def _integer_line(line: bytes) -> int | bool:
    if line in (b"00", b"01"):  # protocol 0 writes booleans as these
        return line == b"01"
    if len(line) > 20:
        raise _UnsafeError(f"an integer of {len(line)} digits")
    return int(line)


def _check_size(content: Any, *, limit: int) -> None:
    """Refuse what unfolds to too much: a few references to references describe more than any machine holds."""
    sizes: dict[int, int] = {}

    def size(value: Any, depth: int) -> int:
        if isinstance(value, str):
            return 1 + len(value)
        if not isinstance(value, list | tuple | dict):
            return 1
        if id(value) not in sizes:
            if depth > _DEPTH:
                raise _UnsafeError(f"its lists are nested more than {_DEPTH} deep, or hold themselves")
            inside = [*value, *value.values()] if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size(part, depth + 1) for part in inside)
        return sizes[id(value)]

    if (unfolded := size(content, 0)) > limit:
        raise _UnsafeError(f"its references unfold to {unfolded:,} values, a pickle bomb")
