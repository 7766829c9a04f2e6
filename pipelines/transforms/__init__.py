"""One file per transform; its name is the kind, `Config` says what it needs, `build(config)` makes the transform."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.kinds import load_kind
from pipelines.transform import Survey, Transform


def load_transforms(specs: Sequence[Mapping[str, Any]]) -> tuple[Transform | Survey, ...]:
    """Build a chain of transforms. Raises `ConfigError` that names the nearest kinds or keys."""
    return tuple(module.build(config) for module, config in _resolved(specs))


def resolved_transforms(specs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The specs with every default spelt out, for the digest of a config.

    A config with an `identity` says itself what of it decides over the dataset's bytes.
    """
    kinds = [spec.get("kind") for spec in specs]
    return [
        {"kind": kind, **(config.identity() if hasattr(config, "identity") else config.model_dump(mode="json"))}
        for kind, (_, config) in zip(kinds, _resolved(specs), strict=True)
    ]


def _resolved(specs: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    return [load_kind(sys.modules[__name__], spec, where=f"transforms.{number}") for number, spec in enumerate(specs)]
