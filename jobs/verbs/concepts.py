"""The concepts of every picture: nouns of captions, a vocabulary, its text embeddings, image embeddings, the nearest k."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from concepts.agreement import Agreement, caption_agreement
from concepts.annotate import BANK_FILE, CONCEPTS, VOCABULARY_FILE, ConceptAnnotator, ConceptPlan
from concepts.bank import bank_digest, make_bank, write_bank
from concepts.captions import caption_files
from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.nouns import NOUNS, ShardUnit, nouns_digest8
from concepts.phrases import PhraseConfig
from concepts.picture_column import picture_problems
from concepts.vocabulary import Vocabulary, VocabularyConfig
from jobs.executors import ExecutorConfig, cluster_for, executor_for, refuse_relative_paths
from jobs.progress import progress
from jobs.quantities import count_text
from jobs.vocabulary_count import find_vocabulary
from shards.errors import BudgetError
from shards.reader import Dataset, open_dataset
from shards.sidecar import open_sidecar, sidecar_shards
from shards.stores import open_storage

logger = logging.getLogger(__name__)

HELP = "what each picture shows: a vocabulary of caption nouns, CLIP embeddings, and the nearest concepts as a sidecar"

PROBLEMS_SHOWN = 3  # pictures without an embedding that are named
SHARDS_LOOKED_AT = 8  # per dataset, for the figures of the result line


class Config(ExecutorConfig):
    """What to annotate, and how.

    `min_count=…` and `batch_size=…` are short for `vocabulary.min_count=…` and `embedder.batch_size=…`.
    """

    dataset: tuple[str, ...]
    """one dataset, or several that share one vocabulary"""
    embedder: EmbedderConfig = EmbedderConfig()
    top_k: PositiveInt = 15
    """concepts per picture"""
    min_score: float = Field(-1.0, ge=-1, le=1)
    """concepts with a smaller cosine are left out"""
    max_likeness: float = Field(1.0, ge=-1, le=1)
    """of concepts that are more alike than this (cosine of their embeddings), a picture gets the best one only; 1: all, as ViCHA"""
    reject_share: float = Field(0.01, ge=0, le=1)
    """stop when more pictures than this share cannot be embedded, and more than `reject_count`"""
    reject_count: NonNegativeInt = 100
    """and more than so many pictures cannot be"""
    vocabulary: VocabularyConfig = VocabularyConfig()
    phrases: PhraseConfig = PhraseConfig()
    output: str | None = None
    """a folder that also gets vocabulary.json and summary.json; the columns themselves lie in the datasets"""

    @model_validator(mode="before")
    @classmethod
    def _short_spellings(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for short, group in (("min_count", "vocabulary"), ("batch_size", "embedder")):
            if short not in data:
                continue
            inner = data.get(group) or {}
            if not isinstance(inner, dict) or short in inner:
                raise ValueError(f"{short} is short for {group}.{short}; give one of the two")
            data[group] = {**inner, short: data.pop(short)}
        return data

    @field_validator("dataset", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("dataset")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("name at least one dataset")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run made."""

    column: str  # concepts-<digest8>, in every dataset
    vocabulary: int  # phrases
    vocabulary_digest: str
    tagger: str | None
    pictures: int
    embedded: int  # the rest had their embeddings from an earlier run
    undecodable: int  # pictures that have a null for an embedding, and no concept
    top_concepts: tuple[str, ...]
    agreement: Agreement | None
    seconds: float


def run(config: Config, *, dry_run: bool) -> int:
    """Annotate the datasets; print one line with the result."""
    refuse_relative_paths({f"dataset.{number}": path for number, path in enumerate(config.dataset)})
    datasets = [open_dataset(path) for path in config.dataset]
    if dry_run:
        print(_plan_line(config, datasets))
        return 0
    with cluster_for(config):
        print(_result_line(annotate(config, datasets)))
    return 0


def annotate(config: Config, datasets: Sequence[Dataset] | None = None) -> Summary:
    """Do all of it; what an earlier run has finished is found and kept."""
    started = time.monotonic()
    config = _with_absolute_paths(config)
    datasets = datasets or [open_dataset(path) for path in config.dataset]
    for dataset in datasets:
        dataset.storage.ensure_writable()
    if config.output is not None:
        open_storage(config.output).ensure_writable()
    # The driver needs the text side only; where GPUs are on the workers alone, it makes do with its processor.
    embedder = ClipEmbedder(config.embedder.model_copy(update={"device": "auto"} if config.executor == "ray" else {}))
    vocabulary = find_vocabulary(config.vocabulary, config.phrases, datasets, executor_for(config))
    plan = ConceptPlan(
        embedder=embedder.card,
        vocabulary=vocabulary.digest,
        bank=bank_digest(vocabulary, embedder),
        phrases=len(vocabulary),
        top_k=config.top_k,
        min_score=config.min_score,
        max_likeness=config.max_likeness,
    )
    _store_bank(datasets, plan, vocabulary, embedder)
    embedded, problems = _annotate_pictures(config, datasets, plan, embedder)
    top, agreement = _look_at(datasets, plan, vocabulary, config.phrases)
    summary = Summary(
        column=f"{CONCEPTS}-{plan.concepts_digest8}",
        vocabulary=len(vocabulary),
        vocabulary_digest=vocabulary.digest,
        tagger=vocabulary.origin.get("tagger"),
        pictures=sum(len(dataset) for dataset in datasets),
        embedded=embedded,
        undecodable=len(problems),
        top_concepts=top,
        agreement=agreement,
        seconds=round(time.monotonic() - started, 2),
    )
    if config.output is not None:
        output = open_storage(config.output)
        output.replace(VOCABULARY_FILE, vocabulary.to_bytes())
        output.replace("summary.json", json.dumps(asdict(summary), indent=2, ensure_ascii=False).encode())
    return summary


def _store_bank(datasets: Sequence[Dataset], plan: ConceptPlan, vocabulary: Vocabulary, embedder: ClipEmbedder) -> None:
    """Put vocabulary and bank beside the concepts of each dataset, where its workers and its readers look for them."""
    names = (f"{plan.folder}/{VOCABULARY_FILE}", f"{plan.folder}/{BANK_FILE}")
    lacking = [each for each in datasets if not all(each.storage.exists(name) for name in names)]
    if not lacking:
        return
    bank = make_bank(vocabulary, embedder)
    for dataset in lacking:
        dataset.storage.create(names[0], vocabulary.to_bytes())
        write_bank(dataset.storage, names[1], bank)


def _annotate_pictures(
    config: Config, datasets: Sequence[Dataset], plan: ConceptPlan, embedder: ClipEmbedder
) -> tuple[int, Mapping[str, str]]:
    """Run the shards whose concepts are not there yet.

    Returns:
        How many pictures went through the model, and by key why some have no embedding, those of earlier runs among them.
    """
    units: list[ShardUnit] = []
    problems: dict[str, str] = {}
    for dataset in datasets:
        there = sidecar_shards(dataset.storage, CONCEPTS, plan.concepts_digest8)
        units += [
            ShardUnit(dataset.path, shard) for shard, entry in enumerate(dataset.manifest) if entry.name not in there
        ]
        problems.update(picture_problems(dataset, plan.embedding_digest8))
    left = sum(dataset.manifest[unit.shard].records for unit, dataset in _with_datasets(units, datasets))
    total = sum(len(dataset) for dataset in datasets)
    embedded = 0
    _check_budget(config, problems, total=total)
    with progress("concepts", total=total, unit="images", done=total - left) as bar:
        annotator = ConceptAnnotator(
            config.embedder,
            plan,
            embedder=embedder,
            on_pictures=bar.advance if config.executor == "inline" else None,
        )
        resources = {"GPU": 1.0} if config.embedder.device == "cuda" else None
        for outcome in executor_for(config).run(annotator.begin, units, resources=resources, stateful=True):
            bar.advance(outcome.result.unreported)
            embedded += outcome.result.embedded
            problems.update(outcome.result.problems)
            _check_budget(config, problems, total=total)
    for key, problem in sorted(problems.items())[:PROBLEMS_SHOWN]:
        logger.warning("%s has no embedding and no concepts: %s", key, problem)
    return embedded, problems


def _check_budget(config: Config, problems: Mapping[str, str], *, total: int) -> None:
    """Stop a run over pictures that are worse than its config allows.

    Raises:
        BudgetError: too many pictures have no embedding.
    """
    if len(problems) > max(config.reject_count, config.reject_share * total):
        shown = "; ".join(f"{key}: {problem}" for key, problem in sorted(problems.items())[:PROBLEMS_SHOWN])
        raise BudgetError(
            f"{len(problems):,} of {total:,} pictures cannot be embedded, more than reject_share={config.reject_share:g} and "
            f"reject_count={config.reject_count} allow ({shown}); run `verify` on the dataset, or raise them"
        )


def _with_datasets(units: Sequence[ShardUnit], datasets: Sequence[Dataset]) -> Iterator[tuple[ShardUnit, Dataset]]:
    by_path = {dataset.path: dataset for dataset in datasets}
    for unit in units:
        yield unit, by_path[unit.dataset]


def _look_at(
    datasets: Sequence[Dataset], plan: ConceptPlan, vocabulary: Vocabulary, phrases: PhraseConfig
) -> tuple[tuple[str, ...], Agreement | None]:
    """The concepts that most often are a picture's best, and how far the best five agree with the captions; over a few shards."""
    best: Counter[str] = Counter()
    concepts: list[list[str]] = []
    nouns: list[list[str]] = []
    tagger = vocabulary.origin.get("tagger")
    for dataset in datasets:
        column = open_sidecar(dataset, f"{CONCEPTS}-{plan.concepts_digest8}")
        digest8 = nouns_digest8(phrases, tagger) if tagger else ""
        counted = sidecar_shards(dataset.storage, NOUNS, digest8) if tagger else set()
        step = max(1, len(dataset.manifest) // SHARDS_LOOKED_AT)
        for shard in range(0, len(dataset.manifest), step):
            chosen: list[list[str]] = column.table(shard)["phrases"].to_pylist()
            best.update(row[0] for row in chosen if row)
            if dataset.manifest[shard].name in counted:
                concepts += chosen
                nouns += open_sidecar(dataset, f"{NOUNS}-{digest8}").table(shard)["nouns"].to_pylist()
    agreement = caption_agreement(concepts, nouns, vocabulary=vocabulary.phrases)
    return tuple(phrase for phrase, _ in best.most_common(8)), agreement


def _with_absolute_paths(config: Config) -> Config:
    """Paths of models that hold in any process; names and tags stay as they are."""
    embedder = with_absolute_weights(config.embedder)
    phrases = config.phrases.model_copy(update={"tagger": _absolute(config.phrases.tagger)})
    return config.model_copy(update={"embedder": embedder, "phrases": phrases})


def with_absolute_weights(embedder: EmbedderConfig) -> EmbedderConfig:
    """The same embedder, whose files are found from any process."""
    return embedder.model_copy(update={name: _absolute(getattr(embedder, name)) for name in ("model", "pretrained")})


def _absolute(name: str | None) -> str | None:
    scheme, colon, rest = (name or "").rpartition(":")
    if not rest or "//" in scheme + rest[:2] or not Path(rest).exists():
        return name
    return f"{scheme}{colon}{Path(rest).resolve()}"


def _plan_line(config: Config, datasets: Sequence[Dataset]) -> str:
    pictures = sum(len(dataset) for dataset in datasets)
    shards = sum(len(dataset.manifest) for dataset in datasets)
    rules = config.vocabulary
    if rules.file is not None:
        files = [rules.file] if isinstance(rules.file, str) else list(rules.file)
        words = f"vocabulary of {' and '.join(files)}"
    elif not rules.count:
        words = f"vocabulary of {len(rules.lists)} lists of names"
    else:
        counted = [open_dataset(path) for path in rules.datasets] or datasets
        loose = len(caption_files(rules.texts))
        captions = sum(dataset.card.annotations for dataset in counted)
        words = f"vocabulary counted over {captions:,} annotations" + (f" and {loose} caption files" if loose else "")
    return (
        f"{count_text(pictures, 'picture')} in {count_text(shards, 'shard')} of {count_text(len(datasets), 'dataset')}; {words}; "
        f"{config.embedder.model} ({config.embedder.pretrained}), top {config.top_k}"
    )


def _result_line(summary: Summary) -> str:
    agreement = summary.agreement
    named = (
        f"; of the best five, {agreement.own:.0%} are in the picture's captions ({agreement.other:.0%} in another's)"
        if agreement
        else ""
    )
    lost = f", {summary.undecodable:,} without embedding" if summary.undecodable else ""
    return (
        f"{summary.column}: {summary.pictures:,} pictures ({summary.embedded:,} embedded now){lost}, "
        f"{summary.vocabulary:,} concepts (tagger {summary.tagger}){named}; "
        f"most often best: {', '.join(summary.top_concepts)}; {summary.seconds:.0f} s"
    )
