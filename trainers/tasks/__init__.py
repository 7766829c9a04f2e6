"""One file per task: records to examples, and the metric; the file name is the kind."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from shards.config import nearest, validate
from shards.errors import ConfigError
from trainers.task import Task


def load_task(spec: Mapping[str, Any]) -> Task:
    """Build the task that `spec["kind"]` names, importing that one module.

    Raises:
        ConfigError: no kind, an unknown one (the nearest are named), or keys that the kind does not take.
    """
    kinds = [module.name for module in pkgutil.iter_modules(__path__)]
    kind = spec.get("kind")
    if kind not in kinds:
        raise ConfigError(f"task.kind={kind!r} is no task: {nearest(str(kind), kinds)}")
    module = importlib.import_module(f"{__name__}.{kind}")
    task: Task = module.build(validate(module.Config, spec, where="task"))
    return task
