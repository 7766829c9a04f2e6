"""What a wrong value is called: by the key that was written, and nothing that the validation added."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, PositiveInt

from shards.config import Config, validate
from shards.errors import ConfigError


class Square(Config):
    kind: Literal["square"] = "square"
    side: PositiveInt
    names: tuple[str, ...] = ()


class Disc(Config):
    kind: Literal["disc"] = "disc"
    radius: PositiveInt


class Drawing(Config):
    shape: Annotated[Square | Disc, Field(discriminator="kind")] | None = None
    width: PositiveInt | Square | None = None
    shapes: dict[str, Square] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shape": {"kind": "disc", "radius": 0}}, r"^shape\.radius: input should be greater than 0"),
        ({"shape": {"kind": "square", "side": 1, "names": ["a", 3]}}, r"^shape\.names\.1: "),
        ({"shape": {"kind": "disc"}}, r"^missing key 'shape\.radius'"),
        ({"width": {"side": 0}}, r"^width: .*; width\.side: "),
        ({"shapes": {"square": {"side": 0}}}, r"^shapes\.square\.side: "),
    ],
)
def test_a_mistake_is_named_by_the_keys_that_were_written(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(Drawing, values)
