"""`python -m jobs demo`: the whole path on a small rendered world, ending with scores and a report page."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from jobs.demo.run import DemoConfig, plan_demo, run_demo
from jobs.progress import clock

logger = logging.getLogger(__name__)

HELP = "the whole path on a small rendered world: raw data, shards, concepts, training, scores, a report page"
Config = DemoConfig


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
        logger.info("%-11s %6s  %6.0f MiB", timing.name, clock(timing.seconds), timing.peak_mib)
    print(_result_line(config, sum(timing.seconds for timing in timings)))
    return 0


def _result_line(config: DemoConfig, seconds: float) -> str:
    root = Path(config.output)
    scores = []
    for name in ("zero_shot", "fine_tuned"):
        path = root / name / "scores.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            recall, chance = (found[part]["text_to_image_r1"] for part in ("metrics", "chance"))
            scores.append(f"{name.replace('_', '-')} text-to-image R@1 {recall:.1f} % (chance {chance:.2f} %)")
    where = root / "report.html"
    return "; ".join([*scores, f"{clock(seconds)} in all"]) + f" -> {where if where.is_file() else root}"
