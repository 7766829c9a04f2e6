"""JSON files that are larger than memory: the elements of their lists one at a time, through a window that moves over the text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from io import TextIOWrapper
from json.decoder import JSONDecodeError
from typing import Any, NoReturn, TextIO

from pipelines.packed import open_raw
from pipelines.raw_text import JSON_DECODER, beyond_json, check_file
from shards.errors import InputError

TOP = ""  # the name of the list where the file itself is one
_WINDOW = 1 << 20  # characters read at a time
_LONGEST_VALUE = 1 << 28  # characters; a value that is not finished by then is a missing quote or bracket
_SPACE = re.compile(r"[ \t\n\r]*")
_EXPONENT = 2  # characters behind a number, such as `e+` or `.`, that belong to it only with a digit after them
_UNDECIDED = 16  # characters before the window's end where a cut word or escape cannot be told from a wrong one


def stream_json(path: str, *, key: str, lists: Collection[str] = (TOP,)) -> Iterator[tuple[str, Any]]:
    """Read the members of the JSON object in a file, and of those in `lists` the elements one by one.

    Args:
        path: the file; bytes that are no UTF-8 stay in its texts as lone surrogates.
        key: the config key that named it, for messages.
        lists: names of members whose lists are taken apart; `TOP` for a file that is a list itself. A member of such a name
            that is no list comes as it is.

    Yields:
        (name, element or whole value), in the order of the file. A list that is empty, or a file that is neither list nor
        object, gives nothing of its own: `(name, [])`, and `(TOP, value)`.

    Raises:
        InputError: the file is no valid JSON, with line and column.
    """
    check_file(path, key=key)
    raw = open_raw(path, key=key)
    with TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        window = _Window(file, path=path, key=key)
        opening = window.peek()
        if opening == "{":
            yield from _members(window, lists)
        elif opening == "[" and TOP in lists:
            yield from ((TOP, value) for value in window.elements())
        else:
            yield TOP, window.value()
        if window.peek():
            window.fail("Extra data")


def _members(window: _Window, lists: Collection[str]) -> Iterator[tuple[str, Any]]:
    window.skip("{")
    if window.peek() == "}":
        window.skip("}")
        return
    while True:
        if window.peek() != '"':
            window.fail("Expecting property name enclosed in double quotes")
        name = window.value()
        window.skip(":")
        if name in lists and window.peek() == "[":
            empty = True
            for value in window.elements():
                empty = False
                yield name, value
            if empty:
                yield name, []
        else:
            yield name, window.value()
        if window.peek() == "}":
            window.skip("}")
            return
        window.skip(",")


class _Window:
    """The part of a text that is being decoded; knows the line and column of every character in it."""

    def __init__(self, file: TextIO, *, path: str, key: str) -> None:
        self._file = file
        self._path = path
        self._key = key
        self._text = ""
        self._at = 0
        self._ended = False
        self._lines_before = 0
        self._column_before = 0  # characters of the line at hand that are no longer in the window
        self._decode = JSON_DECODER.raw_decode

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, character: str) -> None:
        """Go past a character that has to come next."""
        if self.peek() != character:
            self.fail(f"Expecting {character!r} delimiter")
        self._at += 1

    def elements(self) -> Iterator[Any]:
        """The elements of the list that begins here."""
        self.skip("[")
        if self.peek() == "]":
            self.skip("]")
            return
        while True:
            yield self.value()
            following = self.peek()
            if following == "]":
                self.skip("]")
                return
            self.skip(",")

    def value(self) -> Any:
        """Decode the value that begins here, and go past it."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except JSONDecodeError as error:
                decided = error.pos < len(self._text) - _UNDECIDED and not error.msg.startswith("Unterminated string")
                if decided or len(self._text) - self._at > _LONGEST_VALUE or not self._more():
                    raise self._error(error.msg, at=error.pos) from error
            except (RecursionError, ValueError) as error:
                raise self._error(beyond_json(error), at=self._at) from error
            else:
                if len(self._text) - end > _EXPONENT or not self._more():  # a number may go on behind the window
                    self._at = end
                    return value

    def fail(self, what: str) -> NoReturn:
        """Raise the `InputError` of the character that comes next."""
        raise self._error(what, at=self._at)

    def _error(self, what: str, *, at: int) -> InputError:
        lines = self._text.count("\n", 0, at)
        column = at - self._text.rfind("\n", 0, at) if lines else self._column_before + at + 1
        return InputError(
            f"{self._key}: {self._path} is no valid JSON at line {self._lines_before + lines + 1}, column {column} ({what}); "
            "the file may be truncated, download or unpack it again"
        )

    def _more(self) -> bool:
        """Read on, dropping what lies behind; each time as much again as is undecoded, so that a long value stays linear."""
        if self._ended:
            return False
        more = self._file.read(max(_WINDOW, len(self._text) - self._at))
        self._ended = not more
        if not more:
            return False
        lines = self._text.count("\n", 0, self._at)
        self._lines_before += lines
        if lines:
            self._column_before = self._at - self._text.rfind("\n", 0, self._at) - 1
        else:
            self._column_before += self._at
        self._text = self._text[self._at :] + more
        self._at = 0
        return True
