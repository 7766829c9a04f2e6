from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.batching import TokenStream
from shards.costs import Costs, TokenCost, rounded_up
from shards.errors import ConfigError, DatasetError
from shards.reader import Dataset, open_dataset
from shards.sidecar import write_sidecar
from shards.stream import RecordStream, source_of
from shards.view import ViewRule, open_view


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(records=20)


def length(dataset: Dataset, key: str, annotation: int) -> int:
    return len(dataset.record(*dataset.locate(key), payload=False).annotations[annotation].text)  # type: ignore[union-attr]


@given(st.lists(st.integers(1, 10**9), min_size=1))
def test_costs_are_rounded_up_by_less_than_a_sixtieth_and_small_ones_not_at_all(tokens: list[int]) -> None:
    exact = np.array(tokens, dtype=np.int64)
    rounded = rounded_up(exact)
    assert np.all(rounded >= exact)
    assert np.all(rounded < exact * (1 + 1 / 60))
    assert np.all(rounded[exact <= 128] == exact[exact <= 128])


def test_tokens_are_a_sum_over_what_the_index_knows(dataset: Dataset) -> None:
    cost = TokenCost(fixed=3, per_character=0.5, per_megapixel=1e5)
    costs = Costs(dataset, "annotations", cost)
    for shard in range(3):
        index = dataset.index(shard)
        exact = np.ceil(3 + 0.5 * index.text_length + 0.1 * index.width * index.height - 1e-9)
        assert costs.of_shard(shard).tolist() == rounded_up(np.repeat(exact, 2).astype(np.int64)).tolist()
        counted = {
            level: count
            for level, count in zip(costs.levels.tolist(), costs.counts[shard].tolist(), strict=True)
            if count
        }
        levels, counts = np.unique(costs.of_shard(shard), return_counts=True)
        assert counted == dict(zip(levels.tolist(), counts.tolist(), strict=True))


def test_costs_are_counted_once_and_travel_small(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Costs(dataset, "records", TokenCost())
    monkeypatch.setattr(Costs, "_counted", lambda _: pytest.fail("counted again"))
    again = pickle.loads(pickle.dumps(Costs(open_dataset(dataset.path), "records", TokenCost())))
    assert (again.levels.tolist(), again.counts.tolist()) == (first.levels.tolist(), first.counts.tolist())
    assert again.of_shard(1).tolist() == first.of_shard(1).tolist()


def tell(dataset: Dataset, values: Callable[[str], Any]) -> None:
    for shard, entry in enumerate(dataset.manifest):
        keys = dataset.index(shard).keys[::-1]
        table = pa.table({"tokens": [values(key) for key in keys]})
        write_sidecar(
            dataset.storage, column="told", digest8="0" * 8, shard=entry.name, keys=keys, values=table, card={}
        )


def test_a_column_tells_the_tokens_of_each_annotation(dataset: Dataset) -> None:
    tell(dataset, lambda key: [int(key[-2:]) + 1, 7])
    costs = Costs(dataset, "annotations", TokenCost(fixed=2, column="told.tokens"))
    expected = [tokens for key in dataset.index(2).keys for tokens in (int(key[-2:]) + 3, 9)]
    assert costs.of_shard(2).tolist() == expected
    with pytest.raises(ConfigError, match="counts per annotation"):
        Costs(dataset, "records", TokenCost(column="told.tokens"))


def test_a_column_with_a_missing_number_is_refused(dataset: Dataset) -> None:
    tell(dataset, lambda key: None if key.endswith("3") else 5)
    with pytest.raises(DatasetError, match="missing or below 0"):
        Costs(dataset, "records", TokenCost(column="told"))


def test_batches_of_a_view_are_cut_by_the_costs_of_what_it_shows(dataset: Dataset) -> None:
    view = open_view(dataset, "annotations", ViewRule(where="width < 25 and annotations == 2"))
    costs = Costs(dataset, "annotations", TokenCost(), view)
    stream = TokenStream(
        {"x": source_of(dataset, "annotations", view=view)}, {"x": costs}, batch_tokens=64, parts=2, seed=0
    )
    records = RecordStream(stream, {"x": dataset}, count="annotations", views={"x": view})
    names = []
    for step in range(stream.steps_of(1)):
        items = [records.fetch(address) for address in stream.slots(step, 0, 1)]
        for part in stream.parts(step, 0, 1, 2):
            longest = max(max(length(dataset, items[slot].record.key, n) for n in (0, 1)) for slot in part)
            assert len(part) * -(-longest // 4) <= 32
        names += [item.name for item in items]
    assert sorted(names) == [f"made-{number:05d}#{place}" for number in range(15) for place in (0, 1)]
