"""`verify`: is a dataset still what was committed?"""

from __future__ import annotations

from pydantic import Field

from jobs.progress import progress
from shards.config import Config as BaseConfig
from shards.manifest import read_card
from shards.storage import open_storage
from shards.verify import repair, verify

HELP = "check a dataset against its commits, manifest, index and checksums; exit 1 names what is damaged"


class Config(BaseConfig):
    """What to check."""

    dataset: str = Field(description="folder or address of the dataset")
    repair: bool = Field(False, description="first write manifest, rejects and card again, and sweep leftovers")


def run(config: Config, *, dry_run: bool) -> int:
    """Check every byte of a dataset and print what is damaged; returns 1 where anything is."""
    if dry_run:
        card = read_card(open_storage(config.dataset))
        print(f"would read {card.shards} shards with {card.records:,} records, {card.bytes / 2**20:,.1f} MiB")
        return 0
    if config.repair:
        repair(config.dataset)
    shards = len(open_storage(config.dataset).list("shards"))
    with progress("verify", total=shards, unit="shards") as bar:
        damages = verify(config.dataset, on_shard=lambda entry: bar.advance(1, records=entry.records))
    for damage in damages:
        print(damage)
    if damages:
        print(f"{config.dataset}: {len(damages)} damaged places")
        return 1
    card = read_card(open_storage(config.dataset))
    print(f"{config.dataset}: sound, {card.shards} shards, {card.records:,} records, {card.annotations:,} annotations")
    return 0
