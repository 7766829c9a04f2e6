"""Captions out of files that hold no pictures: the layouts in which caption sets are published, told apart by their content."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.errors import InputError

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".token")
CAPTION_COLUMN = re.compile(r"(caption|sentence|comment|text|description)(_?\d+)?", re.IGNORECASE)
_TOKEN_LINE = re.compile(r"[^\t]+#\w+\t.*")
_NAMED_LINE = re.compile(r"(?=\S*\d)(?=\S*_)(\S+) (.+)")  # MSVD: the clip's name, then its caption
_ADDRESS = re.compile(r"(https?://|//)\S+|\S+\.(jpe?g|png|webp|gif|bmp)", re.IGNORECASE)
_CAPTION_KEYS = ("caption", "caption_str", "captions", "sentences", "sentence", "text", "raw")
_LONGEST_LINE = 5_000  # characters; longer "captions" mean that this is no caption file


def caption_files(paths: Iterable[str]) -> list[Path]:
    """Expand files and folders to the files to read, in a fixed order. In a folder, only known endings count, readme files do not.

    Raises:
        InputError: a path does not exist, or a folder holds no caption file.
    """
    files: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_file():
            files.append(path)
            continue
        found = sorted(inner for inner in path.rglob("*") if inner.is_file() and inner.suffix.lower() in SUFFIXES)
        found = [inner for inner in found if not inner.stem.lower().startswith(("readme", "license", "licence"))]
        if not found:
            problem = "holds no caption file" if path.is_dir() else "does not exist"
            raise InputError(f"vocabulary.texts: {path} {problem}; give files or folders with {', '.join(SUFFIXES)}")
        files.extend(found)
    return files


def read_captions(path: Path) -> list[str]:
    """Read every caption of one file, whatever its layout.

    Known: COCO captions, Karpathy and list JSON, JSON lines, CSV or TSV with a caption column, TSV of caption and address,
    Flickr tokens (`name.jpg#0<TAB>caption`), lines of name and caption (MSVD), and plain text with one caption per line.

    Raises:
        InputError: none of these, no caption inside, or not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"{path}: not UTF-8 text (byte {problem.start}); convert it or leave it out") from problem
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror})") from problem
    captions = [" ".join(caption.split()) for caption in _captions_of(text, path)]
    captions = [caption for caption in captions if caption]
    if not captions:
        raise InputError(f"{path}: no caption found inside; known are {_KNOWN}")
    return captions


_KNOWN = "COCO or list JSON, CSV or TSV with a caption column, Flickr tokens, and one caption per line"


def _captions_of(text: str, path: Path) -> list[str]:
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(text, path)
    lines = [line for line in text.splitlines() if line.strip()]
    head = lines[:50]
    if "\0" in text or any(len(line) > _LONGEST_LINE for line in head):
        raise InputError(f"{path}: this looks like no caption file; known are {_KNOWN}")
    if head and all(_TOKEN_LINE.fullmatch(line) for line in head):
        return [line.split("\t", 1)[1] for line in lines if "\t" in line]
    if head and all(_NAMED_LINE.fullmatch(line) for line in head):
        return [line.partition(" ")[2] for line in lines]
    for delimiter in ("\t", ",", "|"):
        if head and delimiter in head[0]:
            captions = _from_table(text, delimiter)
            if captions is not None:
                return captions
    return lines


class _Tabs(csv.excel):
    quoting = csv.QUOTE_NONE


def _from_table(text: str, delimiter: str) -> list[str] | None:
    """Read a table by its header's caption columns, or one of captions and addresses; None where it is neither."""
    # Tab-separated web captions hold stray quotes, which are no quoting there.
    dialect = _Tabs if delimiter == "\t" else csv.excel
    cells = csv.reader(io.StringIO(text), dialect, delimiter=delimiter, skipinitialspace=True)
    rows = [row for row in cells if row]
    header = [cell.strip() for cell in rows[0]]
    columns = [place for place, cell in enumerate(header) if CAPTION_COLUMN.fullmatch(cell)]
    if columns and len(header) > 1:
        return [row[place] for row in rows[1:] for place in columns if place < len(row)]
    sample = [row for row in rows[:50] if len(row) == 2]
    if delimiter == "\t" and len(sample) == len(rows[:50]):
        for place in (0, 1):
            if all(_ADDRESS.fullmatch(row[place].strip()) for row in sample):
                return [row[1 - place] for row in rows if len(row) == 2]
    return None


def _from_json(text: str, path: Path) -> list[str]:
    try:
        data = json.loads(text)
    except ValueError:
        try:
            data = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as problem:
            raise InputError(f"{path}: broken JSON ({problem}); fetch the file again or leave it out") from problem
    if isinstance(data, Mapping):
        for key in ("annotations", "images", "sentences", "data"):
            captions = _from_items(data.get(key))
            if captions:
                return captions
        data = [data]
    return _from_items(data)


def _from_items(items: Any) -> list[str]:
    """Captions of a list of objects: a string, a list of strings, or Karpathy's list of sentences with their raw text."""
    captions: list[str] = []
    for item in items if isinstance(items, list) else ():
        captions.extend(_strings(item if isinstance(item, str) else _caption_value(item)))
    return captions


def _caption_value(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return None
    return next((item[key] for key in _CAPTION_KEYS if key in item), None)


def _strings(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [
            text for inner in value for text in _strings(inner if isinstance(inner, str) else _caption_value(inner))
        ]
    return []
