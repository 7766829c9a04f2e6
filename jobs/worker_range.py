"""How many processes a training may have, where their number may change on the way."""

from __future__ import annotations

from pydantic import PositiveInt

from shards.config import Config


class WorkerRange(Config):
    """From how many training processes to how many."""

    min: PositiveInt = 1
    """fewer are waited for"""
    max: PositiveInt
    """more are not used"""
