"""Concepts that raw files bring along, as the sidecar column that training reads.

The column has the format of the one that the `concepts` verb makes: `phrases`, best first, and `scores`. Published lists carry
no scores, so these are all 0.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from shards.config import digest
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.sidecar import Sidecar, sidecar_folder, sidecar_shards, write_sidecar

COLUMN = "concepts"
SECOND = "second_phrases"  # of the second picture, where records have two
_SCHEMA = 1


class ConceptLists:
    """The concepts of many records, by key; in memory a number of four bytes for each."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._phrases: list[str] = []
        self._lists: dict[str, tuple[array[int], ...]] = {}

    def __len__(self) -> int:
        return len(self._lists)

    def __contains__(self, key: str) -> bool:
        return key in self._lists

    def add(self, key: str, *lists: Iterable[str]) -> None:
        """Take the concepts of a record, one list per picture."""
        self._lists[key] = tuple(array("I", (self._number(phrase) for phrase in phrases)) for phrases in lists)

    def of(self, key: str, picture: int = 0) -> list[str]:
        """The concepts of one picture, best first; empty where there are none."""
        lists = self._lists.get(key, ())
        return [self._phrases[number] for number in lists[picture]] if picture < len(lists) else []

    def has_pairs(self) -> bool:
        return any(len(lists) > 1 for lists in self._lists.values())

    def _number(self, phrase: str) -> int:
        number = self._numbers.setdefault(phrase, len(self._phrases))
        if number == len(self._phrases):
            self._phrases.append(phrase)
        return number


def write_concepts(dataset: Dataset, concepts: ConceptLists, *, source: str) -> str:
    """Write the column for every shard that does not have it; a second call changes nothing.

    The column's name says where the lists come from but not what is in them, so that records which are appended later join it.

    Args:
        dataset: the finished dataset; a record without concepts gets an empty list.
        concepts: by record key.
        source: the kind of raw format that brought them.

    Returns:
        The column's folder name, such as `concepts-1a2b3c4d`.

    Raises:
        DatasetError: a shard has the column already, with other concepts.
    """
    card = {
        "source": source,
        "schema": _SCHEMA,
        "scores": "none published",
        "pictures": 2 if concepts.has_pairs() else 1,
    }
    digest8 = digest({"column": COLUMN, **card})[:8]
    there = sidecar_shards(dataset.storage, COLUMN, digest8)
    for number, entry in enumerate(dataset.manifest):
        if entry.name in there:
            _check_same(dataset, number, concepts, folder=sidecar_folder(COLUMN, digest8))
            continue
        keys = dataset.index(number).keys
        write_sidecar(
            dataset.storage,
            column=COLUMN,
            digest8=digest8,
            shard=entry.name,
            keys=keys,
            values=_table(keys, concepts),
            card=card,
        )
    return f"{COLUMN}-{digest8}"


def _check_same(dataset: Dataset, number: int, concepts: ConceptLists, *, folder: str) -> None:
    """See that a written shard says what the lists say; keys that these do not name came from an earlier list."""
    table = Sidecar(dataset, folder).table(number)
    for key, phrases in zip(table["key"].to_pylist(), table["phrases"].to_pylist(), strict=True):
        if key in concepts and phrases != concepts.of(key):
            raise DatasetError(
                f"{dataset.storage.path(folder)}: the record {key!r} of {dataset.manifest[number].name} has other concepts "
                "than the list at hand; remove the folder to make the column again"
            )


def _table(keys: Sequence[str], concepts: ConceptLists) -> Any:
    import pyarrow as pa

    first = [concepts.of(key) for key in keys]
    columns = {
        "phrases": pa.array(first, pa.list_(pa.string())),
        "scores": pa.array([[0.0] * len(phrases) for phrases in first], pa.list_(pa.float32())),
    }
    if concepts.has_pairs():
        columns[SECOND] = pa.array([concepts.of(key, 1) for key in keys], pa.list_(pa.string()))
    return pa.table(columns)
