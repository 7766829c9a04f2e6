"""Visual concepts against the published scripts: the vocabulary, the nearest concepts, and what is drawn of them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from concepts.select import top_cosine
from concepts.vocabulary import Vocabulary, VocabularyConfig, build_vocabulary, count_phrases
from model.families.vicha import Config
from model.families.vicha.processor import VichaProcessor
from model.tokenizer import SPECIALS, WordPiece

pytestmark = pytest.mark.golden("vicha/visual_concepts")


def _vectors(embeddings: dict[str, Any]) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Names and (N, D) vectors of a file that holds each as a list of one row."""
    return list(embeddings), np.array([rows[0] for rows in embeddings.values()], np.float32)


def _vocabulary(case: Any, **rule: Any) -> Vocabulary:
    content = case.json("expected.json")
    heads = (content["noun_heads"][row["caption"]] for row in content["captions"])
    counts = count_phrases([head.lower() for head in found] for found in heads)
    # As published: the counter starts at 0, plurals are words of their own, no noun is left out.
    return build_vocabulary(
        counts, VocabularyConfig(count_from_zero=True, fold_plurals=False, stop=(), **({"min_count": 0} | rule))
    )


def test_the_vocabulary_is_cut_and_ordered_as_published(case: Any) -> None:
    expected = case.json("expected.json")["expected"]["vocabulary"]
    assert expected
    for rule, wanted in expected.items():
        name, _, number = rule.rpartition("_")
        match name:
            case "thresh":  # more than so many by the counter
                assert list(_vocabulary(case, min_count=int(number) + 1).phrases) == wanted
            case "max_num_keys":
                assert list(_vocabulary(case, cap=int(number)).phrases) == wanted
            case _:
                found = _vocabulary(case)
                assert list(zip(found.phrases, found.counts, strict=True)) == list(wanted.items())


def test_the_nearest_concepts_of_a_picture_are_the_published_ones(case: Any) -> None:
    content = case.json("expected.json")
    phrases, bank = _vectors(content["concept_embeddings"])
    pictures, vectors = _vectors(content["image_embeddings"])
    checked = 0
    for name, rows in content["expected"].items():
        kind, top, count = name.partition("_top")
        if not (top or kind.startswith("top")):
            continue
        kept = int(count or kind.removeprefix("top").partition("_")[0])
        found = top_cosine(vectors, bank, top_k=kept).indices
        nearest = {picture: [phrases[place] for place in row] for picture, row in zip(pictures, found, strict=True)}
        checked += len(rows)
        for row in rows:
            if "images" in row:
                assert [row["kwords1"], row["kwords2"]] == [nearest[picture] for picture in row["images"]]
            else:
                assert row["kwords"] == nearest[row["image"]]
    assert checked


def test_concepts_are_drawn_with_replacement_and_joined_as_published(case: Any) -> None:
    for row in case.json("expected.json")["expected"]["random_concepts"]:
        words = [f"k{place}" for place in range(row["num_concepts"])]
        count = int(row["randkw_p"] * row["num_concepts"])
        assert count == row["drawn_count"]
        # The published draw takes one uniform number per concept from Python's generator; so does ours from its own.
        rng = random.Random(row["python_seed"])
        drawn = np.array([rng.random() for _ in range(count)])
        tokenizer = WordPiece([*SPECIALS, *words])
        for separator, joined in (("space", row["joined"]), ("sep", row["joined_sep"])):
            config = Config.model_validate(
                {
                    "text": {"vocab_size": len(tokenizer)},
                    "concepts": {"draw": max(1, count), "separator": separator},
                }
            )
            ids, mask = VichaProcessor(config, tokenizer).concepts([words], [drawn])
            assert ids is not None
            assert mask is not None
            assert ids[mask].tolist() == tokenizer.encode(joined)
