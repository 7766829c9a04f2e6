from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import pytest

from shards.plain import PlainError, checked_json, from_plain, to_plain


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    name: str
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tree:
    kind: Literal["oak", "elm"]
    leaves: tuple[_Leaf, ...] = ()
    corner: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    anything: Any = None
    seen: bool = field(default=False, metadata={"stored": False})


_OAK = _Tree(
    kind="oak", leaves=(_Leaf(name="a"), _Leaf(name="b", share=0.5)), corner=(1.0, 2.0), counts={"x": 1}, anything=[{}]
)


def test_a_dataclass_comes_back_from_its_plain_form() -> None:
    assert from_plain(_Tree, to_plain(_OAK)) == _OAK


def test_what_is_unset_or_about_this_process_is_not_stored() -> None:
    assert to_plain(_Tree(kind="elm", seen=True)) == {"kind": "elm", "leaves": [], "counts": {}}


def test_whole_numbers_may_stand_for_numbers() -> None:
    corner = from_plain(_Tree, {"kind": "elm", "corner": [3, 4]}).corner
    assert corner == (3.0, 4.0)
    assert [type(side) for side in corner or ()] == [float, float]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kind": "ash"}, ".kind is 'ash', not one of oak, elm"),
        ({"leaves": [{"name": "a"}, {}]}, ".leaves[1] lacks the field 'name'"),
        ({"leaves": [{"name": "a", "size": 1}]}, ".leaves[0] has the unknown field 'size'"),
        ({"leaves": [{"name": "a", "share": True}]}, ".leaves[0].share is True, not a finite number"),
        ({"leaves": "a"}, ".leaves is 'a', not a list"),
        ({"corner": [1]}, ".corner is [1], not a list of 2"),
        ({"corner": [1, float("inf")]}, ".corner[1] is inf, not a finite number"),
        ({"counts": {"x": 1.5}}, ".counts.x is 1.5, not of type int"),
        ({"counts": 3}, ".counts is 3, not an object"),
        ({"seen": True}, " has the unknown field 'seen'"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PlainError) as problem:
        from_plain(_Tree, {"kind": "oak"} | change)
    assert str(problem.value) == sentence


def test_checked_values_are_those_that_unchecked_ones_are() -> None:
    whole = _Tree(kind="elm", leaves=(_Leaf(name="a", share=2),), corner=(3, 4.5), seen=True)
    for tree in (_OAK, whole):
        assert checked_json(tree) == json.dumps(to_plain(tree), ensure_ascii=False)
    assert type(json.loads(checked_json(whole))["corner"][0]) is int  # stored bytes do not depend on who wrote them


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "ash"},
        {"kind": None},
        {"leaves": (_Leaf(name=cast(str, 3)),)},
        {"leaves": (_Leaf(name="a", share=cast(float, True)),)},
        {"leaves": "a"},
        {"corner": "abc"},
        {"corner": (1.0, float("nan"))},
        {"counts": {"x": 1.5}},
    ],
)
def test_what_could_not_be_read_back_is_refused_with_the_readers_words(broken: dict[str, Any]) -> None:
    tree = replace(_OAK, **broken)
    with pytest.raises(PlainError) as reading:
        from_plain(_Tree, to_plain(tree))
    with pytest.raises(PlainError) as writing:
        checked_json(tree)
    assert str(writing.value) == str(reading.value)
