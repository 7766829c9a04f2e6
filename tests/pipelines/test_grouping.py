"""Grouping on disk gives what grouping in memory gives, whatever the hashes do; repeats are found exactly."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pipelines.grouping import Repeats, grouped


def in_memory(rows: list[tuple[str, Any]]) -> list[tuple[str, list[Any]]]:
    groups: dict[str, list[Any]] = {}
    for key, value in rows:
        groups.setdefault(key, []).append(value)
    return list(groups.items())


def some_rows(count: int, keys: int) -> list[tuple[str, Any]]:
    rng = random.Random(5)
    return [(f"ключ {rng.randrange(keys)} \udce9", (number, None, ["x", {"y": 0.5}])) for number in range(count)]


@pytest.mark.parametrize(("count", "held"), [(0, 10), (9, 10), (10, 10), (11, 10), (3000, 100), (3000, 5000)])
def test_groups_come_in_the_order_of_their_first_rows_with_rows_in_order(count: int, held: int) -> None:
    rows = some_rows(count, keys=500)
    assert list(grouped(rows, in_memory=held)) == in_memory(rows)


@pytest.mark.parametrize("held", [50, 5000])
def test_groups_can_be_sorted_by_their_keys(held: int) -> None:
    rows = some_rows(2000, keys=300)
    expected = sorted(in_memory(rows), key=lambda group: (len(group[0]), group[0]))
    assert list(grouped(rows, order=lambda key: (len(key), key), in_memory=held)) == expected


def test_one_key_with_more_rows_than_are_held_stays_one_group() -> None:
    rows = [("a", 0), *(("b", number) for number in range(500)), ("a", 1)]
    assert list(grouped(rows, in_memory=20)) == [("a", [0, 1]), ("b", list(range(500)))]


def test_equal_hashes_of_different_keys_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xxhash.xxh3_64_intdigest", lambda data, seed=0: 7)
    rows = some_rows(300, keys=40)
    assert list(grouped(rows, in_memory=20)) == in_memory(rows)
    ids = Repeats()
    names = ["a", "b", "c", "a"]
    numbers = [ids.note(name) for name in names]
    ids.settle(lambda: names)
    assert [ids.is_repeat(name, number) for name, number in zip(names, numbers, strict=True)] == [False] * 3 + [True]


def test_ids_without_a_repeat_are_not_gone_through_again() -> None:
    ids = Repeats()
    for name in ("a", "b"):
        ids.note(name)

    def never() -> list[str]:
        raise AssertionError("the file was read twice for nothing")

    ids.settle(never)
    assert not ids.is_repeat("b", 1)
