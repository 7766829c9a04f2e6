"""Columns that a raw format brings beside its annotations, written once the dataset is whole.

A source module may have a function `sidecars(config, target, dataset)` that writes them and returns their folder names.
"""

from __future__ import annotations

from collections.abc import Callable

import pipelines.sources
from pipelines.convert import ConvertConfig
from pipelines.kinds import load_kind
from pipelines.source import SourceConfig, Target
from shards.reader import Dataset, open_dataset

Writer = Callable[[SourceConfig, Target, Dataset], tuple[str, ...]]


def write_side_columns(config: ConvertConfig) -> tuple[str, ...]:
    """Write the columns of a finished dataset that its source knows of; a second call changes nothing.

    Returns:
        Their folder names below `sidecars/`; empty for a source that brings none.
    """
    module, source = load_kind(pipelines.sources, config.source, where="source")
    writer: Writer | None = getattr(module, "sidecars", None)
    return () if writer is None else writer(source, config.target(), open_dataset(config.output))
