"""How many processes a training may have, where their number may change on the way."""

from __future__ import annotations

from typing import Self

from pydantic import PositiveInt, model_validator

from shards.config import Config


class WorkerRange(Config):
    """From how many training processes to how many."""

    min: PositiveInt = 1
    """fewer are waited for"""
    max: PositiveInt
    """more are not used"""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min={self.min} is more than max={self.max}")
        return self
