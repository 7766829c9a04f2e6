"""Grad-CAM maps and the choice among proposed boxes against the published code, with and without concepts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha.grounding import contrast_maps, enlarge, match_attention, match_maps, rank_boxes
from model.families.vicha.model import Vicha
from model.families.vicha.published import import_published
from trainers.metrics.referring import found_by_split, intersection_over_union

pytestmark = pytest.mark.golden("vicha/grounding")

each_variant = pytest.mark.parametrize("concepts", [True, False], ids=["concepts", "plain"])


@pytest.fixture
def family(case: Any, concepts: bool, vicha_family: Any) -> Vicha:
    # The case borrows another one's weights, and with them all that its own config leaves out.
    owner = case.sibling(case.config["weights_case"])
    family: Vicha = vicha_family(owner.config | case.config, **({} if concepts else {"concepts": None}))
    report = import_published(family, case.weights())
    assert all(name.startswith("queue.") for name in report.missing)
    family.eval()
    return family


@pytest.fixture
def batch(case: Any, concepts: bool, pair_batch: Any) -> Any:
    return pair_batch(case.inputs, concepts=concepts)


@each_variant
def test_maps_by_the_match_logit_equal_the_reference(
    case: Any, concepts: bool, family: Vicha, batch: Any, close: Any
) -> None:
    name = "gradcam_itm" if concepts else "noconcept.gradcam_itm"
    close(match_maps(family, batch, layer=case.config["block_num_itm"]), case.expected[name], name, atol=1e-6)


@each_variant
def test_maps_by_similarity_equal_the_reference(
    case: Any, concepts: bool, family: Vicha, batch: Any, close: Any
) -> None:
    name = "gradcam_itc" if concepts else "noconcept.gradcam_itc"
    close(contrast_maps(family, batch, layer=case.config["block_num_itc"]), case.expected[name], name, atol=1e-6)


@pytest.mark.parametrize("concepts", [True], ids=["concepts"])
def test_attention_and_its_gradient_equal_the_reference(
    case: Any, concepts: bool, family: Vicha, batch: Any, close: Any
) -> None:
    found = match_attention(family, batch, layer=case.config["block_num_itm"])
    close(found.weights, case.expected["cross_attention"], "cross_attention", atol=1e-6)
    close(found.gradient, case.expected["cross_attention_grad"], "cross_attention_grad", atol=1e-6)


def test_boxes_are_scored_and_chosen_as_in_the_reference(case: Any) -> None:
    ranking, maps = case.json("box_ranking.json"), case.inputs["box_ranking_maps"]
    overlaps: list[tuple[str, float]] = []
    for place, (relevance, (_, expression)) in enumerate(zip(maps, ranking["refs"].items(), strict=True)):
        image = str(expression["image_id"])
        size, boxes = ranking["images"][image], ranking["detections_xywh"][image]
        found = rank_boxes(enlarge(relevance[None], height=size["height"], width=size["width"])[0], boxes)
        torch.testing.assert_close(found.scores, torch.tensor(ranking["box_scores"][place]), rtol=1e-4, atol=1e-6)
        assert found.best is not None
        assert boxes[found.best] == ranking["selected_box"][place]
        truth = expression["bbox_xywh"]
        overlap = intersection_over_union(truth, boxes[found.best], convention="inclusive_pixels")
        assert overlap == pytest.approx(ranking["iou"][place], rel=1e-6)
        overlaps.append((expression["split"], overlap))
    shares = {f"{split}_d": value / 100 for split, value in found_by_split(overlaps).items() if split != "all"}
    assert shares == pytest.approx(ranking["accuracy"])
