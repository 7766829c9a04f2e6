"""Hard captions by an index beside the exact search: seconds of CPU, and the share of the exact result that is found.

    python -m benchmarks.hard_captions pictures=20000 captions=100000

Pictures and captions are random vectors around themes, as wide as those of common CLIPs; the index is made before the clock of the
search starts, and its own time is told apart. Run it under `OMP_NUM_THREADS=1`; all sides count seconds of CPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import spread
from benchmarks.selection import WIDTH, Halves
from concepts.annotate import EMBEDDING, embedding_digest8, stored_vectors
from concepts.caption_column import CAPTION_EMBEDDING, CaptionBlock, caption_block, caption_digest8, caption_table
from concepts.caption_index import CaptionIndex, build_index
from concepts.negative_column import NegativePlan, mine_exactly
from concepts.negative_search import find_breadth, mine_nearby, recall_of
from concepts.picture_column import embedding_table
from shards.manifest import merge
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Origin, Record
from shards.sidecar import write_sidecar
from shards.stores import open_storage
from shards.writer import ShardWriter

PER_SHARD = 2_000
SPREAD = 1.5  # of vectors around their theme, which has the length of one
PER_THEME = 50  # pictures
ASKED = 256  # pictures that are searched for, and over which recall is measured
CARD = {"model": "random"}
PLAN = {"top_k": 10, "guard_cosine": 0.9, "guard_picture": 0.95}


def build_world(folder: Path, *, pictures: int, captions: int) -> Dataset:
    """A dataset without media whose embeddings are random."""
    storage, rng = open_storage(folder), np.random.default_rng(0)
    themes = rng.standard_normal((max(1, pictures // PER_THEME), WIDTH)).astype(np.float32)
    units = [f"unit{start}" for start in range(0, pictures, PER_SHARD)]
    share = captions // pictures
    for number, unit in enumerate(units):
        keys = [f"made-{place:08d}" for place in range(number * PER_SHARD, min(pictures, (number + 1) * PER_SHARD))]
        texts = [[f"caption {place} of {key}" for place in range(share)] for key in keys]
        with ShardWriter(
            storage, dataset="made", split="train", unit=unit, unit_index=number, config_digest="c0"
        ) as writer:
            for key, own in zip(keys, texts, strict=True):
                said = tuple(Caption(text=text) for text in own)
                origin = Origin(dataset="made", split="train", id=key)
                writer.add(Record(key=key, origin=origin, media=(), annotations=said, payload={}))
            writer.commit(raw_items=len(keys), raw_annotations=share * len(keys))
    merge(storage, name="made", split="train", config={}, config_digest="c0", expected_units=units)
    dataset = open_dataset(folder)
    for shard, entry in enumerate(dataset.manifest):
        keys = list(dataset.index(shard).keys)
        theme = rng.integers(len(themes), size=len(keys))
        texts = [[f"caption {place} of {key}" for place in range(share)] for key in keys]
        seen, read = (_around(themes[places], rng) for places in (theme, np.repeat(theme, share)))
        for column, digest8, values in (
            (EMBEDDING, embedding_digest8(CARD), embedding_table(seen)),
            (CAPTION_EMBEDDING, caption_digest8(CARD), caption_table(texts, read)),
        ):
            write_sidecar(
                storage, column=column, digest8=digest8, shard=entry.name, keys=keys, values=values, card=CARD
            )
    return dataset


def _around(themes: Any, rng: np.random.Generator) -> Halves:
    vectors = themes + SPREAD * rng.standard_normal(themes.shape, np.float32)
    halves: Halves = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return halves


def measure(dataset: Dataset, *, rounds: int, recall: float) -> dict[str, Any]:
    """Compare both searches for some pictures of one shard."""
    plan = NegativePlan(embedder=CARD, dataset=dataset.digest, **PLAN)  # type: ignore[arg-type]
    started = time.process_time()
    card = build_index(dataset, captions=plan.caption_digest8, pictures=plan.picture_digest8)
    built = time.process_time() - started
    index = CaptionIndex(dataset, card)
    keys = dataset.index(0).keys[:ASKED]
    vectors = stored_vectors(dataset, 0, plan.picture_digest8)
    assert vectors is not None
    vectors, whole = vectors[:ASKED], caption_block(dataset, 0, plan.caption_digest8)
    count = int(np.isin(whole.sources, np.asarray(keys, np.object_)).sum())
    own = CaptionBlock(texts=whole.texts[:count], sources=whole.sources[:count], vectors=whole.vectors[:count])
    exact = mine_exactly(dataset, plan, keys, vectors, own)
    breadth = find_breadth(index, keys, vectors, own, exact, rules=plan.rules, wanted=recall)
    ratios, exact_s, nearby_s = [], [], []
    for _ in range(rounds):
        started = time.process_time()
        mine_exactly(dataset, plan, keys, vectors, own)
        middle = time.process_time()
        found = mine_nearby(index, keys, vectors, own, rules=plan.rules, breadth=breadth)
        ended = time.process_time()
        exact_s.append(middle - started)
        nearby_s.append(ended - middle)
        ratios.append(exact_s[-1] / nearby_s[-1])
    return {
        "pictures_asked": len(keys),
        "captions": card.count,
        "library": card.library,
        "cells": card.cells,
        "probes": breadth.probes,
        "candidates": breadth.candidates,
        "recall": round(recall_of(found, exact), 4),
        "exact_cpu_s": spread(exact_s),
        "approximate_cpu_s": spread(nearby_s),
        "exact_to_approximate": spread(ratios),
        "index_made_in_cpu_s": round(built, 1),
    }


def main() -> None:
    """Measure; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="pictures=20000 captions=100000 rounds=3 recall=0.95")
    said = dict(each.split("=", 1) for each in parser.parse_args().settings)
    with tempfile.TemporaryDirectory() as folder:
        world = build_world(
            Path(folder), pictures=int(said.get("pictures", 20_000)), captions=int(said.get("captions", 100_000))
        )
        found = measure(world, rounds=int(said.get("rounds", 3)), recall=float(said.get("recall", 0.95)))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
