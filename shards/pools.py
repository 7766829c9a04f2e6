"""What wrong captions and answers are drawn from: a pool of captions, names of objects, answers by type; three plain files.

The files are those that OFA and UnIVAL ship with their data, so that theirs can be read here and ours there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import xxhash

from shards.errors import InputError

CAPTIONS_FILE, OBJECTS_FILE, ANSWERS_FILE = "all_captions.txt", "object.txt", "type2ans.json"
OTHER = "other"  # the type of an answer that has none


@dataclass(frozen=True, kw_only=True)
class Pools:
    """The three pools of a dataset; any may be empty.

    Attributes:
        captions: to draw a wrong caption from.
        objects: names, to put into a caption in place of one of its own.
        answers: by question type; `other` holds those of no type.
    """

    captions: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The type of each answer: the first that lists it, since one answer may answer several."""
        found: dict[str, str] = {}
        for name, answers in self.answers.items():
            for answer in answers:
                found.setdefault(answer, name)
        return found

    @cached_property
    def digest(self) -> str:
        """Of the three files."""
        hasher = xxhash.xxh3_64()
        for name, data in encode_pools(self).items():
            hasher.update(f"{name}\0{len(data)}\0".encode())
            hasher.update(data)
        return hasher.hexdigest()


def encode_pools(pools: Pools) -> dict[str, bytes]:
    """Put pools into the bytes of their files, by file name; a text of several lines becomes one line."""
    answers = json.dumps({name: list(texts) for name, texts in pools.answers.items()}, ensure_ascii=False, indent=0)
    return {
        CAPTIONS_FILE: _lines(pools.captions),
        OBJECTS_FILE: _lines(pools.objects),
        ANSWERS_FILE: f"{answers}\n".encode(),
    }


def decode_pools(read: Callable[[str], bytes], *, where: str) -> Pools:
    """Read pools from the files that are there.

    Args:
        read: the bytes of a file by its name.
        where: the folder, for the error.

    Raises:
        InputError: none of the files is there, or one cannot be read as what it is.
    """
    found: dict[str, bytes] = {}
    for name in (CAPTIONS_FILE, OBJECTS_FILE, ANSWERS_FILE):
        try:
            found[name] = read(name)
        except FileNotFoundError:
            continue
    if not found:
        raise InputError(f"{where} holds none of {CAPTIONS_FILE}, {OBJECTS_FILE} and {ANSWERS_FILE}; give their folder")
    return Pools(
        captions=_texts(found.get(CAPTIONS_FILE, b""), f"{where}/{CAPTIONS_FILE}"),
        objects=_texts(found.get(OBJECTS_FILE, b""), f"{where}/{OBJECTS_FILE}"),
        answers=_answers(found.get(ANSWERS_FILE, b"{}"), f"{where}/{ANSWERS_FILE}"),
    )


def _lines(texts: Iterable[str]) -> bytes:
    return "".join(f"{' '.join(text.split())}\n" for text in texts).encode()


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise InputError(f"{where}: not UTF-8 text (byte {problem.start}); convert it") from problem


def _texts(data: bytes, where: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in _text(data, where).split("\n") if line.strip())


def _answers(data: bytes, where: str) -> Mapping[str, tuple[str, ...]]:
    try:
        content: Any = json.loads(_text(data, where))
    except ValueError as problem:
        raise InputError(f"{where}: broken JSON ({problem}); fetch the file again") from problem
    if not isinstance(content, dict) or not all(isinstance(texts, list) for texts in content.values()):
        raise InputError(f"{where}: not a list of answers by question type; give OFA's {ANSWERS_FILE}, or leave it out")
    return {name: tuple(str(text) for text in texts) for name, texts in content.items()}
