"""Leave out pictures that the dataset already has, or that another dataset (the test split) has: by bytes, or nearly the same.

    transforms: [{kind: drop_duplicates, by: perceptual, distance: 4, against: [DATASET/test]}]

The first of several stays. Clips and sounds are compared by their bytes, and texts without media by what they say. The decision
looks at the whole dataset before the first shard is written, so it is the same for any number of workers; every record that goes
is a reject, `duplicate`, which names the one that stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from pipelines.duplicates import By, Fingerprint, fingerprint, leaks, repeats
from pipelines.transform import Transform
from shards.config import Config as BaseConfig
from shards.reader import open_dataset
from shards.records import Record, Reject


class Config(BaseConfig):
    by: By = "content"
    """`content`: equal bytes; `perceptual`: pictures that look alike, such as other sizes and encodings of one photo."""
    distance: int = Field(default=4, ge=0, le=16)
    """Of `perceptual`: in how many of 64 bits two hashes may differ. Re-encoding changes 0 to 4; above 8, others are taken too."""
    against: tuple[str, ...] = ()
    """Finished datasets whose pictures must not be in this one, such as its test split."""

    def identity(self) -> dict[str, Any]:
        """The settings with what the other datasets hold in place of where they lie."""
        digests = [open_dataset(path).card.manifest_digest for path in self.against]
        return {**self.model_dump(mode="json"), "against": digests}


class DropDuplicates:
    """Surveys fingerprints; see the module."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def look(self, record: Record) -> Mapping[str, Any]:
        found = fingerprint(record, by=self._config.by)
        perceptual = None if found.perceptual is None else f"{found.perceptual:016x}"
        return {"content": f"{found.content:016x}", "perceptual": perceptual}

    def decide(self, looks: Iterable[tuple[str, Mapping[str, Any]]]) -> Mapping[str, str]:
        keys: list[str] = []
        prints: list[Fingerprint] = []
        for key, look in looks:
            keys.append(key)
            prints.append(_fingerprint(look))
        distance = self._config.distance
        verdicts = {
            keys[place]: f"the same as {keys[first]}" for place, first in repeats(prints, distance=distance).items()
        }
        for path in self._config.against:
            there_keys, there = _of_dataset(path, self._config.by)
            for place, first in leaks(prints, against=there, distance=distance).items():
                verdicts[keys[place]] = f"the same as {there_keys[first]} of the dataset {open_dataset(path).card.name}"
        return verdicts

    def informed(self, verdicts: Mapping[str, str]) -> Transform:
        return _Informed(verdicts)


class _Informed:
    def __init__(self, verdicts: Mapping[str, str]) -> None:
        self._verdicts = verdicts

    def __call__(self, record: Record) -> Record | Reject:
        why = self._verdicts.get(record.key)
        return record if why is None else Reject(id=record.origin.id, reason="duplicate", detail=why)


def _fingerprint(look: Mapping[str, Any]) -> Fingerprint:
    perceptual = look["perceptual"]
    return Fingerprint(content=int(look["content"], 16), perceptual=None if perceptual is None else int(perceptual, 16))


def _of_dataset(path: str, by: By) -> tuple[list[str], list[Fingerprint]]:
    """Keys and fingerprints of a finished dataset, in its order."""
    pairs: Iterator[tuple[str, Fingerprint]] = (
        (record.key, fingerprint(record, by=by)) for record in open_dataset(path).records()
    )
    keys, prints = [], []
    for key, print in pairs:
        keys.append(key)
        prints.append(print)
    return keys, prints


def build(config: Config) -> DropDuplicates:
    return DropDuplicates(config)
