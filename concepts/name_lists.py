"""Names that others have collected, such as the objects and attributes of detection sets, as candidates for a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shards.errors import InputError

_LONGEST = 80  # characters; longer "names" mean that this is no list of names
_KNOWN = "one name per line, a JSON list of names, COCO's categories, and Visual Genome's objects and attributes"


def read_names(path: Path) -> tuple[str, ...]:
    """Read the names of one list, each once, lower-cased, in order of first sight.

    Known: text with one name per line (of synonyms between commas the first counts), a JSON list or an object with a list under
    `categories`, whose entries are names or objects with a `name`, and Visual Genome's `objects.json` and `attributes.json`.

    Raises:
        InputError: the file cannot be read, is none of these, or holds no name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({problem}); give a file with {_KNOWN}") from problem
    if text.lstrip()[:1] in ("{", "["):
        try:
            names = _from_json(json.loads(text))
        except ValueError as problem:
            raise InputError(f"{path}: broken JSON ({problem}); fetch the file again or leave it out") from problem
    else:
        names = (line.partition(",")[0] for line in text.splitlines())
    found = dict.fromkeys(" ".join(name.lower().split()) for name in names)
    found.pop("", None)
    if not found or max(map(len, found)) > _LONGEST:
        raise InputError(f"{path}: this is no list of names; known are {_KNOWN}")
    return tuple(found)


def _from_json(data: Any) -> Iterator[str]:
    if isinstance(data, Mapping):
        data = data.get("categories", ())
    for item in data if isinstance(data, list) else ():
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            yield from _from_object(item)


def _from_object(item: Mapping[str, Any]) -> Iterator[str]:
    """A name; or a picture of Visual Genome with its things, each with names, or with attributes where the file tells these."""
    if isinstance(item.get("name"), str):
        yield item["name"]
    for thing in _mappings(item.get("objects")):
        yield from _strings(thing.get("names"))
    for thing in _mappings(item.get("attributes")):
        yield from _strings(thing.get("attributes"))


def _mappings(value: Any) -> Iterable[Mapping[str, Any]]:
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else ()


def _strings(value: Any) -> Iterable[str]:
    return (each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
