"""Annotation files with one JSON object per line, as SNLI-VE, NLVR and NLVR2 come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.packed import lines_of, open_raw
from pipelines.raw_text import check_file, decode_json
from shards.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLine:
    """One object and the number of its line, from 1."""

    number: int
    fields: Mapping[str, Any]


def read_json_lines(path: str, *, key: str, must_have: str, what: str) -> Iterator[JsonLine]:
    """Read the objects of a file, line by line; blank lines are none. Broken UTF-8 stays as surrogates.

    Args:
        path: the file as the user named it.
        key: the config key that named it, for messages.
        must_have: a field that the first object of the right file has.
        what: the right file, for messages.

    Raises:
        InputError: a line is no JSON object, as where the file breaks off, or the file is another one.
    """
    check_file(path, key=key)
    first = True
    with open_raw(path, key=key) as file:
        for number, line in enumerate(lines_of(file, path=path, key=key), start=1):
            if not line.strip():
                continue
            try:
                fields = decode_json(line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape"))
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{key}: {path}, line {number}: no valid JSON ({error.msg}); it is not {what}, or was truncated: "
                    "download or unpack it again"
                ) from error
            if not isinstance(fields, dict):
                raise InputError(f"{key}: {path}, line {number}: no JSON object; give {what}")
            if first and must_have not in fields:
                holds = ", ".join(sorted(fields))[:200]
                raise InputError(f"{key}: {path}, line {number} has no `{must_have}` (it holds: {holds}); give {what}")
            first = False
            yield JsonLine(number=number, fields=fields)
