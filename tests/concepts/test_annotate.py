from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from concepts.annotate import BANK_FILE, VOCABULARY_FILE, ConceptAnnotator, ConceptPlan
from concepts.bank import bank_digest, make_bank, write_bank
from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.nouns import ShardUnit
from concepts.picture_column import embedding_table, picture_problems, pictures_of, stored_vectors
from concepts.vocabulary import Vocabulary
from shards.errors import DatasetError
from shards.index import encode_parquet
from shards.reader import Dataset
from shards.records import Media, Origin, Record
from shards.sidecar import open_sidecar

VOCABULARY = Vocabulary(phrases=("dog", "house", "boat", "tree", "ball", "sky"), counts=(6, 5, 4, 3, 2, 1))


def planned(dataset: Dataset, embedder: ClipEmbedder, *, top_k: int = 3) -> ConceptPlan:
    plan = ConceptPlan(
        embedder=embedder.card,
        vocabulary=VOCABULARY.digest,
        bank=bank_digest(VOCABULARY, embedder),
        phrases=len(VOCABULARY),
        top_k=top_k,
    )
    dataset.storage.create(f"{plan.folder}/{VOCABULARY_FILE}", VOCABULARY.to_bytes())
    write_bank(dataset.storage, f"{plan.folder}/{BANK_FILE}", make_bank(VOCABULARY, embedder))
    return plan


def sidecar_files(dataset: Dataset) -> Mapping[str, bytes]:
    root = Path(dataset.path) / "sidecars"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def embedder(tiny_clip: Callable[..., dict[str, Any]]) -> ClipEmbedder:
    return ClipEmbedder(EmbedderConfig(**tiny_clip(), batch_size=2))


def test_each_picture_gets_its_nearest_concepts_best_first(
    captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder
) -> None:
    dataset = captioned_dataset()
    plan = planned(dataset, embedder)
    annotator = ConceptAnnotator(embedder.config, plan, embedder=embedder)
    for shard in range(3):
        assert annotator(ShardUnit(dataset.path, shard)).embedded == 7
    concepts = open_sidecar(dataset, "concepts")
    vectors = open_sidecar(dataset, "image_embedding")
    assert concepts.is_complete
    assert vectors.is_complete
    words = embedder.texts(VOCABULARY.phrases)
    for record in dataset.records(2):
        row = concepts.row(2, record.key)
        stored = vectors.row(2, record.key)["embedding"]
        assert stored.dtype == np.float16
        np.testing.assert_allclose(stored, embedder.images([record.payload["jpg"]])[0], atol=1e-3)
        scores = words @ stored.astype(np.float32)
        assert row["phrases"] == [VOCABULARY.phrases[place] for place in np.argsort(-scores)[:3]]
        np.testing.assert_allclose(row["scores"], np.sort(scores)[::-1][:3], atol=2e-3)


def test_another_k_reuses_the_embeddings(captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder) -> None:
    dataset = captioned_dataset()
    first, second = planned(dataset, embedder), planned(dataset, embedder, top_k=5)
    assert first.embedding_digest8 == second.embedding_digest8
    assert first.concepts_digest8 != second.concepts_digest8
    ConceptAnnotator(embedder.config, first, embedder=embedder)(ShardUnit(dataset.path, 0))
    done = ConceptAnnotator(embedder.config, second)(ShardUnit(dataset.path, 0))
    assert (done.pictures, done.embedded, done.unreported) == (7, 0, 7)
    rows = [open_sidecar(dataset, f"concepts-{plan.concepts_digest8}").row(0, "made-003") for plan in (first, second)]
    assert rows[1]["phrases"][:3] == rows[0]["phrases"]


def test_a_worker_that_loads_the_model_itself_writes_the_same_bytes(
    captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder
) -> None:
    here, there = captioned_dataset("here"), captioned_dataset("there")
    told: list[int] = []
    inline = ConceptAnnotator(embedder.config, planned(here, embedder), embedder=embedder, on_pictures=told.append)
    remote = pickle.loads(pickle.dumps(ConceptAnnotator(embedder.config, planned(there, embedder), embedder=embedder)))
    for shard in (2, 0, 1):
        assert inline(ShardUnit(here.path, shard)).unreported == 0
        assert remote.begin()(ShardUnit(there.path, shard)).unreported == 7
    assert sum(told) == 21
    renamed = {name.replace("there-", "here-"): data for name, data in sidecar_files(there).items()}
    assert renamed.keys() == sidecar_files(here).keys()
    bank = next(name for name in renamed if name.endswith(BANK_FILE))
    assert renamed[bank] == sidecar_files(here)[bank]
    for name in ("image_embedding", "concepts"):
        ours, theirs = (open_sidecar(dataset, name).table(1).drop_columns("key") for dataset in (here, there))
        assert ours.equals(theirs)


def test_running_again_changes_nothing(captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder) -> None:
    dataset = captioned_dataset()
    annotator = ConceptAnnotator(embedder.config, planned(dataset, embedder), embedder=embedder)
    annotator(ShardUnit(dataset.path, 1))
    before = sidecar_files(dataset)
    assert annotator(ShardUnit(dataset.path, 1)).embedded == 0
    assert sidecar_files(dataset) == before


def test_a_worker_with_other_weights_stops(
    captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder, tiny_clip: Callable[..., dict[str, Any]]
) -> None:
    dataset = captioned_dataset()
    annotator = ConceptAnnotator(EmbedderConfig(**tiny_clip(seed=1)), planned(dataset, embedder))
    with pytest.raises(DatasetError, match="loaded other weights"):
        annotator(ShardUnit(dataset.path, 0))


def test_the_plan_names_everything_that_decides_the_concepts() -> None:
    plan = ConceptPlan(embedder={"weights": "a"}, vocabulary="v", bank="b", phrases=3, top_k=2)
    names = {plan.concepts_digest8} | {
        replace(plan, **change).concepts_digest8
        for change in ({"embedder": {"weights": "c"}}, {"vocabulary": "w"}, {"bank": "c"}, {"top_k": 3})
    }
    assert len(names) == 5


def test_records_without_a_picture_or_with_three_are_refused_by_key() -> None:
    for count in (0, 3):
        media = tuple(Media(member=f"{number}.jpg", kind="image") for number in range(count))
        record = Record(key="odd", origin=Origin(dataset="d", split="s", id="1"), media=media, annotations=())
        with pytest.raises(DatasetError, match=f"record 'odd' has {count} pictures"):
            pictures_of(record, where="dataset")


def test_each_picture_of_a_pair_has_its_own_embedding_and_concepts(
    captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    singles, pairs = captioned_dataset("singles", shards=1), captioned_dataset("pairs", shards=1)
    others = [record.payload["jpg"] for record in singles.records(0)][::-1]
    plans = [planned(dataset, embedder) for dataset in (singles, pairs)]
    alone = ConceptAnnotator(embedder.config, plans[0], embedder=embedder)
    assert alone(ShardUnit(singles.path, 0)).embedded == 7
    monkeypatch.setattr(
        "concepts.picture_column.pictures_of",
        lambda record, where: (record.payload["jpg"], others[int(record.key[-3:])]),
    )
    both = ConceptAnnotator(embedder.config, plans[1], embedder=embedder)
    assert both(ShardUnit(pairs.path, 0)).embedded == 14
    single, paired = (open_sidecar(dataset, "concepts").table(0) for dataset in (singles, pairs))
    assert paired["phrases"].to_pylist() == single["phrases"].to_pylist()
    assert paired["second_phrases"].to_pylist() == single["phrases"].to_pylist()[::-1]
    again = both.embed(pairs, 0)
    assert again.fresh == 0
    assert again.second is not None
    np.testing.assert_allclose(again.second, again.first[::-1], atol=1e-3)
    with pytest.raises(DatasetError, match="two pictures each"):
        both.vectors(pairs, 0)


def test_a_picture_that_cannot_be_decoded_has_a_null_a_reason_and_no_concept(
    captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = captioned_dataset()
    broken = {"made-002", "made-005"}
    monkeypatch.setattr(
        "concepts.picture_column.pictures_of",
        lambda record, where: (b"",) if record.key in broken else pictures_of(record, where=where),
    )
    plan = planned(dataset, embedder)
    done = ConceptAnnotator(embedder.config, plan, embedder=embedder)(ShardUnit(dataset.path, 0))
    assert set(done.problems) == broken
    assert picture_problems(dataset, plan.embedding_digest8) == done.problems
    vectors = stored_vectors(dataset, 0, plan.embedding_digest8)
    assert vectors is not None
    assert np.isnan(vectors).all(axis=1).tolist() == [number in (2, 5) for number in range(7)]
    embeddings, concepts = open_sidecar(dataset, "image_embedding"), open_sidecar(dataset, "concepts")
    for number in range(7):
        key = f"made-{number:03d}"
        assert (embeddings.row(0, key)["embedding"] is None) == (key in broken)
        assert len(concepts.row(0, key)["phrases"]) == (0 if key in broken else 3)


def test_embeddings_of_another_dataset_are_refused(
    captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder
) -> None:
    here, there = captioned_dataset("here"), captioned_dataset("there", first=100)
    plan = planned(here, embedder)
    ConceptAnnotator(embedder.config, plan, embedder=embedder)(ShardUnit(here.path, 0))
    folder = f"sidecars/image_embedding-{plan.embedding_digest8}"
    parquet = here.storage.read(f"{folder}/{here.manifest[0].name}.parquet")
    there.storage.create(f"{folder}/column.json", here.storage.read(f"{folder}/column.json"))
    there.storage.create(f"{folder}/{there.manifest[0].name}.parquet", parquet)
    with pytest.raises(DatasetError, match="holds other records"):
        stored_vectors(there, 0, plan.embedding_digest8)


def test_an_embedding_takes_little_more_than_its_halves() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2000, 512)).astype(np.float16)
    values = embedding_table(vectors)
    keys = [f"coco_captions-train-{number:012d}" for number in range(2000)]
    table = values.add_column(0, "key", pa.array(keys))
    assert len(encode_parquet(table)) / 2000 < 1100


def test_a_vocabulary_that_is_not_the_plans_is_refused(
    captioned_dataset: Callable[..., Dataset], embedder: ClipEmbedder
) -> None:
    dataset = captioned_dataset()
    plan = planned(dataset, embedder)
    other = Vocabulary(phrases=("cat", *VOCABULARY.phrases[1:]), counts=VOCABULARY.counts)
    dataset.storage.replace(f"{plan.folder}/{VOCABULARY_FILE}", other.to_bytes())
    with pytest.raises(DatasetError, match="is another vocabulary"):
        ConceptAnnotator(embedder.config, plan, embedder=embedder)(ShardUnit(dataset.path, 0))
