"""Records to look at, wherever they lie: in a dataset, or made on the spot of pictures and texts that somebody gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from shards.errors import InputError
from shards.media import MediaProblem, probe_media
from shards.records import Annotation, Origin, Record

GIVEN = "given"  # the name of what is no dataset

_NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9_-]+")


class Shelf(Protocol):
    """What a dataset offers to those who look at its records."""

    @property
    def path(self) -> str:
        """Where it lies, for messages."""
        ...

    def shard_sizes(self) -> tuple[int, ...]:
        """How many records each shard holds."""
        ...

    def records(self, shard: int | None = None, *, payload: bool = True) -> Iterator[Record]:
        """Read the records of one shard, or of all, in order."""
        ...

    def record(self, shard: int, row: int, *, payload: bool = True) -> Record:
        """Read one record."""
        ...

    def expect(self, shard: int, rows: Callable[[], Iterable[int]], *, payload: bool = True) -> None:
        """Announce records that will be read soon."""
        ...


class Notes(Protocol):
    """What is known of records beside them: a sidecar, or words that somebody gives."""

    def row(self, shard: int, key: str) -> Mapping[str, Any]:
        """What is known of one record."""
        ...


class GivenRecords:
    """One shard of records that lie in memory."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = tuple(records)

    @property
    def path(self) -> str:
        return "the given pictures"

    def shard_sizes(self) -> tuple[int, ...]:
        return (len(self._records),)

    def records(self, shard: int | None = None, *, payload: bool = True) -> Iterator[Record]:
        yield from self._records

    def record(self, shard: int, row: int, *, payload: bool = True) -> Record:
        return self._records[row]

    def expect(self, shard: int, rows: Callable[[], Iterable[int]], *, payload: bool = True) -> None:
        """Everything is there."""


class Questioned:
    """A shelf whose records have other annotations than their own: the same ones each."""

    def __init__(self, shelf: Shelf, annotations: Sequence[Annotation]) -> None:
        self._shelf = shelf
        self._annotations = tuple(annotations)
        self.path = shelf.path
        self.shard_sizes = shelf.shard_sizes
        self.expect = shelf.expect

    def records(self, shard: int | None = None, *, payload: bool = True) -> Iterator[Record]:
        return (
            replace(record, annotations=self._annotations) for record in self._shelf.records(shard, payload=payload)
        )

    def record(self, shard: int, row: int, *, payload: bool = True) -> Record:
        return replace(self._shelf.record(shard, row, payload=payload), annotations=self._annotations)


class GivenNotes:
    """What is known of given records, by key."""

    def __init__(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        self._rows = rows

    def row(self, shard: int, key: str) -> Mapping[str, Any]:
        return self._rows[key]


def given_pictures(paths: Sequence[str], *, together: int = 1) -> GivenRecords:
    """Make records of picture files, without annotations.

    Args:
        paths: of the files; a record's key is made of the names of its pictures.
        together: how many pictures make a record.

    Raises:
        InputError: a file cannot be read or is no whole picture, or the pictures do not come `together`.
    """
    if len(paths) % together:
        raise InputError(
            f"picture: {len(paths)} given, and this run looks at {together} at once; give {together} for each example"
        )
    groups = [tuple(paths[start : start + together]) for start in range(0, len(paths), together)]
    keys = [_NOT_IN_KEYS.sub("_", "-".join(Path(path).stem for path in group)) for group in groups]
    taken = Counter(keys)
    records = []
    for number, (key, group) in enumerate(zip(keys, groups, strict=True)):
        members, payload = [], {}
        for place, path in enumerate(group):
            data, media = _read(path)
            member = media.member if together == 1 else f"{place}.{media.member}"
            members.append(replace(media, member=member))
            payload[member] = data
        records.append(
            Record(
                key=key if taken[key] == 1 else f"{key}-{number}",
                origin=Origin(dataset=GIVEN, split=GIVEN, id=Path(group[0]).stem, file=group[0]),
                media=tuple(members),
                annotations=(),
                payload=payload,
            )
        )
    return GivenRecords(records)


def _read(path: str) -> tuple[bytes, Any]:
    try:
        data = Path(path).read_bytes()
        return data, probe_media(data, kind="image")
    except OSError as error:
        raise InputError(
            f"picture={path}: cannot be read ({error.strerror or error}); give the path of a file"
        ) from error
    except MediaProblem as problem:
        raise InputError(f"picture={path}: is no picture that can be shown ({problem}); give another file") from problem
