"""The whole path on a small rendered world, as the very commands a person would type."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from jobs.config import read_preset
from jobs.demo.clip import DemoClipConfig, clip_files, train_demo_clip
from jobs.demo.raw import FAULTS, DemoRawConfig, Split, raw_splits, write_demo_raw
from jobs.demo.stages import Command, Inner, Stage, Timing, run_stages
from jobs.executors import ExecutorConfig, cluster_for
from jobs.progress import progress
from shards.config import Config

ABLATION = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "ablation.json"
StageName = Literal["raw", "shards", "clip", "concepts", "pretrain", "zero_shot", "finetune", "fine_tuned", "report"]
TITLE = "The Ostraka demo"
FEWEST_STEPS = 10
TOP_K = 5  # the demo's vocabulary is some thirty nouns, and a scene shows about five of them
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class DemoConfig(Config):
    """How large a demo, and where."""

    output: str = "runs/demo"
    """Everything lies under this folder; running again goes on where an earlier run stopped."""
    scale: float = Field(1.0, gt=0, le=50)
    """Share of the 2,000 scenes; below 1 the training steps shrink as well."""
    seed: int = Field(0, ge=0)
    """Names the world and every random choice of the training."""
    executor: Literal["inline", "ray"] = "ray"
    """Where the conversion to shards runs; the bytes are the same."""
    pretrain: str = "vicha_small"
    """Preset of `train` for the pretraining."""
    finetune: str = "vicha_small_retrieval"
    """Preset of `train` for the fine-tuning."""
    k_test: PositiveInt = 32
    """Candidates that the match head re-ranks for each query."""
    until: StageName | None = None
    """The last stage to run; unset: all."""


def run_demo(config: DemoConfig) -> tuple[Timing, ...]:
    """Run the stages that are not done yet; see `plan_demo`."""
    return run_stages(plan_demo(config), Path(config.output), until=config.until)


def _measured_before() -> tuple[str, ...]:
    """The ablation takes an hour of trainings, so the demo shows what was measured once, where the checkout has it."""
    return (f"ablation={ABLATION}",) if ABLATION.is_file() else ()


def plan_demo(config: DemoConfig) -> tuple[Stage, ...]:
    """Lay out the stages; nothing is written or read but presets."""
    root = Path(config.output)
    return (
        *_data_stages(config, root),
        *_concept_stages(config, root),
        _training(config, root, name="pretrain", title="Pretrain ViCHA from scratch", preset=config.pretrain),
        _evaluation(config, root, name="zero_shot", run="pretrain", title="Score retrieval, zero-shot"),
        _training(
            config,
            root,
            name="finetune",
            title="Fine-tune for retrieval",
            preset=config.finetune,
            init=(f"init={root / 'pretrain'}",),
        ),
        _evaluation(config, root, name="fine_tuned", run="finetune", title="Score retrieval, fine-tuned"),
        Stage(
            name="report",
            step=6,
            title="Write the report",
            commands=(
                Command(
                    verb="report",
                    overrides=(f"run={root}", f"title={TITLE}", f"output={root / 'report.html'}", *_measured_before()),
                ),
            ),
            evidence=(root / "report.html",),
            always=True,
        ),
    )


def _datasets(root: Path) -> Mapping[Split, Path]:
    return {split: root / "data" / split for split in SPLITS}


def _data_stages(config: DemoConfig, root: Path) -> tuple[Stage, Stage]:
    raw = DemoRawConfig(output=str(root / "raw"), scale=config.scale, seed=config.seed)
    files = raw_splits(raw)
    datasets = _datasets(root)
    executor = ("executor=ray",) if config.executor == "ray" else ()
    return (
        Stage(
            name="raw",
            step=1,
            title="Write raw pictures and captions, as COCO does",
            commands=(Inner(line=_line(config, "raw"), config=raw, work=partial(_write_raw, raw)),),
            evidence=tuple(split.annotations for split in files.values()),
        ),
        Stage(
            name="shards",
            step=2,
            title="Convert the raw data to shards",
            commands=tuple(
                Command(
                    verb="shards",
                    overrides=(
                        "source.kind=coco_captions",
                        f"source.annotations={files[split].annotations}",
                        f"source.media={files[split].media}",
                        f"source.split={split}",
                        "name=demo",
                        "records_per_shard=250",
                        f"output={output}",
                        *executor,
                    ),
                )
                for split, output in datasets.items()
            ),
            evidence=tuple(output / "dataset.json" for output in datasets.values()),
            around=_one_ray if config.executor == "ray" else nullcontext,
        ),
    )


def _concept_stages(config: DemoConfig, root: Path) -> tuple[Stage, Stage]:
    datasets = _datasets(root)
    clip = DemoClipConfig(
        dataset=str(datasets["train"]),
        output=str(root / "clip"),
        seed=config.seed,
        **_fewer(config, DemoClipConfig.model_fields["steps"].default),
    )
    model, weights = clip_files(root / "clip")
    return (
        Stage(
            name="clip",
            step=3,
            title="Train a small open_clip model, in the place of a released one",
            commands=(Inner(line=_line(config, "clip"), config=clip, work=partial(_train_clip, clip)),),
            evidence=(model, weights),
        ),
        Stage(
            name="concepts",
            step=3,
            title="Find the visual concepts of every picture",
            commands=(
                Command(
                    verb="concepts",
                    overrides=(
                        f"dataset={json.dumps([str(path) for path in datasets.values()])}",
                        # Counted on training captions alone: nothing of the test split leaks into the vocabulary.
                        f"vocabulary.datasets={json.dumps([str(datasets['train'])])}",
                        "phrases.tagger=rules",  # the same concepts wherever a spaCy model happens to be installed
                        f"top_k={TOP_K}",
                        f"embedder.model={model}",
                        f"embedder.pretrained={weights}",
                        f"output={root / 'concepts'}",
                    ),
                ),
            ),
            evidence=(root / "concepts" / "vocabulary.json",),
        ),
    )


def _training(
    config: DemoConfig, root: Path, *, name: StageName, title: str, preset: str, init: tuple[str, ...] = ()
) -> Stage:
    values = read_preset(preset, verb="train")
    (stream,) = values["streams"]
    fewer = _fewer(config, values["steps"]) if "steps" in values else {}
    if fewer:  # a short run still warms up and logs a curve
        fewer["log_every"] = max(1, fewer["steps"] // 20)
        if "warmup_steps" in (schedule := values.get("schedule", {})):
            fewer["schedule.warmup_steps"] = round(schedule["warmup_steps"] * config.scale)
    return Stage(
        name=name,
        step=4 if name == "pretrain" else 5,
        title=title,
        commands=(
            Command(
                verb="train",
                preset=preset,
                overrides=(
                    f"streams.{stream}.dataset={_datasets(root)['train']}",
                    f"streams.{stream}.concepts=concepts",
                    *init,
                    f"output={root / name}",
                    f"seed={config.seed}",
                    *(f"{key}={value}" for key, value in fewer.items()),
                ),
            ),
        ),
        evidence=(root / name / "checkpoints",),
    )


def _evaluation(config: DemoConfig, root: Path, *, name: StageName, run: str, title: str) -> Stage:
    return Stage(
        name=name,
        step=5,
        title=title,
        commands=(
            Command(
                verb="evaluate",
                overrides=(
                    f"checkpoint={root / run}",
                    f"dataset={_datasets(root)['test']}",
                    f"k_test={config.k_test}",
                    "scoring=match_and_contrast",  # after minutes of training neither head outdoes both together
                    f"output={root / name}",
                ),
            ),
        ),
        evidence=(root / name / "scores.json", root / name / "predictions.jsonl"),
    )


def _fewer(config: DemoConfig, steps: int) -> dict[str, int]:
    """Fewer steps for a demo that is smaller than the full one; a larger one keeps the preset's."""
    return {} if config.scale >= 1 else {"steps": max(FEWEST_STEPS, round(steps * config.scale))}


def _line(config: DemoConfig, until: StageName) -> str:
    """The command that runs the demo up to a stage which is no verb of its own."""
    changed = config.model_copy(update={"until": until}).model_dump(exclude_defaults=True)
    return shlex.join(["python", "-m", "jobs", "demo", *(f"{key}={value}" for key, value in changed.items())])


def _one_ray() -> AbstractContextManager[object]:
    """One Ray for the three conversions: it takes longer to start than they take to run."""
    return cluster_for(ExecutorConfig.model_validate({"executor": "ray"}))


def _write_raw(config: DemoRawConfig) -> None:
    total = sum(files.scenes for files in raw_splits(config).values()) + len(FAULTS)
    with progress("raw", total=total, unit="items") as bar:
        write_demo_raw(config, on_item=lambda split: bar.advance(note=split))


def _train_clip(config: DemoClipConfig) -> None:
    with progress("clip", total=config.steps, unit="steps") as bar:
        train_demo_clip(config, on_step=lambda done, total: bar.advance(done - bar.done))
