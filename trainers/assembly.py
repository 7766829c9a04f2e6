"""Where a run's objects are built from its config: vocabulary, family, processor, and the streams' datasets."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.checkpoints import ImportReport, fill_from_earlier, fill_own, read_tensors
from model.families import load_family
from model.family import Family, Processor
from model.text_cleaning import clean_caption, clean_question
from model.tokenizer import load_tokenizer, train_wordpiece
from shards.config import validate
from shards.errors import ConfigError, DamagedRecordError, DatasetError
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Entailment, Grounding, Question, Statement
from shards.sidecar import Sidecar, open_sidecar
from shards.stream import Damage, allowed_damage, check_damage
from shards.view import View, open_view
from trainers.checkpoint import STATE, Checkpoint, CheckpointError, find_checkpoint
from trainers.config import TrainConfig
from trainers.imported import ImportedConfig, is_imported
from trainers.pairing import CONCEPTS, NEGATIVES, PHRASES, WRONG_CAPTIONS
from trainers.tasks import load_task

logger = logging.getLogger(__name__)

VOCABULARY = Path("tokenizer") / "vocab.txt"  # inside a run folder


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStreams:
    """The datasets of a mixture, opened, with the sidecars they are read with."""

    datasets: Mapping[str, Dataset]
    sidecars: Mapping[str, Mapping[str, Sidecar]]
    views: Mapping[str, View]  # of the streams that do not show all of their dataset

    def sidecar_folders(self) -> dict[str, str]:
        """Name the exact sidecar of each stream: another vocabulary or another CLIP is another folder."""
        return {
            f"{stream}.{column}": sidecar.folder
            for stream, columns in self.sidecars.items()
            for column, sidecar in columns.items()
        }


def open_streams(config: TrainConfig) -> OpenStreams:
    """Open every dataset and sidecar that a run reads, and work out its views.

    Raises:
        ConfigError: a view's rule cannot be followed.
        DatasetError: one is missing, damaged or does not cover its dataset.
    """
    datasets = {
        name: open_dataset(stream.dataset, annotations=stream.annotations, cache=config.cache)
        for name, stream in config.streams.items()
    }
    sidecars: dict[str, dict[str, Sidecar]] = {
        name: {
            column: open_column(datasets[name], wanted, field=field)
            for column, wanted, field in (
                (CONCEPTS, stream.concepts, PHRASES),
                (NEGATIVES, stream.negatives, WRONG_CAPTIONS),
            )
            if wanted is not None
        }
        for name, stream in config.streams.items()
    }
    count = load_task(config.task).count
    views = {
        name: open_view(datasets[name], count, stream.view) for name, stream in config.streams.items() if stream.view
    }
    return OpenStreams(datasets=datasets, sidecars=sidecars, views=views)


def open_concepts(dataset: Dataset, column_or_folder: str) -> Sidecar:
    """Open a concepts sidecar that covers the whole dataset."""
    return open_column(dataset, column_or_folder, field=PHRASES)


def open_column(dataset: Dataset, column_or_folder: str, *, field: str) -> Sidecar:
    """Open a sidecar that covers the whole dataset and says `field` of each record.

    Raises:
        DatasetError: it does not, or there is no such sidecar.
    """
    sidecar = open_sidecar(dataset, column_or_folder)
    if not sidecar.is_complete:
        raise DatasetError(
            f"{dataset.path}: sidecar {sidecar.folder} does not cover every shard; run the job that makes it again"
        )
    if len(dataset.manifest):
        sidecar.table(0, fields=(field,))  # a column of another kind is told of now, not by the first batch
    return sidecar


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A family with the processor that feeds it; `spec` is the family's config in full."""

    family: Family
    processor: Processor
    spec: Mapping[str, Any]


def build_model(spec: Mapping[str, Any], vocabulary: Path, *, seed: int) -> Model:
    """Build a family with fresh weights, drawn from `seed` alone, and its processor.

    Raises:
        ConfigError: the family's config is wrong.
    """
    try:
        kind = load_family(spec)
        tokenizer = load_tokenizer(vocabulary)
        family_config = validate(kind.Config, spec, where="family").with_vocabulary(len(tokenizer))
        processor = kind.build_processor(family_config, tokenizer)
    except ValueError as error:
        raise ConfigError(f"family: {error}") from error
    torch.manual_seed(seed)
    return Model(family=kind.build(family_config), processor=processor, spec=family_config.model_dump(mode="json"))


def settle_vocabulary(config: TrainConfig, streams: OpenStreams, run: Path) -> Path:
    """Put the run's vocabulary into its folder, once: trained on its captions, taken by name, or from the run of `init`.

    Only one process may call this.

    Returns:
        The path of `tokenizer/vocab.txt`; a file that is there already is never changed.
    """
    path = run / VOCABULARY
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        _write_vocabulary(config, streams, unfinished)
    except ValueError as error:
        raise ConfigError(f"tokenizer: {error}") from error
    unfinished.replace(path)
    return path


def _write_vocabulary(config: TrainConfig, streams: OpenStreams, path: Path) -> None:
    tokenizer = config.tokenizer
    if tokenizer.train_size is not None:
        train_wordpiece(_texts(config, streams), vocab_size=tokenizer.train_size, path=path)
    elif tokenizer.name is not None:
        load_tokenizer(tokenizer.name).save(path)
    else:
        shutil.copyfile(_inherited_vocabulary(config), path)


def _inherited_vocabulary(config: TrainConfig) -> Path:
    inherited = _run_of(Path(config.init)) / VOCABULARY if config.init is not None else None
    if inherited is None or not inherited.is_file():
        raise ConfigError(
            "tokenizer: no vocabulary to use; set tokenizer.train_size=… (train one on the captions), tokenizer.name=… "
            "(bert-base-uncased or a path), or init=… to a run that has one"
        )
    return inherited


def _texts(config: TrainConfig, streams: OpenStreams) -> Iterator[str]:
    """What the records say, cleaned as models read it: captions, questions, answers, hypotheses, statements, expressions.

    Raises:
        BudgetError: more records are damaged than the run tolerates; fewer are left out.
    """
    damages: list[Damage] = []

    def note(name: str, dataset: Dataset, shard: int, row: int, problem: DamagedRecordError) -> None:
        logger.warning("a damaged record is left out of the vocabulary: %s", problem)
        key = dataset.index(shard).keys[row]
        damages.append(Damage(source=name, shard=dataset.manifest[shard].name, key=key, what=str(problem)))
        check_damage(damages, allowed=allowed_damage(config.damage, streams.datasets.values()))

    for name, dataset in streams.datasets.items():
        for record in dataset.records(payload=False, leave_out=partial(note, name, dataset)):
            for annotation in record.annotations:
                match annotation:
                    case Caption() | Statement() | Grounding():
                        yield clean_caption(annotation.text)
                    case Entailment():
                        yield clean_caption(annotation.hypothesis)
                    case Question():
                        yield clean_question(annotation.question)
                        yield from (answer.text for answer in annotation.answers)


def load_initial_weights(family: Family, init: str) -> ImportReport:
    """Start a family from another run's newest checkpoint, one checkpoint of it, or a file under our names.

    Raises:
        CheckpointError: there is no complete checkpoint at `init`.
        ConfigError: nothing of the file fits the family, or a tensor has another size.
    """
    path = Path(init)
    try:
        tensors = read_tensors(path) if path.is_file() else find_checkpoint(path).tensors()
        report = fill_from_earlier(family, tensors)
    except ValueError as error:
        raise ConfigError(f"init={init!r}: {error}") from error
    if not report.loaded:
        raise ConfigError(f"init={init!r}: not one tensor of it fits this family; import released weights first")
    return report


def load_exactly(family: Family, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into the family that its own config builds; every tensor must find its place.

    Raises:
        CheckpointError: a tensor is missing, left over or of another size.
    """
    try:
        report = fill_own(family, checkpoint.tensors())
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    if report.missing or report.unexpected or report.resized or report.kept:
        raise CheckpointError(
            f"{checkpoint.path}: its weights do not fit the config beside them ({report}); use the code that wrote it"
        )


def _run_of(path: Path) -> Path:
    """The run folder that a checkpoint path means."""
    return path.parent.parent if (path / STATE).is_file() else path


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRun:
    """A trained model as it lies in a run folder, ready to predict."""

    family: Family
    processor: Processor
    config: TrainConfig | ImportedConfig
    checkpoint: Checkpoint


def open_run(path: str | Path, *, device: torch.device) -> TrainedRun:
    """Load the model of a run: its newest checkpoint, or the one that `path` names.

    Raises:
        CheckpointError: there is no complete checkpoint, or its weights do not fit its config.
    """
    checkpoint = find_checkpoint(Path(path))
    stored, where = checkpoint.state.config, str(checkpoint.path)
    config: TrainConfig | ImportedConfig
    config = (
        validate(ImportedConfig, stored, where=where)
        if is_imported(stored)
        else validate(TrainConfig, stored, where=where)
    )
    model = build_model(config.family, checkpoint.run / VOCABULARY, seed=0)
    load_exactly(model.family, checkpoint)
    model.family.to(device).eval()
    return TrainedRun(family=model.family, processor=model.processor, config=config, checkpoint=checkpoint)
