"""The pass before a conversion whose transforms must know the whole dataset: every unit is looked at, then one decision is made.

What was seen of a unit lies in `survey/<unit>.parquet` of the dataset and is kept there: a resumed run looks at nothing twice,
and one that appends decides about new items in the light of the old ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.transform import Survey, Transform, transformed
from shards.config import canonical_json
from shards.errors import ConfigError, DatasetError
from shards.index import decode_parquet, encode_parquet
from shards.records import Record
from shards.storage import Storage

FOLDER = "survey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The transforms of a conversion, cut at the one that surveys; `survey` is None where none does."""

    before: tuple[Transform, ...]
    survey: Survey | None
    after: tuple[Transform, ...]

    def informed(self, verdicts: Mapping[str, str]) -> tuple[Transform, ...]:
        """The whole chain for one unit."""
        middle = () if self.survey is None else (self.survey.informed(verdicts),)
        return (*self.before, *middle, *self.after)


def chain_of(transforms: Sequence[Transform | Survey]) -> Chain:
    """Cut a chain. Raises `ConfigError` for two surveys: the second would have to wait for a conversion by the first."""
    places = [place for place, transform in enumerate(transforms) if hasattr(transform, "look")]
    if len(places) > 1:
        raise ConfigError("transforms: at most one of them may look at the whole dataset; give drop_duplicates once")
    cut = places[0] if places else len(transforms)
    plain: Any = transforms
    return Chain(before=tuple(plain[:cut]), survey=plain[cut] if places else None, after=tuple(plain[cut + 1 :]))


def surveyed(storage: Storage) -> set[str]:
    """The units that have been looked at."""
    return {
        name.removeprefix(f"{FOLDER}/").removesuffix(".parquet")
        for name in storage.list(FOLDER)
        if name.endswith(".parquet")
    }


def survey_records(storage: Storage, unit: str, chain: Chain, records: Iterator[Record]) -> int:
    """Look at the records of one unit as the survey will meet them, and write down what was seen; the first attempt wins.

    Returns:
        How many records reached the survey.
    """
    import pyarrow as pa

    assert chain.survey is not None
    rows = [
        {"key": result.key, **chain.survey.look(result)}
        for record in records
        for result in transformed(record, chain.before)
        if isinstance(result, Record)
    ]
    storage.create(f"{FOLDER}/{unit}.parquet", encode_parquet(pa.Table.from_pylist(rows)))
    return len(rows)


def decide(storage: Storage, units: Sequence[str], chain: Chain, *, earlier: Sequence[str] = ()) -> int:
    """Decide over all units, in their order, and write down the verdicts on each.

    Args:
        storage: the dataset.
        units: ids of the units to decide about.
        chain: the transforms.
        earlier: ids of units that come before these and stay as they are.

    Returns:
        How many records go.

    Raises:
        DatasetError: a unit has not been looked at.
    """
    assert chain.survey is not None
    members: list[list[str]] = []
    verdicts = chain.survey.decide(_looks(storage, [*earlier, *units], members))
    gone = 0
    for unit, keys in zip(units, members[len(earlier) :], strict=True):
        own = {key: verdicts[key] for key in keys if key in verdicts}
        gone += len(own)
        storage.replace(verdicts_path(unit), canonical_json(own))
    return gone


def verdicts_path(unit: str) -> str:
    """Where the verdicts on a unit's records lie in the dataset."""
    return f"{FOLDER}/{unit}.verdicts.json"


def verdicts_on(storage: Storage, unit: str) -> Mapping[str, str]:
    """What was decided about a unit. Raises `DatasetError` where nothing was yet."""
    path = verdicts_path(unit)
    try:
        verdicts: dict[str, str] = json.loads(storage.read(path))
    except (FileNotFoundError, ValueError) as problem:
        raise DatasetError(
            f"{storage.path(path)} is missing or damaged ({problem}); run the same `shards` command again"
        ) from problem
    return verdicts


def _looks(storage: Storage, units: Sequence[str], members: list[list[str]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa

    for unit in units:
        path = f"{FOLDER}/{unit}.parquet"
        try:
            rows = decode_parquet(storage.read(path)).to_pylist()
        except (FileNotFoundError, pa.ArrowException) as problem:
            raise DatasetError(
                f"{storage.path(path)} is missing or damaged ({problem}); remove it and run the same `shards` command again"
            ) from problem
        members.append([row["key"] for row in rows])
        yield from ((row["key"], row) for row in rows)
