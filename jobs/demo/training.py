"""Stages that train from a preset and score what was trained, for retrieval and for every task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jobs.config import read_preset
from jobs.demo.config import DemoConfig, StageName
from jobs.demo.raw import Split
from jobs.demo.stages import Command, Stage

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def captioned(root: Path) -> Mapping[Split, Path]:
    """The datasets of captions, which hold the pictures of most tasks, too."""
    return {split: root / "data" / split for split in SPLITS}


def training(
    config: DemoConfig,
    *,
    name: StageName,
    step: int,
    title: str,
    preset: str,
    dataset: Path,
    after: tuple[StageName, ...],
    overrides: tuple[str, ...] = (),
) -> Stage:
    """Train by a preset of one stream, into the folder that the stage is named for.

    Args:
        config: of the demo; a small one trains fewer steps.
        name: of the stage and of its folder.
        step: of the flow, as a person counts them.
        title: for people.
        preset: of `train`.
        dataset: of the stream, with its concepts.
        after: the stages that this one builds on.
        overrides: further keys; `{stream}` stands for the name of the preset's stream.
    """
    values = read_preset(preset, verb="train")
    (stream,) = values["streams"]
    fewer = config.fewer(values["steps"]) if "steps" in values else {}
    if fewer:  # a short run still warms up and logs a curve
        fewer["log_every"] = max(1, fewer["steps"] // 20)
        if "warmup_steps" in (schedule := values.get("schedule", {})):
            fewer["schedule.warmup_steps"] = round(schedule["warmup_steps"] * config.scale)
    output = Path(config.output) / name
    return Stage(
        name=name,
        step=step,
        title=title,
        commands=(
            Command(
                verb="train",
                preset=preset,
                overrides=(
                    f"streams.{stream}.dataset={dataset}",
                    f"streams.{stream}.concepts=concepts",
                    *(override.replace("{stream}", stream) for override in overrides),
                    f"output={output}",
                    f"seed={config.seed}",
                    *(f"{key}={value}" for key, value in fewer.items()),
                ),
            ),
        ),
        evidence=(output / "checkpoints",),
        after=after,
    )


def evaluation(
    config: DemoConfig,
    *,
    name: StageName,
    step: int,
    title: str,
    run: StageName,
    dataset: Path,
    preset: str | None = None,
    overrides: tuple[str, ...] = (),
) -> Stage:
    """Score a run on a dataset, into the folder that the stage is named for."""
    root = Path(config.output)
    return Stage(
        name=name,
        step=step,
        title=title,
        commands=(scoring(root / run, dataset, root / name, preset=preset, overrides=overrides),),
        evidence=(root / name / "scores.json", root / name / "predictions.jsonl"),
        after=(run,),
    )


def scoring(
    run: Path, dataset: Path, output: Path, *, preset: str | None = None, overrides: tuple[str, ...] = ()
) -> Command:
    """The command that scores a run."""
    keys = (f"checkpoint={run}", f"dataset={dataset}", *overrides, f"output={output}")
    return Command(verb="evaluate", preset=preset, overrides=keys)
