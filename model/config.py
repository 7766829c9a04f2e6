"""The base of every configuration in this room, which imports nothing of ours."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen configuration: unknown keys are errors, defaults live here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
