"""The base of every configuration outside `model/`, and the digest that goes with whatever a config produced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xxhash
from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen configuration: unknown keys are errors, defaults live here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def canonical_json(value: BaseModel | Mapping[str, Any] | list[Any]) -> bytes:
    """Write a value as JSON whose bytes depend on nothing but the value: sorted keys, no spaces, UTF-8."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def digest(value: BaseModel | Mapping[str, Any] | list[Any]) -> str:
    """Name a value by 16 hex digits (xxh3-64 of its canonical JSON)."""
    return xxhash.xxh3_64_hexdigest(canonical_json(value))
