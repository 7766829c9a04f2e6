"""Presets, overrides and the sentences that name the nearest key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from jobs.config import apply_override, describe_keys, load_config
from shards.config import Config, digest, validate
from shards.errors import ConfigError


class Inner(Config):
    top_k: int = Field(15, ge=1)
    """How many to keep."""


class Disc(Config):
    kind: Literal["disc"] = "disc"
    size: int = 3


class Square(Config):
    kind: Literal["square"] = "square"
    size: int = 4
    turned: float = 0.5


class Outer(Config):
    dataset: str
    select: Inner = Inner()
    streams: dict[str, Inner] = Field(default_factory=dict)
    fallback: Inner | None = None
    names: tuple[str, ...] = ("a", "b")
    both: tuple[str, ...] = Field(("a", "b"), min_length=2)
    is_on: bool = False
    mode: Literal["early", "late"] = "early"
    """When."""
    shape: Disc | Square = Disc()


class Needy(Config):
    select: Inner
    groups: dict[str, Inner]


def test_overrides_go_on_top_of_a_preset_file(tmp_path: Path) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text("dataset: a\nselect: {top_k: 3}\n")
    config = load_config(Outer, str(preset), ["select.top_k=7", "streams.train.top_k=2"], verb="none")
    assert config == Outer(dataset="a", select=Inner(top_k=7), streams={"train": Inner(top_k=2)})


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("datset=x", "did you mean 'dataset'?"),
        ("select.topk=3", "unknown key 'select.topk': did you mean 'top_k'?"),
        ("streams.train.top_kk=3", "did you mean 'top_k'?"),
        ("fallback.top=3", "did you mean 'top_k'?"),
        ("select.top_k=0", "select.top_k: input should be greater than or equal to 1, not 0"),
        ("select.top_k=many", "select.top_k: takes a whole number, not 'many'"),
        ("select=15", "select: takes keys of its own, select.<key>=…, not 15"),
        ("names=a", "names: takes a list, names='[…, …]', not 'a'"),
        ("both=[a]", "both: takes at least 2, not ['a']"),
        ("is_on=maybe", "is_on: takes true or false, not 'maybe'"),
        ("select", "write dotted.key=value"),
    ],
)
def test_a_wrong_override_is_one_sentence_that_names_the_key(override: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Outer, {"dataset": "a"}, [override], verb="none")
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_an_unknown_preset_are_named() -> None:
    with pytest.raises(ConfigError, match="missing key 'dataset'"):
        load_config(Outer, None, [], verb="none")
    with pytest.raises(ConfigError, match=r"set its keys, select\.<key>=….*set its keys, groups\.<name>\.<key>=…"):
        load_config(Needy, None, [], verb="none")
    with pytest.raises(ConfigError, match="no preset 'nowhere'"):
        load_config(Outer, "nowhere", [], verb="train")


def test_an_override_reaches_into_lists_and_refuses_to_open_a_value() -> None:
    data: dict[str, object] = {"transforms": [{"kind": "a"}, {"kind": "b"}], "output": "x"}
    apply_override(data, "transforms.1.size=[8, 8]")
    assert data["transforms"] == [{"kind": "a"}, {"kind": "b", "size": [8, 8]}]
    with pytest.raises(ConfigError, match="positions start at 0"):
        apply_override(data, "transforms.2.size=8")
    with pytest.raises(ConfigError, match="'output' is a value"):
        apply_override(data, "output.kind=8")


def test_every_key_is_described_with_its_default() -> None:
    rows = {key: (default, text) for key, default, text in describe_keys(Outer)}
    assert rows["dataset"][0] == "required"
    assert rows["select.top_k"] == ("15", "How many to keep.")
    assert "streams.<name>.top_k" in rows
    assert rows["names"][0] == "[a, b]"
    assert rows["is_on"][0] == "false"
    assert rows["fallback"][0] == "unset"
    assert rows["mode"] == ("early", "When; one of early, late")


def test_a_group_of_several_kinds_tells_the_keys_of_all() -> None:
    rows = {key: default for key, default, _ in describe_keys(Outer) if key.startswith("shape.")}
    assert rows == {"shape.kind": "disc", "shape.size": "3", "shape.turned": "0.5"}


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest(validate(Outer, {"dataset": "a"})) == digest(Outer(dataset="a").model_dump())
