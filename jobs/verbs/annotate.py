"""Another dataset's annotations on pictures that are stored already, as a column beside the shards."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from functools import partial

from jobs.executors import ExecutorConfig, executor_for, refuse_relative_paths
from jobs.progress import progress
from pipelines.annotate import (
    AnnotateConfig,
    AnnotatePlan,
    annotate_shard,
    check_budget,
    finish_annotations,
    plan_annotations,
)
from shards.annotations import Ledger
from shards.reader import Dataset, open_dataset

HELP = "attaches another dataset's annotations to the records that hold its pictures, as a column; no pixel is written again"


class Config(AnnotateConfig, ExecutorConfig):
    """What to annotate with what, and where the work runs."""

    def annotation(self) -> AnnotateConfig:
        """The part that says what the column is, with paths that hold in any process."""
        return AnnotateConfig(**{name: getattr(self, name) for name in AnnotateConfig.model_fields}).absolute()


def run(config: Config, *, dry_run: bool) -> int:
    """Match, write the parts that are not there yet, close the ledger; print one line with the result."""
    locations = config.source_config().LOCATIONS
    named = {f"source.{name}": config.source.get(name) for name in locations}
    refuse_relative_paths(named | {"dataset": config.dataset})
    dataset = open_dataset(config.dataset)
    plan = _plan(config.annotation(), dataset)
    if dry_run:
        print(_plan_line(plan, dataset))
        return 0
    dataset.storage.ensure_writable()
    print(_result_line(plan, _annotate(config, plan, dataset)))
    return 0


def _plan(config: AnnotateConfig, dataset: Dataset) -> AnnotatePlan:
    with progress("match", total=len(dataset), unit="records") as bar:
        return plan_annotations(config, dataset, on_record=bar.advance)


def _annotate(config: Config, plan: AnnotatePlan, dataset: Dataset) -> Ledger:
    left = plan.left(dataset)
    rejected: Counter[str] = Counter()
    check_budget(plan, rejected)
    with (
        closing(executor_for(config).run(partial(partial, annotate_shard, plan.job()), left)) as outcomes,
        progress("annotate", total=len(plan.items), unit="shards", done=len(plan.items) - len(left)) as bar,
    ):
        for outcome in outcomes:
            rejected.update(outcome.result.rejected)
            bar.advance(annotations=outcome.result.annotations, rejected=sum(outcome.result.rejected.values()))
            check_budget(plan, rejected)
    return finish_annotations(plan, dataset)


def _plan_line(plan: AnnotatePlan, dataset: Dataset) -> str:
    return (
        f"{plan.matched_items:,} of {plan.raw_items:,} raw items find their picture among {len(dataset):,} records, with "
        f"{plan.raw_annotations:,} raw annotations in all ({len(plan.left(dataset))} of {len(dataset.manifest)} shards left) "
        f"-> {dataset.path}/{plan.folder}"
    )


def _result_line(plan: AnnotatePlan, ledger: Ledger) -> str:
    rejects = ", ".join(f"{reason} {count:,}" for reason, count in ledger.rejects.items())
    return (
        f"{plan.folder.rpartition('/')[2]}: {ledger.annotations:,} annotations on {ledger.records:,} records, from "
        f"{ledger.raw_items:,} raw items; rejects: {rejects or 'none'} -> {plan.config.dataset}/{plan.folder}"
    )
