from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shards.errors import ConfigError, DatasetError
from shards.order import Stream
from shards.reader import Dataset, open_dataset
from shards.rules import parse_rule
from shards.sidecar import write_sidecar
from shards.stream import RecordStream, source_of
from shards.view import ViewRule, open_view, visits_of


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    """Three shards of 40 records with two captions each, and a column in another order than theirs."""
    made = make_dataset(records=40)
    for shard, entry in enumerate(made.manifest):
        keys = made.index(shard).keys[::-1]
        numbers = [int(key[-5:]) for key in keys]
        values = {
            "score": [number / 300 for number in numbers],
            "keep": [number % 4 == 1 for number in numbers],
            "captions": [[number % 3 == 0, number % 5 == 0] for number in numbers],
            "cosine": [[number / 300, None] for number in numbers],
            "times": [number % 3 * 0.5 for number in numbers],
            "name": keys,
        }
        write_sidecar(
            made.storage, column="rated", digest8="0" * 8, shard=entry.name, keys=keys, values=pa.table(values), card={}
        )
    return made


def visited(dataset: Dataset, rule: ViewRule, count: Any = "records", epoch: int = 0) -> list[str]:
    view = open_view(dataset, count, rule)
    order = Stream({"x": source_of(dataset, count, view=view)}, batch_size=1, seed=epoch, window=2)
    records = RecordStream(order, {"x": dataset}, count=count, views={"x": view})
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    return [records.fetch(address).name for step in steps for address in order.batch(step)]


def keys(dataset: Dataset, test: Callable[[int], bool]) -> list[str]:
    return [record.key for record in dataset.records(payload=False) if test(int(record.key[-5:]))]


@pytest.mark.parametrize(
    ("rule", "test"),
    [
        (ViewRule(where="rated.score > 0.33"), lambda number: number / 300 > 0.33),
        (ViewRule(where="rated.score >= 0.1 and rated.score<0.35"), lambda number: 0.1 <= number / 300 < 0.35),
        (ViewRule(where="not rated.keep and width < 30"), lambda number: number % 4 != 1 and 10 + number < 30),
        (ViewRule(select="rated.keep"), lambda number: number % 4 == 1),
        (ViewRule(select="rated"), lambda number: number % 4 == 1),
        (ViewRule(select="rated-00000000.keep", where="height == 20"), lambda number: number % 4 == 1),
        (ViewRule(where="rated.captions"), lambda number: number % 3 == 0 or number % 5 == 0),
        (ViewRule(where="rated.cosine != 0.5"), lambda number: number != 150),
    ],
)
def test_an_epoch_of_a_view_visits_each_record_that_meets_the_rule_once(
    dataset: Dataset, rule: ViewRule, test: Callable[[int], bool]
) -> None:
    for epoch in (0, 3):
        assert sorted(visited(dataset, rule, epoch=epoch)) == keys(dataset, test)


def test_annotations_are_judged_by_their_own_values_and_their_records(dataset: Dataset) -> None:
    names = sorted(visited(dataset, ViewRule(where="rated.captions and rated.score > 0.3"), "annotations"))
    numbers = [int(key[-5:]) for key in keys(dataset, lambda number: number / 300 > 0.3)]
    assert names == [
        f"made-{number:05d}#{place}" for number in numbers for place, every in ((0, 3), (1, 5)) if number % every == 0
    ]


def test_a_record_needs_one_annotation_that_meets_all_conditions(dataset: Dataset) -> None:
    rule = ViewRule(where="rated.captions and rated.cosine >= 0")  # the cosine of every second caption is missing
    assert sorted(visited(dataset, rule)) == keys(dataset, lambda number: number % 3 == 0)


def test_a_column_of_numbers_repeats_records_and_each_visit_draws_anew(dataset: Dataset) -> None:
    view = open_view(dataset, "records", ViewRule(repeat="rated.times", where="rated.keep"))
    numbers = [[int(key[-5:]) for key in dataset.index(shard).keys] for shard in range(3)]
    for shard, size in enumerate(view.sizes):
        assert abs(size - sum(number % 3 * 0.5 for number in numbers[shard] if number % 4 == 1)) < 1
    twice = visits_of(np.array([2.0, 0.0, 2.5, 2.5]), where="here")
    assert twice.tolist() == [2, 0, 2, 3]
    visits = open_view(dataset, "annotations", ViewRule(repeat="annotations")).visits  # two captions: two visits
    assert Counter(visits.item(1, number)[1] for number in range(visits.sizes[1])) == {0: 80, 1: 80}
    names = visited(dataset, ViewRule(repeat="annotations"), "annotations")
    assert len(set(names)) == len(names) == 480
    assert sum(name.endswith("@1") for name in names) == 240


def test_a_view_is_worked_out_once_and_names_what_it_shows(dataset: Dataset) -> None:
    first = open_view(dataset, "records", ViewRule(where="rated.score > 0.3"))
    for part in dataset.storage.list("sidecars/rated-00000000"):
        if part.endswith(".parquet"):
            dataset.storage.replace(part, b"no longer read")
    again = open_view(open_dataset(dataset.path), "records", ViewRule(where="rated.score > 0.3"))
    assert (again.digest, again.sizes) == (first.digest, first.sizes)
    other = open_view(dataset, "records", ViewRule(where="width > 20"))
    assert other.digest != first.digest
    with pytest.raises(ConfigError, match=r"streams\.x is the dataset or view"):
        stream = Stream({"x": source_of(dataset, "records", view=first)}, batch_size=4, seed=0)
        stream.carry(Stream({"x": source_of(dataset, "records", view=other)}, batch_size=4, seed=0).state(0))


def test_a_damaged_view_says_what_to_do(dataset: Dataset) -> None:
    open_view(dataset, "records", ViewRule(where="width > 20"))
    (kept,) = dataset.storage.list("views")
    dataset.storage.replace(kept, dataset.storage.read(kept)[:-40])
    with pytest.raises(DatasetError, match=r"damaged .*remove it"):
        open_view(dataset, "records", ViewRule(where="width > 20"))


@pytest.mark.parametrize(
    ("rule", "error", "said"),
    [
        (ViewRule(where="rated.score >"), ConfigError, "cannot read"),
        (ViewRule(where="rated.score > high"), ConfigError, "cannot read"),
        (ViewRule(where="rated.score"), ConfigError, "holds numbers; compare it"),
        (ViewRule(where="rated.name == 1"), DatasetError, "takes numbers and truth values"),
        (ViewRule(where="rated.missing > 1"), DatasetError, "no field 'missing'.*captions"),
        (ViewRule(where="text_lenght > 1"), DatasetError, "no column 'text_lenght'.* a rule knows .*text_length"),
        (ViewRule(where="width > 9999"), ConfigError, "nothing of it is left by where='width > 9999'"),
        (ViewRule(repeat="rated.cosine"), ConfigError, "records are counted"),
        (ViewRule(repeat="width"), DatasetError, "between 0 and"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(
    dataset: Dataset, rule: ViewRule, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        open_view(dataset, "records", rule)


def test_rules_are_conditions_joined_by_and() -> None:
    signs = [condition.sign for condition in parse_rule("a.b>=1e-3 and not c-12345678.keep and height != 4")]
    assert signs == [">=", None, "!="]
