"""The names that one picture goes by in several datasets: its path, its base name, its COCO number, its raw id."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipelines.listed_media import ENDINGS
from shards.errors import InputError
from shards.records import Origin

Match = Literal["auto", "file", "id"]

# 2014, 2015 and 2017 releases name one photo COCO_train2014_000000000025.jpg, 000000000025.jpg or val2017/000000000025.jpg;
# REFER appends the number of an annotation (…_000000000025_7.jpg).
_COCO = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})(?:_\d+)?\.(?:jpg|jpeg|png)", re.IGNORECASE)
_CLIPS_AND_SOUNDS = frozenset(ENDINGS["video"] + ENDINGS["audio"])
_STRONGEST_FIRST = ("path", "base", "coco", "stem", "id")
_BY_MATCH: dict[Match, frozenset[str]] = {
    "auto": frozenset(_STRONGEST_FIRST),
    "file": frozenset({"path", "base", "coco", "stem"}),
    "id": frozenset({"id"}),
}


def names_of(*, file: str | None, id: str, match: Match = "auto") -> Iterator[str]:
    """Yield what a picture may be called, the name that says most first; two pictures with one in common may be the same.

    Args:
        file: relative to the media folder; None for media in no file of their own.
        id: the raw dataset's own.
        match: which names count; `auto` takes the id only of items that name no file.
    """
    wanted = _BY_MATCH[match]
    if file is not None and "path" in wanted:
        path = PurePosixPath(unicodedata.normalize("NFC", file.replace("\\", "/")))
        yield f"path:{path}"
        yield f"base:{path.name}"
        coco = _COCO.fullmatch(path.name)
        if coco is not None:
            yield f"coco:{int(coco.group(1))}"
        # Clips and sounds are named without an ending where they are annotated, and come in whichever container was made.
        if path.suffix.lower() in _CLIPS_AND_SOUNDS:
            yield f"stem:{path.stem}"
    elif "id" in wanted:
        yield f"id:{id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Where a record lies in its dataset."""

    shard: int
    row: int


class PictureNames:
    """From a picture's names to the one record that holds it; 16 bytes per name, so that ten million records fit."""

    def __init__(self, origins: Iterator[tuple[Spot, Origin]], *, match: Match, dataset: str) -> None:
        """Read the origins of all records once.

        Args:
            origins: of every record of the dataset.
            match: which names count.
            dataset: its path, for messages.
        """
        self._match = match
        self._dataset = dataset
        hashes, spots = array("Q"), array("q")  # lists of numbers would take four times the memory
        for spot, origin in origins:
            # A record answers to its id too where it has a file: an item without a file may ask for it by id.
            for name in {*names_of(file=origin.file, id=origin.id, match=match), f"id:{origin.id}"}:
                hashes.append(_hashed(name))
                spots.append(spot.shard << 32 | spot.row)
        order = np.argsort(np.frombuffer(hashes, np.uint64), kind="stable")
        self._hashes: NDArray[np.uint64] = np.frombuffer(hashes, np.uint64)[order]
        self._spots: NDArray[np.int64] = np.frombuffer(spots, np.int64)[order]

    def find(self, names: Sequence[str]) -> Spot | None:
        """The record that goes by the strongest of these names that any record has; None where no record has one.

        Raises:
            InputError: several records go by that name.
        """
        for name in names:
            first, last = (
                int(np.searchsorted(self._hashes, np.uint64(_hashed(name)), side)) for side in ("left", "right")
            )
            found = np.unique(self._spots[first:last])
            if len(found) > 1:
                raise InputError(
                    f"{len(found)} records of {self._dataset} go by {name.partition(':')[2]!r}, so it cannot be told which one the "
                    "annotations mean; annotate a dataset that holds each picture once, or choose another `match` (file, id)"
                )
            if len(found):
                return Spot(shard=int(found[0]) >> 32, row=int(found[0]) & 0xFFFFFFFF)
        return None


def _hashed(name: str) -> int:
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogateescape"))
