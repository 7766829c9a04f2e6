"""Converting single units of a finished dataset again, where their shards are damaged and the raw data is still there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.convert import ConvertConfig, convert_unit, plan_units
from pipelines.gather import gathered
from pipelines.source import Unit
from pipelines.survey import verdicts_path
from shards.errors import ConfigError, DatasetError
from shards.index import index_path, tar_path
from shards.manifest import Card
from shards.rejects import FINAL_REASONS
from shards.storage import Storage, temporary_name
from shards.stores import open_storage
from shards.writer import UnitReport


def config_of(card: Card, *, output: str, source: Mapping[str, Any]) -> ConvertConfig:
    """The config that a dataset was made by, on this machine.

    Args:
        card: of the dataset; it holds the config without the places of files.
        output: where the dataset lies.
        source: `annotations`, `media` and whatever else names a place, as they are found here.

    Raises:
        ConfigError: with these places it is another config than the dataset's.
    """
    fields = {name: value for name, value in card.config.items() if name in ConvertConfig.model_fields}
    if "source" not in fields:
        raise ConfigError(f"{output} was not made by the `shards` verb, so its units cannot be converted again")
    config = ConvertConfig(**fields | {"source": {**fields["source"], **source}, "output": output}).absolute()
    if config.digest() != card.config_digest:
        raise ConfigError(
            f"source: with these places the config is not the one that {output} was made by; give every place that the first run "
            "was given (files and folders keep their names), and change nothing else"
        )
    return config


def reconvert(config: ConvertConfig, damaged: Sequence[UnitReport]) -> None:
    """Write the shard and the index of some units again, with the very bytes that their commit records name.

    Raises:
        DatasetError: the raw files do not hold the items of a unit any more, or not as they were.
    """
    digest = config.digest()
    wanted = {report.unit: report for report in damaged}
    units = {unit_id: unit for unit in plan_units(config) if (unit_id := unit.id(digest)) in wanted}
    # What `append` or `retry` brought, and all of a raw file that has grown since, is cut otherwise than the whole of it is now.
    units |= gathered(config, [report for unit_id, report in wanted.items() if unit_id not in units])
    for unit_id, report in wanted.items():
        _rewrite(config, units[unit_id], report)


def _rewrite(config: ConvertConfig, unit: Unit, report: UnitReport) -> None:
    """Convert beside the dataset, and replace its files only by bytes that match the commit record."""
    assert report.shard is not None
    storage = open_storage(config.output)
    # What was rejected is in no shard, and may have been mended since.
    rejected = {reject.id for reject in report.rejects if reject.level == "item" and reject.reason not in FINAL_REASONS}
    unit = replace(unit, items=[item for item in unit.items if item["id"] not in rejected])
    scratch = tempfile.mkdtemp(prefix="ostraka-reconvert-")
    try:
        beside = open_storage(scratch)
        verdicts = verdicts_path(report.unit)
        if storage.exists(verdicts):
            beside.replace(verdicts_path(unit.id(config.digest())), storage.read(verdicts))
        again = convert_unit(config.model_copy(update={"output": scratch}), unit)
        for path, found, expected in (
            (tar_path(report.shard), again.xxh3, report.xxh3),
            (index_path(report.shard), again.index_xxh3, report.index_xxh3),
        ):
            if found != expected:
                raise DatasetError(
                    f"{storage.path(path)}: converting its unit again gives {found}, and {expected} was committed; the raw files "
                    "or the libraries changed since, so make the dataset again in another `output`"
                )
            _copy(beside, storage, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy(source: Storage, target: Storage, path: str) -> None:
    temporary = temporary_name(path)
    with source.open_read(path) as reader, target.open_write(temporary) as writer:
        shutil.copyfileobj(reader, writer, 1 << 22)
    target.publish(temporary, path, existing="replace")
