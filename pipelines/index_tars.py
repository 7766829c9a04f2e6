"""Other people's tars to a dataset, without copying them: one unit per tar, committed exactly once like any other unit."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from pipelines.foreign_samples import ForeignColumns, SampleReader, annotation_count, read_samples
from pipelines.packed import matching
from pipelines.source import Target
from pipelines.unpacking import LONGEST_MARK, packing_of
from shards.config import Config, digest
from shards.errors import BudgetError, DatasetError, InputError
from shards.foreign import ForeignTar, look_at, place_of
from shards.manifest import Card, merge
from shards.media import Check
from shards.patience import Patience
from shards.records import Reject
from shards.stores import open_storage
from shards.tar_walk import Loss, TarWalk
from shards.writer import ShardWriter, UnitReport, committed_units, read_commit

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_NAMES = 10_000_000


class IndexConfig(Config):
    """Which tars become which dataset. The tars stay where they are and must not change afterwards."""

    shards: tuple[str, ...] = Field(description="tars: paths or URLs, with {00000..00331}, {a,b} and * ; or a list")
    output: str = Field(description="the folder or URL of the dataset")
    name: str = Field(
        default="indexed", pattern=r"^[A-Za-z0-9_]+$", description="the dataset's name, which starts every key"
    )
    split: str = Field(default="train", pattern=r"^[A-Za-z0-9_]+$", description="the split's name, in every key")
    checksums: bool = Field(
        default=True,
        description="read every byte: media are looked into and carry checksums; false: tar headers and texts only",
    )
    cut: Literal["refuse", "keep"] = Field(
        default="refuse", description="a tar that is cut off or damaged: stop, or keep its sound part and name the loss"
    )
    keys: Literal["shard", "stem"] = Field(
        default="shard",
        description="keys name their tar, as names are unique in one tar only; `stem` where they are in all",
    )
    columns: ForeignColumns = ForeignColumns()
    check: Check = Field(
        default="structure", description="pictures are whole by their `structure`, or when a decoder says so (`decode`)"
    )
    max_pixels: PositiveInt = Field(default=178_956_970, description="larger pictures are decompression bombs")
    reject_share: float = Field(
        default=0.01, ge=0, le=1, description="stop when more than this share of the samples is rejected"
    )
    reject_count: int = Field(default=100, ge=0, description="and more than this many samples are")

    @field_validator("shards", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    def target(self) -> Target:
        """Name, split and limits, as keys need them."""
        return Target(
            dataset=self.name, split=self.split, records_per_shard=1, max_pixels=self.max_pixels, check=self.check
        )

    def identity(self) -> dict[str, Any]:
        """All that decides over the dataset's bytes beside the tars, which are its units."""
        kept = self.model_dump(mode="json", exclude={"shards", "output", "reject_share", "reject_count"})
        return {"schema": 1, "indexed": True, **kept}

    def digest(self) -> str:
        """The name of this config on every unit and on the dataset's card."""
        return digest(self.identity())


@dataclass(frozen=True, slots=True, kw_only=True)
class TarUnit:
    """One foreign tar: the atom of distribution and resume, and one shard."""

    index: int
    address: str
    label: str  # unique among the tars of the run; prefixes keys
    bytes: int

    def id(self, config_digest: str) -> str:
        """The name of this unit under a config: which file it is, and how large; never of the attempt."""
        return digest(
            {
                "config": config_digest,
                "index": self.index,
                "address": self.address,
                "label": self.label,
                "bytes": self.bytes,
            }
        )


def plan_tars(config: IndexConfig) -> tuple[TarUnit, ...]:
    """List the tars, in the order in which they are named; files are looked at, not opened.

    Raises:
        InputError: a pattern matches nothing, a file is missing, or one is named twice.
    """
    addresses = [address for pattern in config.shards for address in expand(pattern)]
    twice = next((address for address, count in Counter(addresses).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"shards: {twice} is named twice; name every tar once")
    units = []
    for index, (address, label) in enumerate(zip(addresses, _labels(addresses), strict=True)):
        try:
            seen = look_at(address)
        except DatasetError as problem:
            raise InputError(f"shards: {address} is not there; correct the pattern, or fetch the tar") from problem
        units.append(TarUnit(index=index, address=address, label=label, bytes=seen.bytes))
    return tuple(units)


def index_tar(config: IndexConfig, unit: TarUnit) -> UnitReport:
    """Write the headers and the index of one tar and commit them, or find that somebody already has.

    Raises:
        InputError: the tar is compressed.
        DatasetError: the tar is cut off or damaged and `cut` does not keep such, it changed meanwhile, or another attempt
            committed other bytes.
    """
    config_digest = config.digest()
    unit_id = unit.id(config_digest)
    storage = open_storage(config.output)
    if (earlier := read_commit(storage, unit_id)) is not None:
        return replace(earlier, committed=False)
    before = look_at(unit.address)
    reader = SampleReader(
        target=config.target(), label=unit.label, prefix=config.keys == "shard", columns=config.columns
    )
    folder, name = place_of(unit.address)
    samples = annotations = 0
    with (
        folder.open_read(name) as tar,
        ShardWriter(
            storage,
            dataset=config.name,
            split=config.split,
            unit=unit_id,
            unit_index=unit.index,
            config_digest=config_digest,
        ) as writer,
    ):
        walk = TarWalk(tar, size=before.bytes, whole=config.checksums)
        for sample in read_samples(walk, checksums=config.checksums):
            samples += 1
            if isinstance(sample, Loss):
                if sample.offset == 0:
                    _refuse_packed(unit)
                writer.reject(_named(sample, unit, config.cut))
                continue
            annotations += annotation_count(sample, config.columns)
            for result in reader.read(sample):
                if isinstance(result, Reject):
                    writer.reject(result)
                else:
                    writer.add(result.record, elsewhere=result.members)
        if look_at(unit.address) != before:
            raise DatasetError(f"{unit.address} changed while it was indexed; let whatever writes it finish first")
        foreign = ForeignTar(
            address=unit.address, bytes=before.bytes, stamp=before.stamp, layout=walk.layout, xxh3=walk.xxh3
        )
        return writer.commit(raw_items=samples, raw_annotations=annotations, foreign=foreign)


def committed_tars(config: IndexConfig, units: Sequence[TarUnit]) -> dict[str, UnitReport]:
    """The reports of those tars that need no more work, by unit id.

    Raises:
        DatasetError: another config wrote to the output, or the list of tars is another one.
    """
    config_digest = config.digest()
    found = committed_units(open_storage(config.output), config_digest)
    surplus = set(found) - {unit.id(config_digest) for unit in units}
    if surplus:
        raise DatasetError(
            f"{config.output}: {len(surplus)} of its {len(found)} indexed tars are not in the list any more, or have another size; "
            "choose another `output`"
        )
    return found


def finish_index(config: IndexConfig, units: Sequence[TarUnit]) -> Card:
    """Merge the committed units into manifest, rejects and card; a second call changes nothing.

    Raises:
        BudgetError: too many samples were rejected, or nothing is left at all.
        DatasetError: a tar is not indexed yet, or a key occurs in two tars.
    """
    check_samples(config, list(committed_tars(config, units).values()))
    config_digest = config.digest()
    return merge(
        open_storage(config.output),
        name=config.name,
        split=config.split,
        config=config.identity(),
        config_digest=config_digest,
        expected_units=[unit.id(config_digest) for unit in units],
    )


def check_samples(config: IndexConfig, reports: Sequence[UnitReport]) -> None:
    """Stop where more samples are rejected than the config allows. Raises `BudgetError` with the most frequent reasons."""
    total = sum(report.raw_items for report in reports)
    rejects = [reject for report in reports for reject in report.rejects if reject.level == "item"]
    if (len(rejects) > config.reject_count and len(rejects) > config.reject_share * total) or len(rejects) == total:
        reasons = ", ".join(
            f"{reason} {count:,}" for reason, count in Counter(each.reason for each in rejects).most_common(5)
        )
        example = f"; e.g. {rejects[0].id}: {rejects[0].detail}" if rejects else ""
        raise BudgetError(
            f"{config.output}: {len(rejects):,} of {total:,} samples were rejected ({reasons or 'there are none'}{example}); "
            "say where captions are with columns.caption=… or columns.label=…, or allow more with reject_share and reject_count"
        )


def expand(pattern: str) -> Iterator[str]:
    """Every tar that a pattern names: `{00000..00331}`, `{a,b}` and `*`; local paths come out absolute.

    Raises:
        InputError: nothing matches, it is a folder, or braces do not close.
    """
    for name in _without_braces(pattern):
        if not any(sign in name for sign in "*?["):
            address = name if "://" in name else os.path.abspath(os.path.expanduser(name))
            if os.path.isdir(address):
                raise InputError(f"shards: {name} is a folder; name the tars in it: shards='{name.rstrip('/')}/*.tar'")
            yield address
            continue
        found = sorted(_matches(name))
        if not found:
            raise InputError(
                f"shards: nothing matches {name}; correct the pattern (quote it, so that the shell leaves it alone)"
            )
        yield from found


def _matches(pattern: str) -> Sequence[str]:
    if "://" not in pattern:
        return [os.path.abspath(path) for path in matching(os.path.expanduser(pattern))]
    import fsspec

    system, path = fsspec.core.url_to_fs(pattern)
    return [system.unstrip_protocol(found) for found in Patience().ask(pattern, lambda: system.glob(path))]


def _without_braces(pattern: str) -> Iterator[str]:
    found = _BRACES.search(pattern)
    if found is None:
        if "{" in pattern or "}" in pattern:
            raise InputError(f"shards: the braces of {pattern!r} do not close; write {{00000..00331}} or {{a,b}}")
        yield pattern
        return
    head, tail = pattern[: found.start()], pattern[found.end() :]
    for choice in _choices(found.group(1), pattern):
        yield from _without_braces(f"{head}{choice}{tail}")


def _choices(inside: str, pattern: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        yield from inside.split(",")
        return
    first, last = int(numbers.group(1)), int(numbers.group(2))
    if not 0 <= last - first < _MOST_NAMES:
        raise InputError(f"shards: the range of {pattern!r} runs backwards or is endless; write {{00000..00331}}")
    width = len(numbers.group(1)) if numbers.group(1).startswith("0") else 0
    yield from (f"{number:0{width}d}" for number in range(first, last + 1))


def _labels(addresses: Sequence[str]) -> list[str]:
    """A short name per tar: its base name where these differ, else its number."""
    bases = [
        re.sub(r"[^A-Za-z0-9_-]+", "_", re.sub(r"\.tar$", "", address.rpartition("/")[2])) for address in addresses
    ]
    if len(set(bases)) == len(bases):
        return bases
    return [f"tar{number:05d}" for number in range(len(bases))]


def _refuse_packed(unit: TarUnit) -> None:
    """Stop at a tar that was packed as a whole. Raises `InputError`."""
    folder, name = place_of(unit.address)
    with folder.open_read(name) as tar:
        packing = packing_of(tar.read(LONGEST_MARK))
    if packing is not None:
        raise InputError(
            f"shards: {unit.address} is compressed ({packing}), and tars are read from their middle where they lie; unpack it"
        )


def _named(loss: Loss, unit: TarUnit, cut: Literal["refuse", "keep"]) -> Reject:
    """A loss as a reject, or as the end of the run."""
    if cut == "refuse":
        raise DatasetError(
            f"{unit.address}: {loss.what} (at byte {loss.offset:,}); fetch the tar again, or keep its sound part with cut=keep"
        )
    detail = f"{unit.address}, byte {loss.offset:,}: {loss.what}; the samples around are lost"
    return Reject(id=f"{unit.label}@{loss.offset}", reason="truncated_media", detail=detail)
