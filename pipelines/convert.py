"""Raw input to dataset, exactly once: plan the units, convert each on its own, merge what is committed.

Nothing here knows where it runs: `convert_unit` is the whole work of one unit, and an executor may call it anywhere, any
number of times, in any order.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveInt, field_validator

from pipelines.budget import RejectBudget
from pipelines.source import RawItem, Source, Target, Unit
from pipelines.sources import load_source, load_source_config
from pipelines.survey import chain_of, decide, survey_records, surveyed, verdicts_on
from pipelines.transform import Transform, transformed
from pipelines.transforms import load_transforms, resolved_transforms
from shards.config import Config, digest, leaves
from shards.errors import ConfigError, DatasetError, InputError
from shards.manifest import Card, merge, read_card
from shards.media import Check
from shards.records import Record, Reject
from shards.stores import open_storage
from shards.writer import ShardWriter, UnitReport, committed_units, read_commit, with_rejects

_COLLECTED_LESS = 100
_SIZES_LOOKED_AT = 200
_RECORD_OVERHEAD = 3072  # bytes of tar headers, padding, JSON and text beside the media


class ConvertConfig(Config):
    """What a dataset is made of and how. Two datasets of one config are equal byte by byte, wherever they were made."""

    source: dict[str, Any] = Field(description="kind and keys of the raw format, e.g. source.kind=coco_captions")
    output: str = Field(description="the folder or URL of the dataset")
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9_]+$", description="the dataset's name; default: the kind")
    records_per_shard: PositiveInt = Field(1000, description="raw items of one shard, which are one unit of work")
    transforms: tuple[dict[str, Any], ...] = Field(
        (), description="what happens to each record on its way, e.g. '[{kind: resize_image, shorter_side: 256}]'"
    )
    max_pixels: PositiveInt = Field(178_956_970, description="larger pictures are decompression bombs")
    check: Check = Field(
        "structure",
        description="`structure` follows a picture's segments to its end, and finds every cut; `decode` computes its pixels too, "
        "which takes many times as long and finds a little more",
    )
    reject_share: float = Field(0.01, ge=0, le=1, description="stop when more than this share of the items is rejected")
    reject_count: int = Field(100, ge=0, description="and more than this many items are")

    @field_validator("transforms", mode="before")
    @classmethod
    def _kinds_alone(cls, value: Any) -> Any:
        """Let `transforms=[clean_text]` stand for `[{kind: clean_text}]`."""
        if isinstance(value, list | tuple):
            return tuple({"kind": spec} if isinstance(spec, str) else spec for spec in value)
        return value

    def absolute(self) -> ConvertConfig:
        """The same config with local paths that hold in any process, whatever folder it runs in."""
        source = load_source_config(self.source).placed(self.source)
        output = self.output if "://" in self.output else os.path.abspath(os.path.expanduser(self.output))
        return self.model_copy(update={"source": source, "output": output})

    def target(self) -> Target:
        """Name, split and limits, as the source needs them."""
        return Target(
            dataset=self.name or re.sub(r"[^A-Za-z0-9_]", "_", str(self.source.get("kind"))),
            split=load_source_config(self.source).split_name(),
            records_per_shard=self.records_per_shard,
            max_pixels=self.max_pixels,
            check=self.check,
        )

    def identity(self) -> dict[str, Any]:
        """All that decides over the dataset's bytes; not where input and output lie, nor how many rejects are too many."""
        target = self.target()
        return {
            "schema": 1,
            "source": {"kind": self.source["kind"], **load_source_config(self.source).identity()},
            "name": target.dataset,
            "split": target.split,
            "records_per_shard": self.records_per_shard,
            "transforms": resolved_transforms(self.transforms),
            "max_pixels": self.max_pixels,
            "check": self.check,
        }

    def digest(self) -> str:
        """The name of this config on every unit and on the dataset's card."""
        return digest(self.identity())


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Look for garbage in circles a hundred times less often: records have none, and looking costs as much as hashing them.

    Whatever was imported lives on, and is looked at no more: one look at it takes as long as converting two hundred pictures.
    """
    _set_imports_aside()
    usual = gc.get_threshold()
    gc.set_threshold(usual[0] * _COLLECTED_LESS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@cache
def _set_imports_aside() -> None:
    gc.freeze()


def check_output(config: ConvertConfig) -> None:
    """Find out before any work that a local output cannot be written. Raises `ConfigError`."""
    if "://" in config.output:
        return
    output = Path(config.output).absolute()
    there = next(path for path in (output, *output.parents) if path.exists())
    if not there.is_dir():
        raise ConfigError(
            f"output: {there} is a file, so no dataset can be written to {output}; choose another `output`"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"output: {there} cannot be written to; change its permissions or choose another `output`")


def check_settings(config: ConvertConfig) -> None:
    """Name the keys in which a finished dataset at the output was made by another config.

    Raises:
        DatasetError: there are such keys.
    """
    try:
        card = read_card(open_storage(config.output))
    except DatasetError:
        return  # not finished yet, or damaged: the digests in its commit records and in its card are compared on reading them
    if card.config_digest == config.digest():
        return
    there, here = dict(leaves(card.config)), dict(leaves(config.identity()))
    changed = [key for key in sorted(there | here) if there.get(key) != here.get(key)]
    named = ", ".join(f"{key} ({there.get(key)!r} → {here.get(key)!r})" for key in changed)
    raise DatasetError(
        f"{config.output} was written by another config: {named}; choose another `output`, or restore the values"
    )


@_seldom_collected()
def plan_units(config: ConvertConfig) -> Sequence[Unit]:
    """Slice the raw input into units; no picture is read and nothing is written but a temporary file.

    Raises:
        ConfigError: a kind or key of the source or of a transform is wrong.
        InputError: the raw files are wrong as a whole, or hold nothing.
    """
    chain_of(load_transforms(config.transforms))  # a typo there must show before the first unit, not inside it
    units = source_of(config).units()
    if not units:
        raise InputError(f"source.annotations: {config.source.get('annotations')} holds no item; is it the right file?")
    return units


@_seldom_collected()
def convert_unit(config: ConvertConfig, unit: Unit) -> UnitReport:
    """Turn one unit into one committed shard, or find that somebody already has.

    Raises:
        DatasetError: the ledger does not close, or another attempt committed different bytes.
    """
    config_digest = config.digest()
    unit_id = unit.id(config_digest)
    storage = open_storage(config.output)
    if (earlier := read_commit(storage, unit_id)) is not None:
        return replace(earlier, committed=False)
    target = config.target()
    source = source_of(config)
    chain = chain_of(load_transforms(config.transforms))
    transforms = chain.informed(verdicts_on(storage, unit_id) if chain.survey is not None else {})
    with ShardWriter(
        storage,
        dataset=target.dataset,
        split=target.split,
        unit=unit_id,
        unit_index=unit.index,
        config_digest=config_digest,
    ) as writer:
        items = list(unit.items)  # parsed once for all that is asked of them
        for result in _results(source.read(replace(unit, items=items)), transforms):
            writer.reject(result) if isinstance(result, Reject) else writer.add(result)
        return writer.commit(
            raw_items=len(items),
            raw_annotations=sum(map(source.annotation_count, items)),
            retried=[item["id"] for item in items] if unit.retry else None,
        )


def _results(reads: Iterable[Record | Reject], transforms: Sequence[Transform]) -> Iterator[Record | Reject]:
    """Send what a source reads through the transforms; rejects of annotations learn which item they belong to."""
    waiting: list[Reject] = []  # a source names the annotations that it refuses before their item
    for read in reads:
        if isinstance(read, Reject) and read.level == "annotation":
            waiting.append(read)
            continue
        item = read.id if isinstance(read, Reject) else read.origin.id
        yield from (replace(reject, item=item) for reject in waiting)
        waiting.clear()
        for result in transformed(read, transforms) if transforms and isinstance(read, Record) else (read,):
            if isinstance(result, Reject) and result.level == "annotation":
                yield replace(result, item=item)
            else:
                yield result
    yield from waiting


def needs_survey(config: ConvertConfig) -> bool:
    """Whether a transform has to look at the whole dataset before anything is converted."""
    return chain_of(load_transforms(config.transforms)).survey is not None


@_seldom_collected()
def survey_unit(config: ConvertConfig, unit: Unit) -> int:
    """Look at the records of one unit for the transform that surveys; returns how many reached it."""
    records = (read for read in source_of(config).read(unit) if isinstance(read, Record))
    chain = chain_of(load_transforms(config.transforms))
    return survey_records(open_storage(config.output), unit.id(config.digest()), chain, records)


def unsurveyed(config: ConvertConfig, units: Sequence[Unit]) -> list[Unit]:
    """The units that the survey has not looked at yet."""
    done = surveyed(open_storage(config.output))
    config_digest = config.digest()
    return [unit for unit in units if unit.id(config_digest) not in done]


def decide_survey(config: ConvertConfig, units: Sequence[Unit], *, earlier: Sequence[str] = ()) -> int:
    """Decide over the whole dataset; returns how many records go. Raises `DatasetError` where a unit was not looked at."""
    config_digest = config.digest()
    chain = chain_of(load_transforms(config.transforms))
    ids = [unit.id(config_digest) for unit in units]
    return decide(open_storage(config.output), ids, chain, earlier=earlier)


def committed(
    config: ConvertConfig, units: Sequence[Unit], *, earlier: Collection[str] = ()
) -> Mapping[str, UnitReport]:
    """The reports of those units that need no more work, by unit id, without their rejects.

    Args:
        config: what is converted, and to where.
        units: the plan.
        earlier: ids of the units of a finished dataset that the plan adds to.

    Raises:
        DatasetError: another config wrote to the output, or the raw files changed since some units were committed.
    """
    config_digest = config.digest()
    found = committed_units(open_storage(config.output), config_digest, rejects="left_out")
    surplus = set(found) - {unit.id(config_digest) for unit in units} - set(earlier)
    if surplus:
        raise DatasetError(
            f"{config.output}: {len(surplus)} of its {len(found)} committed units are not in the raw files any more; "
            "these changed since the run began, so choose another `output`; where raw items were only added, say append=true"
        )
    return found


def estimate(config: ConvertConfig, units: Sequence[Unit]) -> int | None:
    """Guess the bytes of the dataset from the sizes of some media files; None where they are not known unread."""
    source = source_of(config)
    sizes = [size for item in some_items(units, _SIZES_LOOKED_AT) if (size := source.media_bytes(item)) is not None]
    return (sum(sizes) // len(sizes) + _RECORD_OVERHEAD) * item_count(units) if sizes else None


def item_count(units: Iterable[Unit]) -> int:
    """Raw items of a plan."""
    return sum(len(unit.items) for unit in units)


def some_items(units: Sequence[Unit], count: int) -> Iterator[RawItem]:
    """About `count` items, spread evenly over a plan; only their units are looked into."""
    stride = max(1, item_count(units) // count)
    first = 0  # of the unit at hand, in the whole plan
    for unit in units:
        places = range(-first % stride, len(unit.items), stride)
        if places:
            wanted = set(places)
            yield from (item for place, item in enumerate(unit.items) if place in wanted)
        first += len(unit.items)


@_seldom_collected()
def finish(config: ConvertConfig, units: Sequence[Unit], *, earlier: Sequence[str] = ()) -> Card:
    """Merge the committed units into manifest, rejects and card; a second call changes nothing.

    Args:
        config: what was converted, and to where.
        units: the plan.
        earlier: ids of the units of a finished dataset that the plan has added to.

    Raises:
        BudgetError: too many raw items were rejected.
        DatasetError: a unit is not committed, the ledger does not close, or a key occurs twice.
    """
    reports = committed(config, units, earlier=earlier)
    spent_budget(config, reports, total=raw_items(reports, units, earlier=earlier))
    target = config.target()
    config_digest = config.digest()
    return merge(
        open_storage(config.output),
        name=target.dataset,
        split=target.split,
        config=config.identity(),
        config_digest=config_digest,
        expected_units=[*earlier, *(unit.id(config_digest) for unit in units)],
    )


def raw_items(reports: Mapping[str, UnitReport], units: Sequence[Unit], *, earlier: Sequence[str] = ()) -> int:
    """How many raw items a dataset has: those of the plan, and those of the units that it adds to."""
    planned = sum(len(unit.items) for unit in units if not unit.retry)
    return planned + sum(reports[unit].raw_items for unit in earlier if reports[unit].retried is None)


def spent_budget(config: ConvertConfig, reports: Mapping[str, UnitReport], *, total: int) -> RejectBudget:
    """Count the rejects of the units that are committed.

    Args:
        config: what is converted, and to where.
        reports: what `committed` gives; their rejects are read one unit at a time.
        total: raw items of the dataset.

    Raises:
        BudgetError: more were rejected than the config allows, or nothing is left; see `RejectBudget.check`.
    """
    budget = RejectBudget(config, total=total)
    in_order = sorted(
        reports.values(), key=lambda report: report.index
    )  # so that an item tried again takes its reject back
    for report in with_rejects(open_storage(config.output), in_order):
        budget.note(report)
    budget.check()
    return budget


def source_of(config: ConvertConfig) -> Source:
    """Build the source of a conversion; nothing is read yet. Raises `ConfigError`."""
    source, _ = load_source(config.source, target=config.target())
    return source
