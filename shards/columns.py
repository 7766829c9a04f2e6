"""Where columns lie beside a dataset's shards and how a part of one is written, exactly once; `shards.sidecar` reads them.

A column is one Parquet per shard in `sidecars/<column>-<digest8>/`, where the digest names what made it, and `column.json`
says it in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from shards.config import canonical_json
from shards.errors import DatasetError
from shards.index import encode_parquet
from shards.storage import Storage

COLUMN_CARD = "column.json"
_EMBEDDER = "embedder.model=… embedder.pretrained=…"
_VERBS: Mapping[str, str] = {
    "concepts": f"concepts {{dataset}} {_EMBEDDER}",
    "embedding": f"concepts {{dataset}} {_EMBEDDER}",
    "negatives": f"negatives {{dataset}} {_EMBEDDER}",
    "caption_embedding": f"negatives {{dataset}} {_EMBEDDER}",
    "pools": "negatives kind=pools {dataset}",
    "swaps": "negatives kind=swaps {dataset}",
    "similarity": f"filter {{dataset}} keep=… {_EMBEDDER}",
    "selection": f"filter {{dataset}} keep=… {_EMBEDDER}",
}  # by column: what a person types to make it


def sidecar_folder(column: str, digest8: str) -> str:
    """Where a column lies in its dataset."""
    return f"sidecars/{column}-{digest8}"


def part_path(folder: str, shard: str) -> str:
    """Where the part of a column lies that is about one shard."""
    return f"{folder}/{shard}.parquet"


def write_sidecar(
    storage: Storage,
    *,
    column: str,
    digest8: str,
    shard: str,
    keys: Sequence[str],
    values: pa.Table,
    card: Mapping[str, Any],
) -> None:
    """Write one shard of a column. Whoever is first wins; a shard that is there already is left as it is.

    Args:
        storage: the dataset.
        column: name of the column, such as `concepts`.
        digest8: the first 8 hex digits of the digest of what makes the column.
        shard: name of the shard.
        keys: the key of every row.
        values: the columns beside the key, one row per key.
        card: what made the column; the same for every shard.

    Raises:
        DatasetError: keys and values differ in length, a key occurs twice, or the folder's card says something else.
    """
    folder = sidecar_folder(column, digest8)
    if len(keys) != values.num_rows or len(set(keys)) != len(keys):
        raise DatasetError(
            f"{storage.path(folder)}: {shard} has {len(keys)} keys ({len(set(keys))} distinct) for {values.num_rows} rows; "
            "a column has one row per record"
        )
    data = canonical_json({"column": column, "digest8": digest8, **card})
    if not storage.create(f"{folder}/{COLUMN_CARD}", data) and storage.read(f"{folder}/{COLUMN_CARD}") != data:
        raise DatasetError(
            f"{storage.path(folder)} was made by other settings than the ones at hand; put all of them into its digest, "
            "or remove the folder"
        )
    table = values.add_column(0, pa.field("key", pa.string(), nullable=False), pa.array(keys, pa.string()))
    storage.create(part_path(folder, shard), encode_parquet(table))


def sidecar_shards(storage: Storage, column: str, digest8: str) -> set[str]:
    """The shards of a column that are written; a resumed job skips them."""
    return written_parts(storage, sidecar_folder(column, digest8))


def written_parts(storage: Storage, folder: str) -> set[str]:
    """The Parquet files of a column, without suffix."""
    paths = storage.list(folder)
    return {path.removeprefix(f"{folder}/").removesuffix(".parquet") for path in paths if path.endswith(".parquet")}


def find_column(storage: Storage, column_or_folder: str) -> str:
    """The folder of a column, by name where there is one of that name, or by name and digest (`concepts-1a2b3c4d`).

    Raises:
        DatasetError: there is no such column, or several; names those there are.
    """
    known = [folder.removeprefix("sidecars/") for folder in storage.folders("sidecars")]
    found = [name for name in known if column_or_folder in (name, name.rpartition("-")[0])]
    if len(found) == 1:
        return f"sidecars/{found[0]}"
    if found:
        raise DatasetError(f"{storage.url} has several columns {column_or_folder!r}; name one of: {', '.join(found)}")
    there = f"there are: {', '.join(known)}" if known else "it has none yet"
    raise DatasetError(
        f"{storage.url} has no column {column_or_folder!r}; {there}; {_how_made(storage, column_or_folder)}, or set the key "
        "that names it to null"
    )


def _how_made(storage: Storage, column_or_folder: str) -> str:
    """What to do to get a column of this name."""
    name = column_or_folder if column_or_folder in _VERBS else column_or_folder.rpartition("-")[0]
    if name in _VERBS:
        return f"make it with `python -m jobs {_VERBS[name].format(dataset=f'dataset={storage.url}')}`"
    return "name one of these, make one with `annotate` (called as its source.kind) or `filter` (column=…)"
