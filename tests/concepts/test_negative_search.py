"""Hard captions by an index: what it finds beside the exact search, how that is measured, and what its files are held to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concepts.annotate import EMBEDDING, embedding_digest8, stored_vectors
from concepts.caption_column import CAPTION_EMBEDDING, CaptionBlock, caption_block, caption_digest8, caption_table
from concepts.caption_index import CaptionIndex, build_index, find_index, load_faiss
from concepts.negative_column import NegativeMiner, NegativePlan, mine_exactly, with_search
from concepts.negative_search import Breadth, find_breadth, mine_nearby, recall_of
from concepts.negatives import Negative
from concepts.nouns import ShardUnit
from concepts.picture_column import embedding_table
from shards.errors import DatasetError, MissingLibraryError
from shards.reader import Dataset
from shards.records import Caption
from shards.sidecar import open_sidecar, write_sidecar

WIDTH = 24
CARD = {"model": "made", "weights": "w"}


def unit(vectors: Any) -> Any:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def embedded(captioned_dataset: Callable[..., Dataset]) -> Dataset:
    """Pictures and captions with embeddings that scatter around a few themes, among them a picture without an embedding."""
    dataset = captioned_dataset(shards=4, records=50)
    rng = np.random.default_rng(0)
    themes = rng.normal(size=(9, WIDTH))
    for shard in range(4):
        records = list(dataset.records(shard, payload=False))
        theme = rng.integers(9, size=len(records))
        pictures = unit(themes[theme] + 0.8 * rng.normal(size=(len(records), WIDTH)))
        if shard == 1:
            pictures[3] = np.nan
        texts = [[item.text for item in each.annotations if isinstance(item, Caption)] for each in records]
        # Every caption a wording of its own, so that none counts for another.
        texts = [[f"{text} {record.key}" for text in row] for row, record in zip(texts, records, strict=True)]
        owners = np.repeat(theme, [len(row) for row in texts])
        captions = unit(themes[owners] + 0.8 * rng.normal(size=(len(owners), WIDTH)))
        name, keys = dataset.manifest[shard].name, [each.key for each in records]
        for column, digest8, values in (
            (EMBEDDING, embedding_digest8(CARD), embedding_table(pictures)),
            (CAPTION_EMBEDDING, caption_digest8(CARD), caption_table(texts, captions)),
        ):
            card = {"embedder": CARD}
            write_sidecar(
                dataset.storage, column=column, digest8=digest8, shard=name, keys=keys, values=values, card=card
            )
    return dataset


def plan_for(dataset: Dataset, *, top_k: int = 6) -> NegativePlan:
    return NegativePlan(embedder=CARD, dataset=dataset.digest, top_k=top_k, guard_cosine=0.9, guard_picture=0.9)


def everything(dataset: Dataset, plan: NegativePlan) -> tuple[Any, Any, Any]:
    blocks = [caption_block(dataset, shard, plan.caption_digest8) for shard in range(4)]
    own = CaptionBlock(
        texts=[text for block in blocks for text in block.texts],
        sources=np.concatenate([block.sources for block in blocks]),
        vectors=np.concatenate([block.vectors for block in blocks]),
    )
    parts = [stored_vectors(dataset, shard, plan.picture_digest8) for shard in range(4)]
    vectors = np.concatenate([part for part in parts if part is not None])
    return [key for shard in range(4) for key in dataset.index(shard).keys], vectors, own


def test_a_search_of_all_cells_and_many_candidates_is_the_exact_one(embedded: Dataset) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    plan = plan_for(embedded)
    keys, vectors, own = everything(embedded, plan)
    card = build_index(embedded, captions=plan.caption_digest8, pictures=plan.picture_digest8)
    assert card.count == 600
    assert card.cells > 8
    index = CaptionIndex(embedded, card)
    wide = Breadth(probes=card.cells, candidates=card.count)
    exact = mine_exactly(embedded, plan, keys, vectors, own)
    assert mine_nearby(index, keys, vectors, own, rules=plan.rules, breadth=wide) == exact
    assert sum(map(len, exact)) == 6 * (len(keys) - 1)  # all but the picture without an embedding


def test_what_the_index_gives_back_are_the_very_captions(embedded: Dataset) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    plan = plan_for(embedded)
    keys, vectors, own = everything(embedded, plan)
    index = CaptionIndex(embedded, build_index(embedded, captions=plan.caption_digest8, pictures=plan.picture_digest8))
    places = np.asarray([0, 149, 150, 333, 599])
    block = index.block(places)
    assert block.texts == [own.texts[place] for place in places]
    assert block.sources.tolist() == own.sources[places].tolist()
    np.testing.assert_array_equal(block.vectors, own.vectors[places])
    at = [keys.index(source) for source in block.sources]
    np.testing.assert_array_equal(block.pictures, vectors[at])


def test_the_search_looks_farther_until_enough_is_found_and_says_how_much_that_is(embedded: Dataset) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    plan = plan_for(embedded, top_k=2)
    keys, vectors, own = everything(embedded, plan)
    index = CaptionIndex(embedded, build_index(embedded, captions=plan.caption_digest8, pictures=plan.picture_digest8))
    exact = mine_exactly(embedded, plan, keys, vectors, own)
    # One picture at a time, so that no candidate of another helps.
    narrow = Breadth(probes=1, candidates=2)
    one_by_one = [
        row
        for place, key in enumerate(keys)
        for row in mine_nearby(index, [key], vectors[place : place + 1], own, rules=plan.rules, breadth=narrow)
    ]
    assert 0 < recall_of(one_by_one, exact) < 0.9
    breadths = [
        find_breadth(index, keys, vectors, own, exact, rules=plan.rules, wanted=wanted) for wanted in (0.01, 1.0)
    ]
    assert breadths[0].probes <= breadths[1].probes
    assert breadths[1].sampled == len(keys)
    for breadth in breadths:
        found = mine_nearby(index, keys, vectors, own, rules=plan.rules, breadth=breadth)
        assert breadth.recall == pytest.approx(recall_of(found, exact), abs=1e-4)
    assert breadths[1].recall == 1.0


def test_recall_counts_wordings() -> None:
    def said(*texts: str) -> list[Negative]:
        return [Negative(text=text, score=0.5, source="s") for text in texts]

    exact = [said("A dog.", "A cat."), said("A boat."), []]
    assert recall_of([said("a dog"), said("A boat."), said("more")], exact) == pytest.approx(2 / 3)
    assert recall_of([[], []], [[], []]) == 1.0


def test_two_builds_are_equal_and_a_finished_one_is_found(embedded: Dataset) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    plan = plan_for(embedded)
    named = {"captions": plan.caption_digest8, "pictures": plan.picture_digest8}
    assert find_index(embedded.storage, dataset=embedded.digest, **named) is None
    card = build_index(embedded, **named)
    folder = Path(embedded.path) / card.folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert find_index(embedded.storage, dataset=embedded.digest, **named) == card
    (folder / "index.json").unlink()  # as a run leaves it that is cut off
    assert find_index(embedded.storage, dataset=embedded.digest, **named) is None
    build_index(embedded, **named)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_column_tells_of_its_search_and_another_run_measures_nothing_again(
    embedded: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    plan = with_search(embedded, plan_for(embedded), recall=0.9, sample=40)
    assert plan.breadth is not None
    assert plan.breadth.recall >= 0.9
    assert 40 <= plan.breadth.sampled <= 50
    NegativeMiner(plan)(ShardUnit(embedded.path, 1))
    column = open_sidecar(embedded, f"negatives-{plan.negatives_digest8}")
    assert column.card["search"]["recall"] == plan.breadth.recall
    assert column.card["search"]["library"].startswith("faiss-")
    assert [len(row) for row in column.table(1)["captions"].to_pylist()].count(6) == 49
    assert plan.negatives_digest8 != plan_for(embedded).negatives_digest8
    monkeypatch.setattr("concepts.negative_column.mine_exactly", None)
    assert with_search(embedded, plan_for(embedded), recall=0.9, sample=40) == plan


def test_damaged_files_of_an_index_are_a_sentence(embedded: Dataset) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed (extra `search`)")
    plan = plan_for(embedded)
    card = build_index(embedded, captions=plan.caption_digest8, pictures=plan.picture_digest8)
    with pytest.raises(DatasetError, match="600 captions, 600 lie beside it and 7 by its card"):
        CaptionIndex(embedded, replace(card, count=7))
    for name in ("captions.faiss", "captions.arrow"):
        file = Path(embedded.path) / card.folder / name
        whole = file.read_bytes()
        file.write_bytes(whole[:40])
        with pytest.raises(DatasetError, match=r"is damaged .*; remove it and run `negatives` again"):
            CaptionIndex(embedded, card)
        file.write_bytes(whole)
    CaptionIndex(embedded, card)
    (Path(embedded.path) / card.folder / "index.json").write_text("[")
    with pytest.raises(DatasetError, match=r"index\.json is damaged .*; remove the folder"):
        find_index(embedded.storage, dataset=embedded.digest, captions=card.captions, pictures=card.pictures)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingLibraryError, match=r"ostraka\[search\], or say search=exact"):
        load_faiss()
