"""From `{kind: name, …}` in a config to the one module of that name: how sources and transforms are chosen."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from shards.config import nearest, validate
from shards.errors import ConfigError


def load_kind(package: ModuleType, spec: Mapping[str, Any], *, where: str) -> tuple[ModuleType, Any]:
    """Import the module that `spec["kind"]` names and validate the rest of `spec` by its `Config`.

    Only the named module is imported. `where` is the spec's place in the whole config, such as `source`.

    Raises:
        ConfigError: the kind is missing or unknown, or a key or value does not fit; the message names the nearest.
    """
    kinds = _kinds(tuple(package.__path__))
    kind = spec.get("kind")
    if kind is None:
        raise ConfigError(f"missing key '{where}.kind': set it to one of {', '.join(sorted(kinds))}")
    if kind not in kinds:
        raise ConfigError(f"{where}.kind: there is no kind {kind!r}: {nearest(str(kind), kinds)}")
    module = importlib.import_module(f"{package.__name__}.{kind}")
    return module, validate(module.Config, {key: value for key, value in spec.items() if key != "kind"}, where=where)


@cache  # asked for several times a unit, and listing a folder takes as long as converting ten pictures
def _kinds(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(folders))
