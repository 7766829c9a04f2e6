"""The whole path on a small rendered world, as the very commands a person would type."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from jobs.demo.concept_stages import concept_stages
from jobs.demo.config import DemoConfig
from jobs.demo.raw import FAULTS, DemoRawConfig, raw_splits, write_demo_raw
from jobs.demo.stages import Command, Inner, Stage, Timing, run_stages
from jobs.demo.task_stages import plan_tasks
from jobs.demo.training import captioned, evaluation, training
from jobs.executors import ExecutorConfig, cluster_for
from jobs.progress import progress

ABLATION = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "ablation.json"
TITLE = "The Ostraka demo"


def run_demo(config: DemoConfig) -> tuple[Timing, ...]:
    """Run the stages that are not done yet; see `plan_demo`."""
    return run_stages(plan_demo(config), Path(config.output), until=config.until)


def _measured_before() -> tuple[str, ...]:
    """The ablation takes an hour of trainings, so the demo shows what was measured once, where the checkout has it."""
    return (f"ablation={ABLATION}",) if ABLATION.is_file() else ()


def plan_demo(config: DemoConfig) -> tuple[Stage, ...]:
    """Lay out the stages; nothing is written or read but presets."""
    root = Path(config.output)
    trained, tested = captioned(root)["train"], captioned(root)["test"]
    # After minutes of training neither head outdoes both together.
    scored = (f"k_test={config.k_test}", "scoring=match_and_contrast")
    stages = (
        *_data_stages(config, root),
        *concept_stages(config),
        training(
            config,
            name="pretrain",
            step=4,
            title="Pretrain ViCHA from scratch",
            preset=config.pretrain,
            dataset=trained,
            after=("concepts",),
        ),
        evaluation(
            config,
            name="zero_shot",
            step=5,
            title="Score retrieval, zero-shot",
            run="pretrain",
            dataset=tested,
            overrides=scored,
        ),
        training(
            config,
            name="finetune",
            step=5,
            title="Fine-tune for retrieval",
            preset=config.finetune,
            dataset=trained,
            after=("pretrain",),
            overrides=(f"init={root / 'pretrain'}",),
        ),
        evaluation(
            config,
            name="fine_tuned",
            step=5,
            title="Score retrieval, fine-tuned",
            run="finetune",
            dataset=tested,
            overrides=scored,
        ),
        *plan_tasks(config, first_step=6),
    )
    return (*stages, _report(root, after=tuple(stage.name for stage in stages), step=stages[-1].step + 1))


def _report(root: Path, *, after: tuple[str, ...], step: int) -> Stage:
    return Stage(
        name="report",
        step=step,
        title="Write the report",
        commands=(
            Command(
                verb="report",
                overrides=(f"run={root}", f"title={TITLE}", f"output={root / 'report.html'}", *_measured_before()),
            ),
        ),
        evidence=(root / "report.html",),
        after=after,
        always=True,
    )


def _data_stages(config: DemoConfig, root: Path) -> tuple[Stage, Stage]:
    raw = DemoRawConfig(output=str(root / "raw"), scale=config.scale, seed=config.seed)
    files = raw_splits(raw)
    datasets = captioned(root)
    executor = ("executor=ray",) if config.executor == "ray" else ()
    return (
        Stage(
            name="raw",
            step=1,
            title="Write raw pictures and captions, as COCO does",
            commands=(Inner(line=config.line("raw"), config=raw, work=partial(_write_raw, raw)),),
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


def _one_ray() -> AbstractContextManager[object]:
    """One Ray for the three conversions: it takes longer to start than they take to run."""
    return cluster_for(ExecutorConfig.model_validate({"executor": "ray"}))


def _write_raw(config: DemoRawConfig) -> None:
    total = sum(files.scenes for files in raw_splits(config).values()) + len(FAULTS)
    with progress("raw", total=total, unit="items") as bar:
        write_demo_raw(config, on_item=lambda split: bar.advance(note=split))
