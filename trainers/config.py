"""What a training run and an evaluation are made of: the configs that presets and the command line fill."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from shards.config import Config
from shards.costs import TokenCost
from shards.remote import CacheConfig
from shards.stream import DamageBudget
from shards.view import ViewRule
from trainers.augment import AugmentConfig
from trainers.bad_loss import BadLossConfig, OnBadLoss
from trainers.checkpoint import Form, KeepBest
from trainers.loader import StartMethod
from trainers.optim import CosineSchedule, OptimConfig, ScheduleConfig
from trainers.parallel import FsdpConfig, Mode
from trainers.rerank import Scoring
from trainers.step import Precision

# Keys that may change between the start of a run and its resumption: none of them touches a batch, a loss or a rate.
MAY_CHANGE = frozenset(
    {
        *("output", "loader_workers", "loader_start", "damage", "log_every", "checkpoint_every", "keep"),
        *("tensorboard", "device", "cache", "parallel", "fsdp", "checkpoint_form", "keep_best", "grace_s"),
        *("on_bad_loss", "bad_loss", "checkpoint_activations"),
    }
)


def _local(path: str) -> str:
    if "://" in path:
        raise ValueError(
            f"{path!r} is in an object store, and this is written to folders only; give a path that is mounted"
        )
    return path


LocalPath = Annotated[str, AfterValidator(_local)]


class StreamConfig(Config):
    """One dataset of the mixture."""

    dataset: str
    """folder of a dataset written by `shards` or `index`"""
    annotations: str | None = None
    """a column written by `annotate`, to be read in place of the dataset's own annotations; by name or folder"""
    concepts: str | None = None
    """its concepts sidecar: `concepts`, or a folder such as `concepts-1a2b3c4d`"""
    negatives: str | None = None
    """a sidecar of wrong captions, `negatives` or `swaps`, which the task mixes into matching"""
    where: str | None = None
    """only what meets these conditions on index and sidecar columns, such as `similarity > 0.28 and text_length < 200`"""
    select: str | None = None
    """only what this sidecar of truth values keeps, per record or per annotation, such as `filter` writes"""
    repeat: str | None = None
    """a sidecar field of numbers: how often an epoch visits each item, such as 0.5 or 3"""
    weight: NonNegativeFloat | None = None
    """share in the mixture, 0 to rest until `mixture.changes` says otherwise; unset: its size times `epochs`"""
    epochs: PositiveInt = 1
    """of this dataset in one epoch of the mixture"""

    @property
    def view(self) -> ViewRule:
        """What is seen of the dataset."""
        return ViewRule(where=self.where, select=self.select, repeat=self.repeat)


class WeightChangeConfig(Config):
    """New weights from a step on."""

    step: NonNegativeInt
    weights: dict[str, NonNegativeFloat] = Field(min_length=1)
    """by stream; a stream that is left out rests"""


class MixtureConfig(Config):
    """How several datasets are mixed; a lone one is not touched by it."""

    temperature: PositiveFloat = 1.0
    """evens the weights out, to weight^(1/temperature): 1 leaves them, more brings small datasets forward"""
    until: str | None = None
    """when an epoch ends: the stream of this name is through, `first` or `all` of them; unset: after as many items as the
    streams' own epochs add up to"""
    changes: tuple[WeightChangeConfig, ...] = ()
    """steps at which the weights change, as they are written there"""


class TokenizerConfig(Config):
    """Where the WordPiece vocabulary comes from; with nothing set, from the run that `init` names."""

    train_size: PositiveInt | None = None
    """train a vocabulary of at most this many pieces on the captions of the streams, and keep it in the run folder"""
    name: str | None = None
    """a vocabulary by local path or by hub name, such as bert-base-uncased"""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.train_size is not None and self.name is not None:
            raise ValueError("set train_size (train a vocabulary here) or name (take an existing one), not both")
        return self


class TrainConfig(Config):
    """A training run, pretraining or fine-tuning. It resumes by itself from `output`."""

    output: LocalPath
    """the run folder; a folder that holds a checkpoint of the same config is resumed"""
    streams: dict[str, StreamConfig] = Field(min_length=1)
    task: dict[str, Any] = Field(default_factory=lambda: {"kind": "pretraining"})
    """what an example is; `kind` names a file of trainers/tasks/"""
    family: dict[str, Any] = Field(default_factory=lambda: {"kind": "vicha"})
    """the model; `kind` names a folder of model/families/"""
    tokenizer: TokenizerConfig = TokenizerConfig()
    init: str | None = None
    """weights to start from: a run folder, one of its checkpoints, or a file of weights under our names"""
    batch_size: PositiveInt = 64
    """of the whole run: every world size that divides it sees the same batches; a resumed run may go on with another"""
    batch_tokens: PositiveInt | None = None
    """tokens of a batch of the whole run, in place of batch_size: items are counted by `tokens` and padded to their like"""
    batch_parts: PositiveInt = 8
    """parts that a batch of tokens is cut into; processes times micro_batches must divide it"""
    tokens: TokenCost = TokenCost()
    """what an item costs, where batch_tokens is set"""
    mixture: MixtureConfig = MixtureConfig()
    micro_batches: PositiveInt = 1
    """parts that each rank accumulates gradients over; contrastive negatives then come from a part, and the queue"""
    steps: PositiveInt | None = None
    """optimiser steps of the whole run; or give `epochs`"""
    epochs: PositiveInt | None = None
    """passes over the mixture; or give `steps`"""
    seed: int = 0
    """of every random choice: fresh weights, order, crops, captions, masks"""
    window: PositiveInt = 16
    """shards that are shuffled together"""
    lanes: PositiveInt = 1
    """stretches that an epoch is dealt into, so that ranks stay on their own shards; 1 is one global order"""
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = CosineSchedule()
    precision: Precision = "fp32"
    """of the forward and backward pass; weights and optimiser stay fp32"""
    compile: bool = False
    """compile the family's layers; the first steps then take a minute or more"""
    checkpoint_activations: bool = False
    """layers keep only their input for the backward pass and compute the rest again: the same numbers, less memory, more time"""
    channels_last: bool = False
    """convolutions hold their weights with the channels innermost, which some devices prefer"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:<number>"""
    parallel: Mode = "ddp"
    """of several processes: ddp, a copy of the model on each; fsdp, its layers in shards. Losses are the same either way"""
    fsdp: FsdpConfig = FsdpConfig()
    """what parallel=fsdp shards"""
    cache: CacheConfig = CacheConfig()
    """how datasets in object stores are read; never changes a batch"""
    loader_workers: NonNegativeInt = 0
    """processes per rank that read and decode; their number never changes a batch"""
    loader_start: StartMethod | None = None
    """how those processes begin: fork, spawn or forkserver; unset: as Python does by default"""
    damage: DamageBudget = DamageBudget()
    """how many damaged records the run tolerates, over all ranks; their slots are taken by reserves"""
    on_bad_loss: OnBadLoss = "stop"
    """what a step does whose loss or gradient is no number or explodes: stop the run, or skip the update on all ranks"""
    bad_loss: BadLossConfig = BadLossConfig()
    """what counts as an explosion, and how many steps may be skipped"""
    checkpoint_every: PositiveInt = 500
    """steps between checkpoints; the last step has one of its own"""
    checkpoint_form: Form = "whole"
    """whole: rank 0 writes all, while the others wait; sharded: every rank writes its part while the training goes on. Either
    is resumed by any number of processes, with any `parallel`"""
    keep: PositiveInt = 3
    """how many of the newest checkpoints stay"""
    keep_best: KeepBest | None = None
    """which further checkpoint stays, linked to as checkpoints/best, such as {metric: loss, mode: min}"""
    grace_s: PositiveFloat = 28
    """seconds that a SIGTERM leaves to end the step and to write a checkpoint; then the process ends without one"""
    log_every: PositiveInt = 20
    """steps between lines of the log and rows of metrics.jsonl"""
    tensorboard: bool = True
    """also write what is logged for TensorBoard, under the run's tensorboard/"""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of steps and epochs; `steps=null` takes away the steps of a preset")
        if self.batch_tokens is not None and self.lanes > 1:
            raise ValueError("set batch_tokens or lanes, not both: batches by tokens are planned over one order")
        if self.on_bad_loss == "skip" and self.optim.implementation != "fused":
            raise ValueError(
                f"on_bad_loss=skip needs optim.implementation=fused, which alone leaves an update out without waiting for the "
                f"device; it is {self.optim.implementation!r}"
            )
        return self


class AskConfig(Config):
    """What is asked of a run, and how its model is gone through."""

    checkpoint: str
    """a run folder (its newest checkpoint) or one checkpoint folder"""
    dataset: str | None
    """folder of a dataset written by `shards` or `index`"""
    annotations: str | None = None
    """a column written by `annotate`, to be read in place of the dataset's own annotations"""
    output: LocalPath | None
    """folder for what is found"""
    concepts: str | None = None
    """concepts sidecar of the dataset; unset: the column that the run was trained with, if any"""
    k_test: NonNegativeInt = 128
    """how many candidates of each query the match head re-ranks, 0: cosine only; of answers, how many are ranked as a whole"""
    task: dict[str, Any] = Field(default_factory=dict)
    """keys that replace those of the run's task, such as task.answers=…; imported weights have none, so give task.kind, too"""
    scoring: Scoring = "match"
    """of re-ranked pairs; match: the match logit, as published; match_and_contrast: its log-odds plus the contrast's logit"""
    batch_size: PositiveInt = 64
    """pictures, texts or questions per forward pass"""
    match_batch_size: PositiveInt = 256
    """pairs per pass of the match head"""
    state_bytes: NonNegativeInt = 4 << 30
    """memory per process for token states that wait for the match head; pictures without room go through their tower twice,
    texts into a temporary file in the output's folder. Never changes a score"""
    limit: PositiveInt | None = None
    """only the first records; unset: all"""
    precision: Precision = "fp32"
    """of the forward pass"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:<number>"""
    cache: CacheConfig = CacheConfig()
    """how a dataset in an object store is read"""


class EvaluateConfig(AskConfig):
    """A run on one dataset: retrieval between its pictures and captions, or the task that the run was fine-tuned for."""

    dataset: str
    """folder of a dataset written by `shards` or `index`"""
    output: LocalPath
    """folder for scores.json and predictions.jsonl"""


class PredictConfig(AskConfig):
    """What a run says of a dataset, or of single pictures; no truth is needed."""

    dataset: str | None = None
    """folder of a dataset; with `picture`, what pictures are compared with"""
    output: LocalPath | None = None
    """folder for the predictions; unset: they are only printed, which takes `picture` or a few texts"""
    picture: tuple[str, ...] = ()
    """picture files, one or a list; statements are about two pictures each"""
    text: tuple[str, ...] = ()
    """texts to be judged, found or mapped, one or a list; in place of a dataset's own annotations"""
    question: tuple[str, ...] = ()
    """questions to be answered, one or a list; in place of a dataset's own"""
    phrases: tuple[str, ...] = ()
    """concepts of the given pictures, best first; unset: chosen as those of the run's dataset were, where it saw any"""
    form: Literal["jsonl", "parquet"] = "jsonl"
    """of the predictions"""
    named: PositiveInt = 5
    """candidates that each prediction names"""
    submission: LocalPath | None = None
    """a file for the public evaluation server of VQA v2: every question once"""

    @field_validator("picture", "text", "question", "phrases", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        values = (value,) if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(each, str) for each in values):
            raise ValueError(
                f"{value!r} is no text or list of texts; put texts with signs such as : into quotes of their own"
            )
        return values

    @model_validator(mode="after")
    def _something_to_look_at(self) -> Self:
        if self.dataset is None and not self.picture:
            raise ValueError("name dataset=… or picture=… to look at")
        if self.text and self.question:
            raise ValueError("give text or question, not both")
        if self.phrases and not self.picture:
            raise ValueError("phrases are concepts of given pictures; give picture=…, or leave phrases out")
        if self.output is None and not self.picture and not self.text:
            raise ValueError("name output=… for the predictions of a dataset")
        return self


def changed_keys(stored: dict[str, Any], current: dict[str, Any], prefix: str = "") -> list[str]:
    """Name the dotted keys whose values differ between two dumped configs."""
    keys: list[str] = []
    for key in sorted(stored.keys() | current.keys()):
        before, after = stored.get(key), current.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            keys += changed_keys(before, after, f"{prefix}{key}.")
        elif before != after or (key in stored) != (key in current):
            keys.append(f"{prefix}{key}")
    return keys
