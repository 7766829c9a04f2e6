"""Raw data to a dataset of shards, on one process or a Ray cluster; resumes by itself."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import closing, nullcontext
from functools import partial
from typing import Literal

from pydantic import Field, model_validator

from jobs.dry_run import plan_text
from jobs.executors import ExecutorConfig, cluster_for, executor_for, refuse_relative_paths
from jobs.progress import progress
from jobs.quantities import count_text, size_text
from pipelines.append import Addition, Plan, plan_addition
from pipelines.convert import (
    ConvertConfig,
    check_output,
    check_settings,
    committed,
    convert_unit,
    decide_survey,
    finish,
    needs_survey,
    plan_units,
    raw_items,
    spent_budget,
    survey_unit,
    unsurveyed,
)
from pipelines.side_columns import write_side_columns
from pipelines.sources import load_source_config
from shards.manifest import Card
from shards.stores import open_storage

logger = logging.getLogger(__name__)

HELP = "raw data to shards: one record per picture with all its captions, rejects by name, exactly once"


class Config(ConvertConfig, ExecutorConfig):
    """What to convert, and where the work runs."""

    append: bool = Field(False, description="add the raw items that a finished dataset has not seen, as new shards")
    retry: Literal["rejects"] | None = Field(None, description="`rejects`: try the rejected items again, and only them")

    @model_validator(mode="after")
    def _one_addition(self) -> Config:
        if self.append and self.retry:
            raise ValueError("append=true and retry=rejects are two runs; give one of them")
        return self

    @property
    def addition(self) -> Addition | None:
        """What the run adds to a finished dataset."""
        return "rejects" if self.retry else "new" if self.append else None

    def conversion(self) -> ConvertConfig:
        """The part that says what the dataset is, with paths that hold in any process."""
        fields = {name: getattr(self, name) for name in ConvertConfig.model_fields}
        return ConvertConfig(**fields).absolute()


def run(config: Config, *, dry_run: bool) -> int:
    """Plan, convert what is not committed yet, merge; print one line with the result."""
    locations = load_source_config(config.source).LOCATIONS
    refuse_relative_paths({f"source.{name}": config.source.get(name) for name in locations} | {"output": config.output})
    conversion = config.conversion()
    check_output(conversion)
    check_settings(conversion)
    plan = plan_addition(conversion, plan_units(conversion), config.addition)
    if dry_run:
        print(plan_text(conversion, plan, workers=config.workers or 1))
        return 0
    open_storage(conversion.output).ensure_writable()
    card = _convert(config, conversion, plan)
    print(_result_line(conversion, card))
    return 0


def _convert(config: Config, conversion: ConvertConfig, plan: Plan) -> Card:
    """Run the units that are left; stop as soon as more items are rejected than the config allows."""
    started = time.monotonic()
    units = plan.units
    found = committed(conversion, units, earlier=plan.earlier)
    total = raw_items(found, units, earlier=plan.earlier)
    budget = spent_budget(conversion, found, total=total)
    digest = conversion.digest()
    left = [unit for unit in units if unit.id(digest) not in found]
    done = len(units) - len(left)
    records = 0
    if done and left:
        logger.info("%d of %d units are committed already; going on from there", done, len(units))
    with cluster_for(config) if left else nullcontext():
        if left and needs_survey(conversion):
            _survey(config, conversion, plan)
        with (
            closing(executor_for(config).run(partial(partial, convert_unit, conversion), left)) as outcomes,
            progress("shards", total=len(units), unit="shards", done=done) as bar,
        ):
            for outcome in outcomes:
                report = outcome.result
                records += report.records
                bar.advance(records=report.records, rejected=report.raw_items - report.records)
                budget.take(report)
    card = finish(conversion, units, earlier=plan.earlier)
    if columns := write_side_columns(conversion):
        logger.info("columns that the raw files bring: %s", ", ".join(columns))
    if left:
        rate = records / max(time.monotonic() - started, 1e-9)
        logger.info("%d of %s converted now; %.0f records/s", len(left), count_text(len(units), "unit"), rate)
    else:
        logger.info("nothing was left to convert")
    return card


def _survey(config: Config, conversion: ConvertConfig, plan: Plan) -> None:
    """Let the transform that needs it look at the whole dataset, and decide."""
    units = plan.units
    left = unsurveyed(conversion, units)
    with (
        closing(executor_for(config).run(partial(partial, survey_unit, conversion), left)) as outcomes,
        progress("survey", total=len(units), unit="units", done=len(units) - len(left)) as bar,
    ):
        for outcome in outcomes:
            bar.advance(records=outcome.result)
    logger.info("%d records repeat others and are left out", decide_survey(conversion, units, earlier=plan.earlier))


def _result_line(conversion: ConvertConfig, card: Card) -> str:
    rejects = ", ".join(f"{reason} {count:,}" for reason, count in Counter(card.rejects).most_common())
    return (
        f"{card.name}-{card.split}: {count_text(card.records, 'record')}, {count_text(card.annotations, 'annotation')}, "
        f"{count_text(card.shards, 'shard')}, {size_text(card.bytes)}; rejects: {rejects or 'none'} -> {conversion.output}"
    )
