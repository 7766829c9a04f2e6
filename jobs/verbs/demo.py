"""`python -m jobs demo`: the whole path on a small rendered world, ending with scores and a report page."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobs.demo.config import DemoConfig
from jobs.demo.run import plan_demo, run_demo
from jobs.progress import clock

logger = logging.getLogger(__name__)

HELP = "the whole path on a small rendered world: raw data, shards, concepts, training, scores, a report page"
Config = DemoConfig

# By the folder of an evaluation: what it is called, its figure, and what guessing without looking would reach.
SCORES: Mapping[str, tuple[str, str, Callable[[dict[str, Any]], float]]] = {
    "zero_shot": ("zero-shot text-to-image R@1", "text_to_image_r1", lambda found: found["chance"]["text_to_image_r1"]),
    "fine_tuned": (
        "fine-tuned text-to-image R@1",
        "text_to_image_r1",
        lambda found: found["chance"]["text_to_image_r1"],
    ),
    "vqa_test": ("questions", "vqa_accuracy", lambda found: found["metrics"]["constant_by_type"]),
    "entailment_test": ("entailment", "accuracy", lambda found: found["metrics"]["constant"]),
    "nlvr2_test": ("statements about two pictures", "accuracy", lambda found: found["metrics"]["constant"]),
    "grounding_test": ("things found", "found/all", lambda found: found["chance"]["found/all"]),
}


def run(config: DemoConfig, *, dry_run: bool) -> int:
    """Run what is not done yet and print the scores and where the report is; `dry_run` prints the commands alone."""
    if dry_run:
        for stage in plan_demo(config):
            print(f"# {stage.step}. {stage.title}")
            for command in stage.commands:
                print(command.line)
        return 0
    timings = run_demo(config)
    for timing in timings:
        logger.info("%-15s %6s  %6.0f MiB", timing.name, clock(timing.seconds), timing.peak_mib)
    print(_result_line(config, sum(timing.seconds for timing in timings)))
    return 0


def _result_line(config: DemoConfig, seconds: float) -> str:
    root = Path(config.output)
    said = [
        f"{title} {found['metrics'][metric]:.1f} % (chance {chance(found):.3g} %)"
        for folder, (title, metric, chance) in SCORES.items()
        if folder.removesuffix("_test") in ("zero_shot", "fine_tuned", *config.tasks)
        and (found := _scores(root / folder)) is not None
    ]
    where = root / "report.html"
    return "; ".join([*said, f"{clock(seconds)} in all"]) + f" -> {where if where.is_file() else root}"


def _scores(folder: Path) -> dict[str, Any] | None:
    path = folder / "scores.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
