"""What a run says of pictures that nobody has answered for: over a dataset, or straight from files.

Whatever the run was trained for is asked of it: the ranked answers to questions, the classes of hypotheses and statements, maps
of where expressions are seen, or the nearest texts and pictures. The work is that of an evaluation, by the same code, without
the truth. Over a dataset it goes in parts that are kept, so that the same command goes on after an interruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from shards.errors import ConfigError
from shards.reader import open_dataset
from trainers.askers import Asker, ConceptChooser, MapAsker, NearestAsker, RankingAsker
from trainers.assembly import TrainedRun, open_run
from trainers.checkpoint import STATE, Checkpoint, find_checkpoint
from trainers.config import PredictConfig
from trainers.distributed import joined_group
from trainers.exam import Crew, OnProgress, silent
from trainers.predictions import PredictionFolder
from trainers.results import ensure_writable, write_whole
from trainers.score_parts import drop_parts
from trainers.shelf import given_pictures
from trainers.task import RankedTask, SubmittedTask, Task
from trainers.tasks import load_task
from trainers.tasks.grounding import GroundingTask

BATCHES_PER_PART = 64  # of each rank: what an interruption may cost

# Keys that do not change what is predicted, or are told of in another way.
_TOLD_ELSEWHERE = frozenset(
    {
        *("checkpoint", "dataset", "output", "submission", "form", "device", "cache", "task"),
        *("match_batch_size", "state_bytes"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a job found, and where it lies."""

    task: str
    count: int
    checkpoint: str
    step: int
    rows: tuple[Mapping[str, Any], ...]  # where pictures or texts were given; empty over a dataset's own
    file: Path | None
    submission: Path | None
    was_done: bool  # an earlier command had finished it


def plan(config: PredictConfig) -> str:
    """Say in one line what would be predicted; loads no weights, writes nothing.

    Raises:
        ConfigError: the config does not fit the run.
        InputError: a picture cannot be read.
    """
    checkpoint = find_checkpoint(Path(config.checkpoint))
    kind, task = _task(config, checkpoint)
    _check(config, kind, task)
    if config.picture:
        given = given_pictures(config.picture, together=task.pictures if isinstance(task, RankedTask) else 1)
        what = f"{sum(given.shard_sizes()):,} given examples"
    else:
        dataset = open_dataset(str(config.dataset), annotations=config.annotations, cache=config.cache)
        what = f"{len(dataset):,} records of {dataset.path}"
    where = config.output or "the terminal"
    return f"step {checkpoint.step:,} of {checkpoint.run}, trained for {kind}, looks at {what} -> {where}"


def predict(
    config: PredictConfig, *, on_progress: OnProgress = silent, choose_concepts: ConceptChooser | None = None
) -> Prediction:
    """Predict, and write what is found into `config.output`.

    Under `torchrun` the ranks share the work; rank 0 writes.

    Args:
        config: what to ask of which run.
        on_progress: told how far it is.
        choose_concepts: chooses the concepts of given pictures, where the run was trained with concepts.

    Raises:
        ConfigError: the config does not fit the run, or the output holds other predictions.
        CheckpointError: there is no complete checkpoint.
        DatasetError: a record is damaged, or the dataset has nothing that the run could be asked.
        InputError: a picture cannot be read.
    """
    with joined_group(config.device) as group:
        found = _predicted(config, Crew(group, on_progress), choose_concepts)
        group.barrier()
    return found


def _predicted(config: PredictConfig, crew: Crew, choose: ConceptChooser | None) -> Prediction:
    group = crew.group
    with group.together():
        kind, task = _task(config, find_checkpoint(Path(config.checkpoint)))
        _check(config, kind, task)
        run = open_run(config.checkpoint, device=group.device)
        asker = _asker(config, run, task, choose)
        if group.is_main:
            for key, place in _written_to(config):
                ensure_writable(place, key=key)
        folder = _folder(config, run, kind, asker) if group.is_main and config.output is not None else None
    was_done = bool(group.tell(True if folder is not None and folder.is_finished else None))
    kept: list[dict[str, Any]] = []
    if not was_done:
        begin = group.tell(folder.done if folder is not None else None)
        for chosen in _parts(asker, config, world=group.world, begin=next(iter(begin.values()), 0)):
            rows = asker.rows(chosen, crew)
            with group.together():
                if folder is not None:
                    folder.add(rows)
                elif group.is_main:
                    kept += rows
    with group.together():
        submission = None
        if group.is_main:
            if folder is not None and not was_done:
                folder.finish()
            every: Iterable[Mapping[str, Any]] = kept if folder is None else folder.rows()
            submission = _submit(config, task, asker, every)
            kept = list(folder.rows()) if folder is not None and (config.picture or config.text) else kept
    if config.output is not None:
        drop_parts(Path(config.output))
    return Prediction(
        task=kind,
        count=len(asker),
        checkpoint=str(run.checkpoint.path),
        step=run.checkpoint.step,
        rows=tuple(kept),
        file=None if folder is None else folder.file,
        submission=submission,
        was_done=was_done,
    )


def _parts(asker: Asker, config: PredictConfig, *, world: int, begin: int) -> Iterable[range]:
    """Cut what is left into parts, at whole batches, so that what a batch holds never depends on where a job began."""
    total = len(asker)
    size = total if asker.kind == "nearest" else BATCHES_PER_PART * config.batch_size * world
    for start in range(begin, total, size):
        yield range(start, min(start + size, total))


def _asker(config: PredictConfig, run: TrainedRun, task: Task, choose: ConceptChooser | None) -> Asker:
    if isinstance(task, RankedTask):
        return RankingAsker(config, run, task, choose)
    if isinstance(task, GroundingTask):
        return MapAsker(config, run, task, choose)
    return NearestAsker(config, run, choose)


def _folder(config: PredictConfig, run: TrainedRun, kind: str, asker: Asker) -> PredictionFolder:
    """Open the output; what it holds must depend on the same things."""
    checkpoint = run.checkpoint
    asked = {name: value for name, value in config.model_dump(mode="json").items() if name not in _TOLD_ELSEWHERE}
    dataset = None
    if config.dataset is not None:
        opened = open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
        dataset = {"path": opened.path, "digest": opened.digest}
    facts = {
        "task": {"kind": kind, **config.task},
        "checkpoint": {
            "path": str(checkpoint.path),
            "step": checkpoint.step,
            "xxh3": xxhash.xxh3_64_hexdigest(
                (checkpoint.path / STATE).read_bytes()
            ),  # which names its weights' checksum
        },
        "dataset": dataset,
        "asked": asked,
        "seen": dict(asker.basis),
    }
    assert config.output is not None
    return PredictionFolder(Path(config.output), kind=asker.kind, form=config.form, facts=facts)


def _written_to(config: PredictConfig) -> Iterator[tuple[str, Path]]:
    """The folders that will be written to, each after the key that names it."""
    if config.output is not None:
        yield "output", Path(config.output)
    if config.submission is not None:
        yield "submission", Path(config.submission).parent


def _submit(config: PredictConfig, task: Task, asker: Asker, rows: Iterable[Mapping[str, Any]]) -> Path | None:
    if config.submission is None:
        return None
    assert isinstance(task, SubmittedTask)
    assert isinstance(asker, RankingAsker)
    predicted = [str(row["predicted"]) for row in rows]
    path = Path(config.submission)
    write_whole(path, [task.submission(predicted, [place.annotation for place in asker.exam.places])])
    return path


def _task(config: PredictConfig, checkpoint: Checkpoint) -> tuple[str, Task]:
    """The task that is asked for: the run's, with the keys given here."""
    stored = checkpoint.state.config.get("task")
    spec = {**(stored if isinstance(stored, dict) else {}), **config.task}
    if "kind" not in spec:
        raise ConfigError(f"checkpoint={config.checkpoint!r} does not say what it is for; set task.kind=…")
    return str(spec["kind"]), load_task(spec)


def _check(config: PredictConfig, kind: str, task: Task) -> None:
    """Make sure that what is given is what the task can be asked.

    Raises:
        ConfigError: it is not, or nothing is asked.
    """
    word = "question" if kind == "vqa" else "text"
    other = "text" if kind == "vqa" else "question"
    if getattr(config, other):
        raise ConfigError(f"{other}: this run was trained for {kind}; give {word}=… instead")
    if config.submission is not None and not isinstance(task, SubmittedTask):
        raise ConfigError(f"submission: no server takes predictions of {kind}; leave it out")
    compares = not isinstance(task, RankedTask | GroundingTask)
    if compares:
        if config.picture and config.text and config.dataset is not None:
            raise ConfigError(
                "give two of picture, text and dataset: given pictures are compared with texts or a dataset's"
            )
        if config.picture and not config.text and config.dataset is None:
            raise ConfigError("picture: compared with what? give text=…, or dataset=… for the nearest of its captions")
        return
    if config.picture and config.dataset is not None:
        raise ConfigError("give picture or dataset, not both")
    if config.picture and not getattr(config, word):
        raise ConfigError(f"picture: this run was trained for {kind}; say {word}=…, what it is asked of the picture")
    if config.output is None and not config.picture:
        raise ConfigError("name output=… for the predictions of a dataset")
