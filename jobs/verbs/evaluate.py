"""Scores of a checkpoint on a dataset, by what it was trained for."""

from __future__ import annotations

from contextlib import ExitStack

from jobs.progress import Bar, progress
from trainers.config import EvaluateConfig

HELP = (
    "recall between pictures and captions, or accuracy of answers and labels; writes predictions.jsonl and scores.json"
)

Config = EvaluateConfig


def run(config: EvaluateConfig, *, dry_run: bool) -> int:
    """Evaluate, and print the scores; of several processes under `torchrun` the first speaks."""
    from trainers.distributed import is_first_process
    from trainers.evaluation import evaluate, plan

    if dry_run:
        print(plan(config))
        return 0
    with ExitStack() as stack:
        bars: dict[str, Bar] = {}

        def advance(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                stack.close()  # the bar of the stage before
                unit = {"texts": "texts", "rank": "examples"}.get(stage, "pictures")
                bars[stage] = stack.enter_context(progress(stage, total=total, unit=unit))
            bars[stage].advance(done - bars[stage].done)

        scores = evaluate(config, on_progress=advance)
    if is_first_process():
        print(scores.table())
    return 0
