"""Checking learned columns against the dataset that they lie beside: every part there, readable, and about the same keys.

A column has one row per record and no checksum of its own beside those of its Parquet pages, so its keys are what ties it to
the dataset: a column of another dataset has other ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from shards.columns import COLUMN_CARD, part_path, sidecar_folder, written_parts
from shards.index import decode_parquet
from shards.storage import Storage

_NUMBERED = re.compile(r".+-\d{5,}")  # the names of shards; a column may keep other tables beside its parts


def check_learned_column(
    storage: Storage, folder: str, *, shards: Sequence[str], keys: Callable[[str], Sequence[str] | None]
) -> Iterator[tuple[str, str | None, str]]:
    """Check one column; yields (file, key, what) per damage.

    Args:
        storage: the dataset.
        folder: of the column.
        shards: the names of all shards of the dataset.
        keys: gives the keys of a shard; None where its index is damaged.
    """
    remedy = "remove it and run the job that makes this column again"
    path = f"{folder}/{COLUMN_CARD}"
    try:
        card = json.loads(storage.read(path))
        said = sidecar_folder(card["column"], card["digest8"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as problem:
        yield path, None, f"it is missing or damaged ({problem}); remove the folder and make the column again"
        return
    if said != folder:
        yield path, None, f"it is about {said}; remove the folder and make the column again"
    written = written_parts(storage, folder)
    for name in sorted(written.difference(shards)):
        if _NUMBERED.fullmatch(name):
            yield part_path(folder, name), None, "the dataset has no such shard, so it belongs to another; remove it"
    missing = [name for name in shards if name not in written]
    if missing:
        what = f"{len(missing)} of {len(shards)} shards have no part in this column (the first is {missing[0]})"
        yield folder, None, f"{what}; run the job that makes it again"
    for name in shards:
        expected = keys(name) if name in written else None
        if expected is not None:
            yield from _check_part(storage, part_path(folder, name), expected, remedy)


def _check_part(
    storage: Storage, path: str, expected: Sequence[str], remedy: str
) -> Iterator[tuple[str, str | None, str]]:
    try:
        table = decode_parquet(storage.read(path), check_pages=True)
        found = table["key"].to_pylist()
        table.validate(full=True)
    except (OSError, KeyError, ValueError, pa.ArrowException) as problem:
        reason = next(iter(str(problem).strip().splitlines()), type(problem).__name__)
        yield path, None, f"it cannot be read ({reason}); {remedy}"
        return
    if found == list(expected):
        return
    wrong = sorted(set(found) - set(expected))
    if wrong:
        yield path, wrong[0], f"{len(wrong)} rows are about records that the shard does not have; {remedy}"
    lost = sorted(set(expected) - set(found))
    if lost:
        yield path, lost[0], f"{len(lost)} records of the shard have no row; {remedy}"
    if len(set(found)) != len(found):
        twice = next(key for place, key in enumerate(found) if key in found[:place])
        yield path, twice, f"it has two rows for one record; {remedy}"
