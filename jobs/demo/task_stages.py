"""The stages of the tasks beside retrieval: raw files in the original format, data, training and scores of each.

Questions, hypotheses and expressions are about pictures that the captions were stored with, so they are attached as columns and
no pixel is stored twice; statements are about two pictures at once and get shards of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from jobs.demo.concept_stages import find_concepts
from jobs.demo.config import DemoConfig, StageName, TaskName
from jobs.demo.raw import DemoRawConfig, Split, split_size
from jobs.demo.stages import Command, Inner, Stage
from jobs.demo.tasks import hypotheses, statements
from jobs.demo.tasks.expressions import write_expressions
from jobs.demo.tasks.hypotheses import write_hypotheses
from jobs.demo.tasks.questions import HELD_BACK, write_questions
from jobs.demo.tasks.statements import write_statements
from jobs.demo.training import SPLITS, captioned, evaluation, scoring, training
from jobs.progress import progress

QUESTIONS, ANSWERED = "vqa_v2", "vqa_v2_answered"  # columns; of the test split, only the second holds answers

WriteRaw = Callable[[DemoRawConfig], None]


def plan_tasks(config: DemoConfig, *, first_step: int) -> tuple[Stage, ...]:
    """Lay out the stages of the tasks that are wanted, each task one step of the flow."""
    return tuple(
        stage for step, task in enumerate(config.tasks, start=first_step) for stage in PLANS[task](config, step)
    )


def _plan_questions(config: DemoConfig, step: int) -> tuple[Stage, ...]:
    root = Path(config.output)
    raw, data = root / "raw" / "vqa", captioned(root)
    questions = {split: raw / f"v2_OpenEnded_mscoco_{split}2017_questions.json" for split in SPLITS}

    def attach(split: Split, answers: Path | None, column: str) -> Command:
        given = (f"source.answers={answers / f'v2_mscoco_{split}2017_annotations.json'}",) if answers else ()
        return _attach(data[split], "vqa_v2", f"source.annotations={questions[split]}", *given, f"column={column}")

    return (
        _raw(
            config,
            step,
            "vqa_raw",
            title="Write questions and answers, as VQA v2 does",
            write=write_questions,
            files=[questions[split] for split in SPLITS],
        ),
        Stage(
            name="vqa_data",
            step=step,
            title="Attach the questions to the pictures that are stored already",
            commands=(
                attach("train", raw, QUESTIONS),
                attach("val", raw, QUESTIONS),
                attach("test", None, QUESTIONS),  # as published
                attach("test", raw / HELD_BACK, ANSWERED),  # as a public server knows them
            ),
            evidence=(_column(data["test"], ANSWERED), *(_column(data[split], QUESTIONS) for split in SPLITS)),
            after=("shards", "vqa_raw"),
        ),
        training(
            config,
            name="vqa",
            step=step,
            title="Fine-tune for questions",
            preset="vicha_small_vqa",
            dataset=data["train"],
            after=("pretrain", "vqa_data"),
            overrides=("streams.{stream}.annotations=" + QUESTIONS, f"init={root / 'pretrain'}"),
        ),
        Stage(
            name="vqa_test",
            step=step,
            title="Answer questions about unseen scenes: a submission file, and its score",
            commands=(
                scoring(root / "vqa", data["test"], root / "vqa_submission", overrides=(f"annotations={QUESTIONS}",)),
                scoring(root / "vqa", data["test"], root / "vqa_test", overrides=(f"annotations={ANSWERED}",)),
            ),
            evidence=(root / "vqa_submission" / "submission.json", root / "vqa_test" / "scores.json"),
            after=("vqa",),
        ),
    )


def _plan_hypotheses(config: DemoConfig, step: int) -> tuple[Stage, ...]:
    root = Path(config.output)
    raw, data = root / "raw" / "snli_ve", captioned(root)
    lines = {split: raw / f"snli_ve_{name}.jsonl" for split, name in hypotheses.PUBLISHED.items()}
    return (
        _raw(
            config,
            step,
            "entailment_raw",
            title="Write hypotheses, as SNLI-VE does",
            write=write_hypotheses,
            files=list(lines.values()),
        ),
        Stage(
            name="entailment_data",
            step=step,
            title="Attach the hypotheses to the pictures that are stored already",
            commands=tuple(_attach(data[split], "snli_ve", f"source.annotations={lines[split]}") for split in SPLITS),
            evidence=tuple(_column(data[split], "snli_ve") for split in SPLITS),
            after=("shards", "entailment_raw"),
        ),
        training(
            config,
            name="entailment",
            step=step,
            title="Fine-tune for visual entailment",
            preset="vicha_small_entailment",
            dataset=data["train"],
            after=("pretrain", "entailment_data"),
            overrides=("streams.{stream}.annotations=snli_ve", f"init={root / 'pretrain'}"),
        ),
        evaluation(
            config,
            name="entailment_test",
            step=step,
            title="Judge hypotheses about unseen scenes",
            run="entailment",
            dataset=data["test"],
            overrides=("annotations=snli_ve",),
        ),
    )


def _plan_statements(config: DemoConfig, step: int) -> tuple[Stage, ...]:
    root = Path(config.output)
    raw = root / "raw" / "nlvr2"
    data = {split: root / "nlvr2_data" / split for split in SPLITS}
    lines = {split: raw / f"{name}.json" for split, name in statements.PUBLISHED.items()}
    return (
        _raw(
            config,
            step,
            "nlvr2_raw",
            title="Write statements about two pictures, as NLVR2 does",
            write=_write_statements,
            files=list(lines.values()),
        ),
        Stage(
            name="nlvr2_data",
            step=step,
            title="Convert the pairs to shards, and find the concepts of both pictures",
            commands=(
                *(_pairs(lines[split], data[split]) for split in SPLITS),
                find_concepts(root, tuple(data.values()), output=root / "nlvr2_data" / "concepts"),
            ),
            evidence=tuple(_column(output, "concepts") for output in data.values()),
            after=("clip", "concepts", "nlvr2_raw"),
        ),
        training(
            config,
            name="text_assignment",
            step=step,
            title="Pretrain for two pictures: which one does a caption describe?",
            preset="vicha_small_text_assignment",
            dataset=captioned(root)["train"],
            after=("pretrain",),
            overrides=(f"init={root / 'pretrain'}",),
        ),
        training(
            config,
            name="nlvr2",
            step=step,
            title="Fine-tune for statements about two pictures",
            preset="vicha_small_nlvr2",
            dataset=data["train"],
            after=("text_assignment", "nlvr2_data"),
            overrides=(f"init={root / 'text_assignment'}",),
        ),
        evaluation(
            config,
            name="nlvr2_test",
            step=step,
            title="Judge statements about unseen scenes",
            run="nlvr2",
            dataset=data["test"],
        ),
    )


def _plan_expressions(config: DemoConfig, step: int) -> tuple[Stage, ...]:
    root = Path(config.output)
    raw, data = root / "raw" / "refcoco+", captioned(root)
    names: Mapping[Split, str] = {"train": "train", "val": "val", "test": "testA+testB"}
    return (
        _raw(
            config,
            step,
            "grounding_raw",
            title="Write referring expressions, as RefCOCO+ does",
            write=write_expressions,
            files=[raw / "dets.json"],
        ),
        Stage(
            name="grounding_data",
            step=step,
            title="Attach the expressions to the pictures that are stored already",
            commands=tuple(
                _attach(
                    data[split],
                    "refcoco",
                    f"source.annotations={raw / 'refs(unc).p'}",
                    f"source.instances={raw / 'instances.json'}",
                    f"source.split={names[split]}",
                )
                for split in SPLITS
            ),
            evidence=tuple(_column(data[split], "refcoco") for split in SPLITS),
            after=("shards", "grounding_raw"),
        ),
        training(
            config,
            name="grounding",
            step=step,
            title="Fine-tune for referring expressions; no box is seen",
            preset="vicha_small_grounding",
            dataset=data["train"],
            after=("pretrain", "grounding_data"),
            overrides=("streams.{stream}.annotations=refcoco", f"init={root / 'pretrain'}"),
        ),
        evaluation(
            config,
            name="grounding_test",
            step=step,
            title="Find things in unseen scenes",
            run="grounding",
            dataset=data["test"],
            preset="vicha_small_grounding",
            overrides=("annotations=refcoco", f"task.proposals={raw / 'dets.json'}"),
        ),
    )


PLANS: Mapping[TaskName, Callable[[DemoConfig, int], tuple[Stage, ...]]] = {
    "vqa": _plan_questions,
    "entailment": _plan_hypotheses,
    "nlvr2": _plan_statements,
    "grounding": _plan_expressions,
}


def _raw(
    config: DemoConfig, step: int, name: StageName, *, title: str, write: WriteRaw, files: Sequence[Path]
) -> Stage:
    """Write the raw files of a task; `files` are those that it writes last, all in one folder."""
    folder = files[0].parent
    world = DemoRawConfig(output=str(folder), scale=config.scale, seed=config.seed)
    return Stage(
        name=name,
        step=step,
        title=title,
        commands=(Inner(line=config.line(name), config=world, work=partial(write, world)),),
        evidence=tuple(files),
        after=("raw",),
    )


def _write_statements(world: DemoRawConfig) -> None:
    with progress("pairs", total=sum(split_size(split, world.scale) for split in SPLITS), unit="pairs") as bar:
        write_statements(world, on_pair=lambda split: bar.advance(note=split))


def _attach(dataset: Path, kind: str, *overrides: str) -> Command:
    return Command(verb="annotate", overrides=(f"dataset={dataset}", f"source.kind={kind}", *overrides))


def _column(dataset: Path, name: str) -> Path:
    return dataset / "sidecars" / f"{name}-*"


def _pairs(lines: Path, output: Path) -> Command:
    return Command(
        verb="shards",
        overrides=(
            "source.kind=nlvr2",
            f"source.annotations={lines}",
            f"source.media={lines.parent / 'images'}",
            "name=demo_pairs",
            "records_per_shard=250",
            f"output={output}",
        ),
    )
