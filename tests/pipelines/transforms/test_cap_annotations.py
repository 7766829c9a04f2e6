"""At most so many annotations of an item; the rest is named, and the choice never varies."""

from __future__ import annotations

import pytest

from pipelines.transform import Thinned
from pipelines.transforms.cap_annotations import Config, build
from shards.records import Caption, Origin, Record


def record(count: int, *, key: str = "d-train-1") -> Record:
    captions = tuple(Caption(id=f"c{number}", text=f"caption {number}") for number in range(count))
    return Record(key=key, origin=Origin(dataset="d", split="train", id="1"), media=(), annotations=captions)


def test_what_fits_is_left_alone() -> None:
    three = record(3)
    assert build(Config(most=3))(three) is three


def test_the_first_ones_are_kept_and_the_rest_is_named() -> None:
    result = build(Config(most=2))(record(4))
    assert isinstance(result, Thinned)
    assert [annotation.id for annotation in result.record.annotations] == ["c0", "c1"]
    assert [(reject.id, reject.reason, reject.level) for reject in result.rejects] == [
        ("c2", "filtered", "annotation"),
        ("c3", "filtered", "annotation"),
    ]


@pytest.mark.parametrize("key", ["d-train-1", "d-train-2", "d-train-3"])
def test_a_random_choice_keeps_the_order_and_is_the_same_every_time(key: str) -> None:
    runs = [build(Config(most=5, choose="random", seed=4))(record(50, key=key)) for _ in range(2)]
    assert all(isinstance(run, Thinned) for run in runs)
    kept = [[annotation.id for annotation in run.record.annotations] for run in runs if isinstance(run, Thinned)]
    assert kept[0] == kept[1]
    assert kept[0] == sorted(kept[0], key=lambda id: int((id or "c0")[1:]))
    assert len(set(kept[0])) == 5


def test_another_record_and_another_seed_choose_otherwise() -> None:
    def chosen(key: str, seed: int) -> tuple[str | None, ...]:
        result = build(Config(most=5, choose="random", seed=seed))(record(50, key=key))
        assert isinstance(result, Thinned)
        return tuple(annotation.id for annotation in result.record.annotations)

    assert len({chosen("d-train-1", 0), chosen("d-train-2", 0), chosen("d-train-1", 1)}) == 3
