"""`verify`: is a dataset still what was committed? And if it is not: make it so again."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import Field

from jobs.progress import progress
from jobs.quantities import count_text, size_text
from shards.config import Config as BaseConfig
from shards.manifest import read_card
from shards.repair import Reconvert, repair
from shards.stores import open_storage
from shards.verify import verify

MENDING = (
    "; repair=true mends what can be mended, with source.annotations=… source.media=… also what only the raw data hold"
)
HELP = "checks a dataset against its commits, manifest, index and checksums; exit 1 names what is damaged"


class Config(BaseConfig):
    """What to check."""

    dataset: str = Field(description="folder or address of the dataset")
    repair: bool = Field(False, description="first restore what can be restored, and sweep leftovers")
    source: dict[str, Any] = Field(
        default={},
        description="where the raw files lie now (source.annotations, source.media, …), to convert damaged units again",
    )


def run(config: Config, *, dry_run: bool) -> int:
    """Check every byte of a dataset and print what is damaged; returns 1 where anything is."""
    storage = open_storage(config.dataset)
    if dry_run:
        card = read_card(storage)
        print(
            f"would read {count_text(card.shards, 'shard')} with {count_text(card.records, 'record')}, {size_text(card.bytes)}"
        )
        return 0
    if config.repair:
        repair(storage, reconvert=_reconvert(config) if config.source else None)
    with progress("verify", total=len(storage.list("shards")), unit="shards") as bar:
        damages = verify(config.dataset, on_shard=lambda entry: bar.advance(1, records=entry.records))
    for damage in damages:
        print(damage)
    if damages:
        print(f"{config.dataset}: {count_text(len(damages), 'damaged place')}{'' if config.repair else MENDING}")
        return 1
    card = read_card(storage)
    counts = ((card.shards, "shard"), (card.records, "record"), (card.annotations, "annotation"))
    print(f"{config.dataset}: sound, {', '.join(count_text(*count) for count in counts)}")
    return 0


def _reconvert(config: Config) -> Reconvert:
    from pipelines.reconvert import config_of, reconvert

    card = read_card(open_storage(config.dataset))
    return partial(reconvert, config_of(card, output=config.dataset, source=config.source))
