"""Recall against the published evaluation code."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from trainers.recall import Recall, recall, relevance

pytestmark = pytest.mark.filterwarnings("error")


def _published_names(found: Recall) -> dict[str, float]:
    """Our numbers under the names of the reference: `txt` is the best text for an image, `img` the image of a text."""
    named = {f"txt_r{cutoff}": value for cutoff, value in found.image_to_text.items()}
    named |= {f"img_r{cutoff}": value for cutoff, value in found.text_to_image.items()}
    return named | {
        "txt_r_mean": found.image_to_text_mean,
        "img_r_mean": found.text_to_image_mean,
        "r_mean": found.mean,
    }


def _relevant(texts_of_image: dict[str, list[int]], texts: int) -> Tensor:
    return relevance([texts_of_image[str(image)] for image in range(len(texts_of_image))], texts)


@pytest.mark.golden("metrics/retrieval")
def test_recall_equals_the_reference_on_full_and_reranked_scores(case: Any) -> None:
    similarity = case.inputs["similarity_image_by_text"]
    relevant = _relevant(case.json("ids.json")["img2txt"], similarity.shape[1])
    expected = case.json("expected.json")
    matrices = {
        "full_matrix": (similarity, similarity.T),
        "reranked": (case.inputs["reranked_image_to_text"], case.inputs["reranked_text_to_image"]),
    }
    for name, (image_to_text, text_to_image) in matrices.items():
        found = _published_names(recall(image_to_text, text_to_image, relevant))
        assert found == pytest.approx(expected[name], rel=1e-9, abs=1e-9), name


@pytest.mark.golden("vicha/retrieval")
def test_recall_equals_the_reference_on_the_retrieval_case(case: Any) -> None:
    # The model's own matrices hold ties among their fillers; the reference says to compare the random ones strictly.
    image_to_text = case.inputs.get("metric_demo.score_i2t", case.expected.get("metric_demo.score_i2t"))
    text_to_image = case.inputs.get("metric_demo.score_t2i", case.expected.get("metric_demo.score_t2i"))
    images, texts = image_to_text.shape
    share = texts // images  # text t belongs to image t // share
    relevant = relevance([range(image * share, (image + 1) * share) for image in range(images)], texts)
    found = _published_names(recall(image_to_text, text_to_image, relevant))
    assert found == pytest.approx(case.json("metrics.json")["metric_demo"], rel=1e-9, abs=1e-9)
