"""Scores of a checkpoint on a dataset, by what it was trained for."""

from __future__ import annotations

from jobs.progress import Stages
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
    units = {"rank": "examples", "texts": "texts", "text states": "texts", "maps": "expressions"}
    with Stages(units, unit="pictures") as stages:
        scores = evaluate(config, on_progress=stages)
    if is_first_process():
        print(scores.table())
    return 0
