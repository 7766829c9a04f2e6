"""A second dataset on pictures that are stored already: its annotations become a column beside the shards; no pixel moves.

The driver reads the annotation file and finds each item's record; a worker checks the boxes of one shard's items against the
stored pictures and writes that shard's part. Parts depend on nothing but the items and the shard, and the first to be written
stays, so the number of workers and of attempts changes no byte.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import xxhash
from pydantic import Field

from pipelines.boxes import BoxedConfig, BoxRule, fitted
from pipelines.drafts import without_annotations
from pipelines.matched_items import MatchedItems, ShardItems, SomeShards
from pipelines.picture_names import Match, PictureNames, Spot, names_of
from pipelines.source import RawItem, SourceConfig, Target
from pipelines.sources import load_source, load_source_config
from shards.annotations import KIND, SCHEMA, Ledger, close_ledger, column_digest8, part_table
from shards.codec import annotation_from_plain
from shards.columns import sidecar_folder, sidecar_shards, write_sidecar
from shards.config import Config, canonical_json
from shards.errors import BudgetError, DatasetError, InputError
from shards.media import MediaProblem
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Detection, Grounding, Reject, RejectReason

ABSENT: RejectReason = "missing_media"  # of items whose picture the dataset does not hold
_NO_FAULT = frozenset({ABSENT, "filtered"})
_RESIZING = frozenset({"resize_image"})  # transforms after which boxes of the original pictures no longer fit


class AnnotateConfig(Config):
    """Which annotations go on which dataset's pictures."""

    dataset: str = Field(description="folder or URL of the dataset that holds the pictures")
    source: dict[str, Any] = Field(description="kind and keys of the raw annotations; `source.media` is not needed")
    match: Match = Field(
        default="auto",
        description="by `file` (path, base name, COCO number), by `id`, or by file where items name one (auto)",
    )
    column: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_]+$", description="name of the column; default: the source's kind"
    )
    reject_share: float = Field(
        default=0.01, ge=0, le=1, description="stop when more than this share of the items is unusable"
    )
    reject_count: int = Field(
        default=100, ge=0, description="and more than this many items are; pictures not here do not count"
    )

    def absolute(self) -> AnnotateConfig:
        """The same config with local paths that hold in any process, and a media folder that nothing is read from."""
        source = {"media": self.dataset, **self.source}
        source = load_source_config(source).placed(source)
        dataset = self.dataset if "://" in self.dataset else os.path.abspath(os.path.expanduser(self.dataset))
        return self.model_copy(update={"source": source, "dataset": dataset})

    def source_config(self) -> SourceConfig:
        """The source's own config."""
        return load_source_config({"media": self.dataset, **self.source})

    def column_name(self) -> str:
        """The column's name, without digest."""
        return self.column or str(self.source["kind"])


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatePlan:
    """What a run has to do. `card` decides every byte of the column."""

    config: AnnotateConfig
    card: Mapping[str, Any]
    items: MatchedItems = field(repr=False)
    raw_items: int
    raw_annotations: int
    matched_items: int
    unmatched: tuple[Reject, ...]

    @property
    def digest8(self) -> str:
        """Names the column's folder."""
        return column_digest8(self.config.column_name(), self.card)

    @property
    def folder(self) -> str:
        """Where the column lies in its dataset."""
        return sidecar_folder(self.config.column_name(), self.digest8)

    def job(self) -> AnnotateJob:
        """The part that workers need."""
        source = self.config.source_config()
        rule = source.box_rule() if isinstance(source, BoxedConfig) else BoxRule()
        return AnnotateJob(
            dataset=self.config.dataset,
            column=self.config.column_name(),
            digest8=self.digest8,
            card=self.card,
            boxes=rule,
            match=self.config.match,
        )

    def left(self, dataset: Dataset) -> SomeShards:
        """The shards whose parts are not written yet."""
        there = sidecar_shards(dataset.storage, self.config.column_name(), self.digest8)
        return SomeShards(
            self.items, [shard for shard, entry in enumerate(dataset.manifest) if entry.name not in there]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotateJob:
    """What one worker is told; small, and the same for all."""

    dataset: str
    column: str
    digest8: str
    card: Mapping[str, Any]
    boxes: BoxRule
    match: Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """What became of one shard."""

    records: int  # with at least one annotation
    annotations: int
    rejected: Mapping[str, int]  # items by reason


def plan_annotations(
    config: AnnotateConfig, dataset: Dataset, *, on_record: Callable[[int], None] = lambda count: None
) -> AnnotatePlan:
    """Read the annotation file and the headers of the dataset's records, and find each item's record.

    Args:
        config: with absolute paths.
        dataset: that holds the pictures.
        on_record: told of every shard's records as they are read.

    Raises:
        ConfigError: a kind or key of the source is wrong.
        InputError: the annotation file is wrong as a whole, not one of its pictures is here, or a name is ambiguous.
    """
    target = _target(config, dataset)
    source, _ = load_source(config.source, target=target)
    # The annotation file first: what is wrong with it shows before a million headers are read.
    raw = source.items(check_media=False)
    first = next(raw, None)
    if first is None:
        raise InputError(f"source.annotations: {config.source.get('annotations')} holds no item; is it the right file?")
    names = PictureNames(_origins(dataset, on_record), match=config.match, dataset=dataset.path)
    items = MatchedItems(len(dataset.manifest))
    resized = _is_resized(dataset)
    content = xxhash.xxh3_64()
    unmatched: list[Reject] = []
    count = annotations = matched = 0
    for item in _after(first, raw):
        count += 1
        annotations += source.annotation_count(item)
        content.update(canonical_json(item))
        spot = _spot(item, names, config.match)
        if isinstance(spot, Spot):
            _refuse_unknown_scale(item, resized=resized, config=config)
            items.add(spot, item)
            matched += 1
        else:
            unmatched += [*_refused(item), spot]
    if not matched:
        shown = f" (e.g. {unmatched[-1].id}: {unmatched[-1].detail})" if unmatched else ""
        raise InputError(
            f"{config.dataset}: not one of {count:,} raw items finds its picture there{shown}; name the dataset that holds the "
            "pictures, or choose another `match` (file, id)"
        )
    card = {
        "kind": KIND,
        "schema": SCHEMA,
        "manifest": dataset.digest,
        "source": {"kind": config.source["kind"], **_identity(config)},
        "match": config.match,
        "items": content.hexdigest(),
    }
    return AnnotatePlan(
        config=config,
        card=card,
        items=items,
        raw_items=count,
        raw_annotations=annotations,
        matched_items=matched,
        unmatched=tuple(unmatched),
    )


def annotate_shard(job: AnnotateJob, unit: ShardItems) -> Annotated:
    """Write the part of the column that is about one shard; a part that is there is left as it is.

    Raises:
        DatasetError: the dataset is damaged, or another run's settings lie in the column's folder.
    """
    dataset = open_dataset(job.dataset)
    index = dataset.index(unit.shard)
    annotations: list[list[Annotation]] = [[] for _ in index.keys]
    rejects: list[list[Reject]] = [[] for _ in index.keys]
    for row, item in unit.items:
        _check_match(dataset, unit.shard, row, item, job.match)
        size = int(index.width[row]), int(index.height[row])
        kept, refused = _usable(item, stored=None if size[0] < 0 else size, rule=job.boxes)
        annotations[row] += kept
        rejects[row] += refused
    write_sidecar(
        dataset.storage,
        column=job.column,
        digest8=job.digest8,
        shard=dataset.manifest[unit.shard].name,
        keys=index.keys,
        values=part_table(annotations, rejects),
        card=job.card,
    )
    return Annotated(
        records=sum(bool(row) for row in annotations),
        annotations=sum(map(len, annotations)),
        rejected=Counter(reject.reason for row in rejects for reject in row if reject.level == "item"),
    )


def finish_annotations(plan: AnnotatePlan, dataset: Dataset) -> Ledger:
    """Close the column's ledger; a second call writes the same bytes.

    Raises:
        BudgetError: too many items are unusable.
        DatasetError: a part is missing or damaged, or the ledger does not close.
    """
    ledger = close_ledger(
        dataset.storage,
        plan.folder,
        shards=[entry.name for entry in dataset.manifest],
        raw_items=plan.raw_items,
        raw_annotations=plan.raw_annotations,
        unmatched=plan.unmatched,
    )
    return ledger


def check_budget(plan: AnnotatePlan, rejected: Mapping[str, int]) -> None:
    """Stop a run whose annotations are worse than the config allows; pictures that the dataset lacks are no fault of theirs.

    Args:
        plan: knows what was unusable before any shard was looked at.
        rejected: matched items that turned out unusable so far, by reason.

    Raises:
        BudgetError: more than `reject_share` and more than `reject_count` items are unusable.
    """
    config = plan.config
    bad: Counter[str] = Counter(
        reject.reason for reject in plan.unmatched if reject.level == "item" and reject.reason not in _NO_FAULT
    )
    bad.update(rejected)
    if bad.total() > config.reject_count and bad.total() > config.reject_share * plan.raw_items:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in bad.most_common(5))
        raise BudgetError(
            f"{config.dataset}: {bad.total():,} of {plan.raw_items:,} raw items are unusable ({reasons}); repair the annotations "
            "(boxes of resized pictures: source.rescale_boxes=true), or allow more with reject_share and reject_count"
        )


def _origins(dataset: Dataset, on_record: Callable[[int], None]) -> Iterator[tuple[Spot, Any]]:
    for shard, entry in enumerate(dataset.manifest):
        for row, record in enumerate(dataset.records(shard, payload=False)):
            yield Spot(shard=shard, row=row), record.origin
        on_record(entry.records)


def _after(first: RawItem, rest: Iterator[RawItem]) -> Iterator[RawItem]:
    yield first
    yield from rest


def _spot(item: RawItem, names: PictureNames, match: Match) -> Spot | Reject:
    """The record that holds an item's picture, or why there is none."""
    usable = len(item.get("annotations", ()))

    def lost(reason: Any, detail: str) -> Reject:
        return Reject(id=item["id"], reason=reason, detail=detail, annotations=usable)

    if "problem" in item:
        return lost(item["problem"][0], item["problem"][1])
    count = len(item.get("media", ()))
    if count != 1 and match != "id":
        return lost("unsupported", f"it has {count} media files; only `match=id` is for items without exactly one")
    if not usable:
        return lost(*without_annotations(item))
    wanted = list(names_of(file=_file_of(item), id=item["id"], match=match))
    spot = names.find(wanted)
    if spot is None:
        return lost(ABSENT, f"no such picture in the dataset ({wanted[0].partition(':')[2]})")
    return spot


def _file_of(item: RawItem) -> str | None:
    file: str | None = next((place.get("file") for place in item.get("media", ())), None)
    return file


def _refused(item: RawItem) -> Iterator[Reject]:
    for id, reason, detail in item.get("refused", ()):
        yield Reject(id=id, reason=reason, detail=detail, level="annotation")


def _usable(
    item: RawItem, *, stored: tuple[int, int] | None, rule: BoxRule
) -> tuple[tuple[Annotation, ...], list[Reject]]:
    """What of an item can be kept, boxes checked against the stored picture, and a reject for all else."""
    refused = list(_refused(item))
    annotations = tuple(annotation_from_plain(plain) for plain in item.get("annotations", ()))
    boxed = any(isinstance(annotation, (Grounding, Detection)) for annotation in annotations)
    lost: tuple[Reject, ...] = ()
    try:
        if boxed and stored is None:
            raise MediaProblem("size_mismatch", "the size of its stored picture is not known, so no box can be checked")
        if stored is not None:
            drawn_on = (item["size"][0], item["size"][1]) if "size" in item else None
            annotations, lost = fitted(annotations, drawn_on=drawn_on, stored=stored, rule=rule, id=item["id"])
        if not annotations:
            raise MediaProblem("no_annotations", "no annotation is left for this item")
    except MediaProblem as problem:
        gone = Reject(id=item["id"], reason=problem.reason, detail=problem.detail, annotations=len(annotations))
        return (), [*refused, *lost, gone]
    return annotations, [*refused, *lost]


def _check_match(dataset: Dataset, shard: int, row: int, item: RawItem, match: Match) -> None:
    """See that record and item have a name in common: names were looked up by a hash of 64 bits."""
    origin = dataset.record(shard, row, payload=False).origin
    own = {*names_of(file=origin.file, id=origin.id, match=match), f"id:{origin.id}"}
    if own.isdisjoint(names_of(file=_file_of(item), id=item["id"], match=match)):
        raise DatasetError(
            f"{dataset.path}: {item['id']} was taken for {dataset.index(shard).keys[row]!r} and is not (two names share a hash); "
            "annotate with another `match`"
        )


def _is_resized(dataset: Dataset) -> bool:
    transforms = dataset.card.config.get("transforms", ())
    return any(isinstance(spec, dict) and spec.get("kind") in _RESIZING for spec in transforms)


def _refuse_unknown_scale(item: RawItem, *, resized: bool, config: AnnotateConfig) -> None:
    boxed = any("box" in annotation for annotation in item.get("annotations", ()))
    if resized and boxed and "size" not in item:
        raise InputError(
            f"{config.dataset} holds resized pictures, and {config.source.get('annotations')} does not say which size its boxes "
            f"were drawn on (e.g. item {item['id']}); annotate a dataset of the original pictures"
        )


def _identity(config: AnnotateConfig) -> dict[str, Any]:
    """The source's config without the media folder, from which nothing is read."""
    return {name: value for name, value in config.source_config().identity().items() if name != "media"}


def _target(config: AnnotateConfig, dataset: Dataset) -> Target:
    return Target(
        dataset=dataset.card.name,
        split=config.source_config().split_name(),
        records_per_shard=max((entry.records for entry in dataset.manifest), default=1) or 1,
        max_pixels=1,
    )
