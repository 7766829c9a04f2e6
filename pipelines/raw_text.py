"""Annotation files as they come: text that may hold broken bytes, JSON, and rows of CSV or TSV.

Bytes that are no UTF-8 survive reading as lone surrogates, so that one broken caption becomes one reject and not the end
of the run; `is_broken` finds them and `printable` makes them safe to store.
"""

from __future__ import annotations

import csv
import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pipelines.packed import is_there, lines_of, open_raw, plain_name
from pipelines.unpacking import packing_of
from shards.errors import InputError

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HEAD = 4096  # bytes by which a file is judged
_STRAY_CR = "\udc0d"  # no text holds it: undecodable bytes become surrogates from U+DC80 on
_TAR_MARK = slice(257, 262)  # where a tar says `ustar`


def is_broken(text: str) -> bool:
    """Whether a text holds bytes that were no UTF-8, or an unpaired surrogate from a JSON escape."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def printable(text: str) -> str:
    """The text with broken bytes spelt as escapes, so that it can be stored and shown."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_file(path: str, *, key: str) -> None:
    """Make sure that an annotation file can be read as text, packed or not, before anything is started.

    Args:
        path: the file as the user named it.
        key: the config key that named it, for the message.

    Raises:
        InputError: there is no such file, it is an address, empty, UTF-16, an archive of files, or packed in a way that is
            not read here.
    """
    if "://" in path:
        raise InputError(f"{key}: {path} is an address, and annotation files are read from a disk; copy it to one")
    file = Path(path)
    if not is_there(path):
        what = "is a folder, not a file" if file.is_dir() else "does not exist"
        raise InputError(f"{key}: {file.absolute()} {what}; point {key} at the dataset's annotation file")
    with open_raw(path, key=key) as opened:
        head = opened.read(_HEAD)
        opening = head.strip()
        while head and not opening and (more := opened.read(_HEAD)):
            opening = more.strip()
    if not opening:
        raise InputError(f"{key}: {file.absolute()} is empty; download or unpack it again")
    inside = packing_of(head) or ("tar" if head[_TAR_MARK] == b"ustar" else None)
    if inside is not None:
        raise InputError(
            f"{key}: {file.absolute()} holds another archive ({inside}); unpack it and give the file that was in it"
        )
    if head.startswith(_UTF16_MARKS):
        raise InputError(f"{key}: {file.absolute()} is UTF-16 text; save it as UTF-8")


def read_text(path: str, *, key: str) -> str:
    """Read a text file whole; bytes that are no UTF-8 stay as lone surrogates. Raises `InputError` as `check_file`."""
    check_file(path, key=key)
    with open_raw(path, key=key) as file:
        return file.read().decode("utf-8-sig", "surrogateescape")


def read_json(path: str, *, key: str) -> Any:
    """Read a JSON file whole. Raises `InputError` with line and column where it is malformed."""
    text = read_text(path, key=key)
    try:
        return decode_json(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{key}: {path} is no valid JSON at line {error.lineno}, column {error.colno} ({error.msg}); "
            "the file may be truncated, download or unpack it again"
        ) from error


def decode_json(text: str) -> Any:
    """Decode one JSON text; whatever it holds that Python cannot take is a `json.JSONDecodeError`, too."""
    try:
        return JSON_DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise json.JSONDecodeError(beyond_json(error), text, 0) from error


class _RepeatedKeyError(ValueError):
    """An object says two things of one key."""


def _whole_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some keys and values; of a key with two values Python would lose the first without a word."""
    whole = dict(pairs)
    if (
        len(whole) != len(pairs)
        and (twice := next((key for key, value in pairs if whole[key] != value), None)) is not None
    ):
        raise _RepeatedKeyError(f"the key {printable(twice)[:80]!r} stands twice in one object, with two values")
    return whole


JSON_DECODER = json.JSONDecoder(object_pairs_hook=_whole_object)
"""Decodes JSON as everywhere here; what it raises beside `JSONDecodeError` is told by `beyond_json`."""


def beyond_json(error: RecursionError | ValueError) -> str:
    """What is wrong with a text that is JSON by its grammar."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) if isinstance(error, _RepeatedKeyError) else "a number of too many digits"


def id_text(raw: Any) -> str | None:
    """An id as text, None where the value is none: whole numbers and texts are, and so is 7.0, as data frames write the id 7."""
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    return printable(str(raw)) if isinstance(raw, int | str) and not isinstance(raw, bool) and raw != "" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a delimited file. `number` counts rows from 1, `offset` and `size` find its bytes again."""

    number: int
    offset: int
    size: int
    cells: tuple[str, ...]


def read_rows(path: str, *, key: str, delimiter: str) -> Iterator[Row]:
    """Read a CSV or TSV file row by row; blank lines are no rows.

    A TSV is taken literally (web captions are full of stray quotes), a CSV by the usual quoting rules. A CR ends a line
    only before its LF; elsewhere it belongs to its cell.

    Raises:
        InputError: the file cannot be read as text, or a quote in it is never closed: all rows behind it would be one cell.
    """
    check_file(path, key=key)
    with open_raw(path, key=key) as file:
        raw = lines_of(file, path=path, key=key)
        first = next(raw)
        consumed = start = len(BOM_UTF8) if first.startswith(BOM_UTF8) else 0
        ended = False

        def lines() -> Iterator[str]:
            nonlocal consumed, ended
            for line in chain((first[start:],), raw):
                consumed += len(line)
                yield line.decode("utf-8", "surrogateescape")
            ended = True

        line_number = number = 0
        try:
            for cells, line_count in _split(lines(), delimiter):
                if ended:  # a row that asked for more than the last line
                    raise InputError(
                        f"{key}: {path}: a quote that opens in the row of line {line_number + 1} is never closed; "
                        "close it, or double the quotes inside of texts; where the file was cut, download or unpack it again"
                    )
                line_number = line_count
                if any(cell.strip() for cell in cells):
                    number += 1
                    yield Row(number=number, offset=start, size=consumed - start, cells=tuple(cells))
                start = consumed
        except csv.Error as error:  # a cell of 2 GiB
            raise InputError(
                f"{key}: {path}, in the row of line {line_number + 1}: {error}; is it really delimited text?"
            ) from error


def cells_of(row: bytes, *, delimiter: str) -> Sequence[str]:
    """The cells of a row, by the bytes that a `Row` says are its own."""
    lines = row.decode("utf-8", "surrogateescape").split("\n")
    return next(cells for cells, _ in _split((f"{line}\n" for line in lines), delimiter) if cells)


def _split(lines: Iterator[str], delimiter: str) -> Iterator[tuple[Sequence[str], int]]:
    """Yield (cells, how many lines have been read) of every row."""
    if delimiter == "\t":
        for number, line in enumerate(lines, start=1):
            yield line.removesuffix("\n").removesuffix("\r").split("\t"), number
        return
    csv.field_size_limit(2**31 - 1)  # a cell may hold a picture in base64
    has_stray = False

    def endings_alone() -> Iterator[str]:
        """The lines with a stand-in for each CR that ends none: `csv` would take it for the end of a row, and stop."""
        nonlocal has_stray
        for line in lines:
            end = len(line.removesuffix("\n").removesuffix("\r")) if "\r" in line else 0
            if line.find("\r", 0, end) < 0:
                yield line
            else:
                has_stray = True
                yield line[:end].replace("\r", _STRAY_CR) + line[end:]

    reader = csv.reader(endings_alone(), delimiter=delimiter)
    for cells in reader:
        yield [cell.replace(_STRAY_CR, "\r") for cell in cells] if has_stray else cells, reader.line_num


def first_character(path: str, *, key: str) -> str:
    """The first character of a text file that is no space. Raises `InputError` as `check_file`."""
    check_file(path, key=key)
    with open_raw(path, key=key) as file:
        while text := file.read(_HEAD).decode("utf-8", "replace"):
            if found := text.removeprefix("\ufeff").strip():
                return found[0]
    return ""


def read_headed_rows(path: str, *, key: str, delimiter: str) -> tuple[tuple[str, ...], Iterator[Row]]:
    """The names in the first row of a CSV or TSV file, and the rows behind it.

    Raises:
        InputError: there is no row at all, or as `read_rows`.
    """
    rows = read_rows(path, key=key, delimiter=delimiter)
    first = next(rows, None)
    if first is None:
        raise InputError(
            f"{key}: {path} has no rows; its first line must name the columns, so download or unpack it again"
        )
    return tuple(cell.strip() for cell in first.cells), rows


def first_line(path: str, *, key: str) -> str:
    """The first line of a text file, at most 64 KiB of it, without its end. Raises `InputError` as `check_file`."""
    check_file(path, key=key)
    with open_raw(path, key=key) as file:
        return file.readline(1 << 16).decode("utf-8-sig", "surrogateescape").rstrip("\r\n")


def delimiter_of(path: str, *, key: str) -> str:
    """What parts the cells of a file: by its ending, else by its first line. Some write semicolons or bars into a `.csv`."""
    ending = Path(plain_name(path)).suffix.lower()
    if ending in {".tsv", ".token"}:
        return "\t"
    first = first_line(path, key=key)
    likely = ",;|\t" if ending == ".csv" else "\t,;|"
    return next((delimiter for delimiter in likely if delimiter in first), ",")
