"""Batches by a token budget over the real captions: how full they are, and how alike what the processes get."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.batching import TokenStream
from shards.costs import rounded_up
from shards.order import SourceSpec

CAPTIONS = Path(os.environ.get("OSTRAKA_DATA", "../shared/data")) / "text_captions"
PARTS, TOKENS, PER_SHARD = 8, 8 * 2_048, 1_000

pytestmark = pytest.mark.skipif(not CAPTIONS.is_dir(), reason=f"no captions at {CAPTIONS}")


def captions(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = content["annotations"] if isinstance(content, dict) else content
            yield from (text for row in rows for text in np.atleast_1d(row["caption"]).tolist())
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    yield from (text for name, text in row.items() if name.startswith(("caption", "sentence")))
        elif path.suffix == ".tsv":
            yield from (line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines())
        elif (
            path.suffix in (".txt", ".token") and path.stem != "AllVideoDescriptions"
        ):  # the same sentences as in the JSON
            yield from (line.split("\t")[1] for line in path.read_text(encoding="utf-8").splitlines() if "\t" in line)


class Characters:
    """Four characters to a token, in shards of a thousand captions in the order of the files."""

    digest = "characters"

    def __init__(self, texts: list[str]) -> None:
        exact = np.array([max(1, -(-len(text) // 4)) for text in texts], dtype=np.int64)
        self.exact = [exact[start : start + PER_SHARD] for start in range(0, len(exact), PER_SHARD)]
        self.levels = np.unique(rounded_up(exact))
        self.counts = np.array(
            [
                np.bincount(np.searchsorted(self.levels, rounded_up(each)), minlength=len(self.levels))
                for each in self.exact
            ],
            dtype=np.int32,
        )

    def of_shard(self, shard: int) -> NDArray[np.int64]:
        return rounded_up(self.exact[shard])


def test_real_captions_fill_their_batches_and_processes_get_alike_shares() -> None:
    texts = list(captions(CAPTIONS))
    assert len(texts) > 1_000
    costs = Characters(texts)
    spec = SourceSpec(dataset_digest="real", sizes=tuple(map(len, costs.exact)))
    stream = TokenStream({"x": spec}, {"x": costs}, batch_tokens=TOKENS, parts=PARTS, seed=3)
    spent, spreads, items = 0, [], 0
    steps = stream.steps_of(1)
    for step in range(steps):
        slots = stream.slots(step, 0, 1)
        tokens = [int(costs.exact[slot.shard][slot.item]) for slot in slots]
        shares = [sum(tokens[slot] for slot in part) for part in stream.parts(step, 0, 1, PARTS)]
        spent, items = spent + sum(shares), items + len(slots)
        spreads.append((max(shares) - min(shares)) / max(shares))
    assert items == len(texts)
    assert spent / (steps * TOKENS) >= 0.97
    assert max(spreads) <= 0.02
