"""One file per raw format; its name is the kind, `Config` says what it needs, `build(config, target)` makes the source."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from pipelines.kinds import load_kind
from pipelines.source import Source, SourceConfig, Target


def load_source_config(spec: Mapping[str, Any]) -> SourceConfig:
    """Resolve `{kind: …, …}` without touching any file. Raises `ConfigError` that names the nearest kinds or keys."""
    config: SourceConfig
    _, config = load_kind(sys.modules[__name__], spec, where="source")
    return config


def load_source(spec: Mapping[str, Any], *, target: Target) -> tuple[Source, SourceConfig]:
    """Build the source that `spec["kind"]` names; its annotation file is read when its units are asked for."""
    module, config = load_kind(sys.modules[__name__], spec, where="source")
    return module.build(config, target), config
