from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shards.errors import DatasetError
from shards.reader import Dataset
from shards.sidecar import open_sidecar, sidecar_folder, sidecar_shards, write_sidecar

MakeDataset = Callable[..., Dataset]


def _write(
    dataset: Dataset, shard: int, *, column: str = "concepts", digest8: str = "1a2b3c4d", **changes: Any
) -> None:
    keys = dataset.index(shard).keys
    vectors = np.arange(len(keys) * 3, dtype=np.float16)
    fields: dict[str, Any] = {
        "keys": keys,
        "values": pa.table(
            {
                "phrases": pa.array([[f"{key} a", "b"] for key in keys], pa.list_(pa.string())),
                "scores": pa.array([[0.5, 0.25] for _ in keys], pa.list_(pa.float32())),
                "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors, pa.float16()), 3),
            }
        ),
        "card": {"model": "tiny"},
    }
    write_sidecar(
        dataset.storage, column=column, digest8=digest8, shard=dataset.manifest[shard].name, **(fields | changes)
    )


def _write_all(dataset: Dataset, **changes: Any) -> None:
    for shard in range(len(dataset.manifest)):
        _write(dataset, shard, **changes)


def test_a_column_is_joined_by_key(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    _write_all(dataset)
    sidecar = open_sidecar(dataset, "concepts")
    row = sidecar.row(1, "made-00102")
    assert row["phrases"] == ["made-00102 a", "b"]
    assert row["scores"] == [0.5, 0.25]
    assert row["embedding"].dtype == np.float16
    assert row["embedding"].tolist() == [6, 7, 8]
    assert sidecar.card == {"column": "concepts", "digest8": "1a2b3c4d", "model": "tiny"}
    assert pickle.loads(pickle.dumps(sidecar)).row(1, "made-00102")["phrases"] == row["phrases"]


def test_rows_in_another_order_still_find_their_record(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(units=1)
    keys = dataset.index(0).keys[::-1]
    _write(dataset, 0, keys=keys, values=pa.table({"number": [3, 2, 1, 0]}))
    sidecar = open_sidecar(dataset, "concepts")
    assert [sidecar.row(0, key)["number"] for key in dataset.index(0).keys] == [0, 1, 2, 3]


def test_what_is_written_says_what_is_left_to_do(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    assert sidecar_shards(dataset.storage, "concepts", "1a2b3c4d") == set()
    _write(dataset, 0)
    _write(dataset, 2)
    assert sidecar_shards(dataset.storage, "concepts", "1a2b3c4d") == {"made-train-00000", "made-train-00002"}
    assert not open_sidecar(dataset, "concepts").is_complete
    with pytest.raises(DatasetError, match=r"made-train-00001\.parquet is missing"):
        open_sidecar(dataset, "concepts").row(1, "made-00100")
    _write(dataset, 1)
    assert open_sidecar(dataset, "concepts").is_complete


def test_a_shard_that_is_there_is_left_as_it_is(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(units=1)
    _write(dataset, 0, values=pa.table({"number": [0, 1, 2, 3]}))
    _write(dataset, 0, values=pa.table({"number": [9, 9, 9, 9]}))
    assert open_sidecar(dataset, "concepts").row(0, "made-00001") == {"number": 1}


def test_other_settings_under_the_same_digest_are_refused(make_dataset: MakeDataset) -> None:
    dataset = make_dataset()
    _write(dataset, 0)
    with pytest.raises(DatasetError, match="made by other settings"):
        _write(dataset, 1, card={"model": "large"})


@pytest.mark.parametrize("keys", [["a"], ["a", "a", "b", "c"]])
def test_keys_that_do_not_fit_the_rows_are_refused(make_dataset: MakeDataset, keys: list[str]) -> None:
    with pytest.raises(DatasetError, match="one row per record"):
        _write(make_dataset(units=1), 0, keys=keys)


@pytest.mark.parametrize(
    ("column", "verb"),
    [
        ("concepts", "concepts dataset="),
        ("concepts-00112233", "concepts dataset="),
        ("swaps", "negatives kind=swaps dataset="),
        ("similarity", "filter dataset="),
    ],
)
def test_a_column_that_is_missing_is_said_with_the_command_that_makes_it(
    make_dataset: MakeDataset, column: str, verb: str
) -> None:
    dataset = make_dataset(units=1)
    with pytest.raises(DatasetError, match=f"make it with `python -m jobs {verb}{re.escape(dataset.storage.url)}"):
        open_sidecar(dataset, column)
    with pytest.raises(DatasetError, match="make one with `annotate`"):
        open_sidecar(dataset, "vqa_v2")


def test_a_column_is_opened_by_name_or_by_name_and_digest(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(units=1)
    with pytest.raises(DatasetError, match="no column 'concepts'; it has none yet"):
        open_sidecar(dataset, "concepts")
    _write(dataset, 0, column="image_embedding")
    with pytest.raises(DatasetError, match="no column 'concepts'; there are: image_embedding-1a2b3c4d"):
        open_sidecar(dataset, "concepts")
    _write(dataset, 0)
    _write(dataset, 0, digest8="99999999")
    with pytest.raises(
        DatasetError, match="several columns 'concepts'; name one of: concepts-1a2b3c4d, concepts-99999999"
    ):
        open_sidecar(dataset, "concepts")
    assert open_sidecar(dataset, "concepts-99999999").folder == sidecar_folder("concepts", "99999999")
    assert open_sidecar(dataset, "image_embedding").column == "image_embedding"


def test_a_record_that_the_column_lacks_is_named(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(units=1)
    _write(dataset, 0, keys=["made-00000"], values=pa.table({"number": [0]}))
    with pytest.raises(DatasetError, match="no row for the record 'made-00001'"):
        open_sidecar(dataset, "concepts").row(0, "made-00001")


def test_a_damaged_column_is_named(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(units=1)
    _write(dataset, 0)
    folder = sidecar_folder("concepts", "1a2b3c4d")
    dataset.storage.replace(f"{folder}/made-train-00000.parquet", b"PAR1PAR1")
    with pytest.raises(DatasetError, match=r"made-train-00000\.parquet is damaged"):
        open_sidecar(dataset, "concepts").row(0, "made-00000")
    dataset.storage.replace(f"{folder}/column.json", b"[]")
    with pytest.raises(DatasetError, match=r"column\.json is damaged"):
        open_sidecar(dataset, "concepts")
