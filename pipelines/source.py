"""The contract of a raw format: deterministic units of raw items, and records or rejects read from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar, Protocol

import xxhash
from pydantic import PositiveInt, field_validator

from pipelines.packed import located, plain_name
from pipelines.spool import SpooledUnits
from pipelines.units import RawItem, Unit
from shards.config import Config
from shards.media import Check
from shards.records import Record, Reject

__all__ = ["RawItem", "Source", "SourceConfig", "Target", "Unit"]

_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_KEY_STEM = 80  # keeps member names inside the 100 bytes of a plain tar header


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a source must know about the dataset that is being made from it."""

    dataset: str
    split: str
    records_per_shard: int
    max_pixels: int
    check: Check = "structure"  # how pictures are found to be whole

    def key(self, stem: str) -> str:
        """Name a record for ever: `<dataset>-<split>-<stem>`, with a stem that two raw ids never share.

        A stem with other characters than a key allows is spelt with `_` and told apart by a hash of the original.
        """
        if not _KEY.fullmatch(stem) or len(stem) > _LONGEST_KEY_STEM:
            spelt = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePath(stem).stem)[:40].strip("_")
            stem = f"{spelt}-{xxhash.xxh3_64_hexdigest(stem.encode())}".lstrip("-")
        return f"{self.dataset}-{self.split}-{stem}"

    def slice(self, items: Iterable[RawItem], *, first_index: int = 0) -> Sequence[Unit]:
        """Cut the raw items, in their order, into units of `records_per_shard`, numbered from `first_index`.

        The items are read once, one at a time; the plan keeps them in a temporary file.
        """
        return SpooledUnits(items, size=self.records_per_shard, first_index=first_index)


class SourceConfig(Config):
    """What every source is told: where its annotations lie, and which part of them to take; most add `media`."""

    LOCATIONS: ClassVar[tuple[str, ...]] = ("annotations", "media")
    """The keys that are files or folders; a source with more of them names them all."""
    SPLIT_IN_NAME: ClassVar[re.Pattern[str] | None] = None
    """Where the official names of a format's annotation file carry the split: a pattern whose first group is it."""

    annotations: str
    """The annotation file, as the dataset's authors publish it."""
    split: str | None = None
    """Name of the split; some formats also select by it."""
    limit: PositiveInt | None = None
    """Take only the first so many raw items."""
    follow_links: bool = False
    """Allow links in the media folder that lead out of it."""

    @field_validator("split", mode="before")
    @classmethod
    def _may_be_a_number(cls, split: Any) -> Any:
        return str(split) if isinstance(split, int) and not isinstance(split, bool) else split  # ESC-50's folds

    def placed(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What this config was made of, with paths that hold in any process; a zip with one file in it becomes that file."""
        return {
            name: located(value) if name in self.LOCATIONS and isinstance(value, str) else value
            for name, value in spec.items()
        }

    def identity(self) -> dict[str, Any]:
        """The config without where its files happen to be mounted: a dataset must not change when a disk moves or a file is packed.

        The last component of each path stays, so that pointing at another folder of pictures is another dataset.
        """
        plain = self.model_dump(mode="json")
        return plain | {name: plain_name(plain[name]) for name in self.LOCATIONS if plain.get(name)}

    def split_name(self) -> str:
        """The split as it stands in keys and file names: as configured, else as the annotation file's name carries it."""
        if self.split is None and self.SPLIT_IN_NAME is not None:
            found = self.SPLIT_IN_NAME.search(plain_name(self.annotations))
            if found is not None:
                return found.group(1).replace("-", "_")
        return spelt_split(self.split) if self.split else "all"


def spelt_split(name: str) -> str:
    """A split's name in the letters that keys allow; of a name in another script a hash stays."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or xxhash.xxh3_64_hexdigest(name.encode())


class Source(Protocol):
    """A raw format. Built from its own `Config` (one module in `pipelines/sources/`, whose file name is its kind)."""

    def units(self) -> Sequence[Unit]:
        """Slice the raw input; reads annotation files but no pixels. Raises `InputError` for a file that is wrong as a whole."""
        ...

    def items(self, *, check_media: bool = True) -> Iterator[RawItem]:
        """Read the annotation files and give every raw item in order; `check_media=False` never looks at the media folder."""
        ...

    def read(self, unit: Unit) -> Iterator[Record | Reject]:
        """Read the raw media of a unit.

        Every item yields exactly one `Record` or one item-level `Reject`; every raw annotation ends in a record or in
        an annotation-level `Reject`.
        """
        ...

    def annotation_count(self, item: RawItem) -> int:
        """How many raw annotations an item holds: the annotation side of the ledger."""
        ...

    def media_bytes(self, item: RawItem) -> int | None:
        """Size of an item's media, None where that is not known without reading them; for the estimate of a dry run."""
        ...
