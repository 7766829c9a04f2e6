"""One pretraining step against the published code: every intermediate tensor, gradients, and the state after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from model.families.vicha.model import Step, Vicha
from model.families.vicha.published import export_published, import_published, published_names

pytestmark = pytest.mark.golden("vicha/pretrain")


@pytest.fixture
def family(case: Any, vicha_family: Any) -> Vicha:
    """The case's family with the case's weights and queues, in training."""
    family: Vicha = vicha_family(case.config)
    queues = ("image_queue", "text_queue", "queue_ptr")
    report = import_published(family, case.weights() | {name: case.inputs[name] for name in queues})
    absent = {"kw_"} if case.config["keyword_encoder"] is None else set()
    absent |= {"vision_proj_hidden", "text_proj_hidden"} if case.config["hierarchical"] is None else set()
    assert not report.missing
    assert not report.resized
    assert all(name.startswith(tuple(absent)) for name in report.unexpected), report
    assert bool(report.unexpected) == any(name.startswith(tuple(absent)) for name in case.weights() if absent)
    family.train()
    return family


@pytest.fixture
def batch(case: Any, pair_batch: Any) -> Any:
    return pair_batch(case.inputs, concepts=case.config["keyword_encoder"] is not None)


def _alphas(case: Any) -> Iterator[tuple[float, str]]:
    for value in case.inputs["alpha_values"].tolist():
        alpha = round(value, 6)
        yield alpha, f"alpha{alpha}."


def _intermediates(family: Vicha, step: Step, batch: Any, expected: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    student, twin, labelled = step.student, step.twin, batch.masked_positions
    yield "image_embeds", student.seen.top
    yield "text_embeds", student.read.top
    yield "image_feat", student.images
    yield "text_feat", student.texts
    yield "image_embeds_m", twin.seen.top
    yield "image_feat_m", twin.images
    yield "text_feat_m", twin.texts
    yield "sim_i2t", step.contrast.image_similarity
    yield "sim_t2i", step.contrast.text_similarity
    yield "itm_weights_t2i", step.negatives.image_weights
    yield "itm_weights_i2t", step.negatives.text_weights
    yield "itm_logits", step.match_logits
    fused = family.student.fusion(student.read.top, student.read.mask, student.seen.top)
    yield "fusion_pos_hidden", fused
    if student.concepts is not None:
        yield "kw_hidden", student.concepts.hidden
        yield "kw_embeds", student.concepts.tokens
    if any(name.startswith("vit_hidden.") for name in expected):
        for place, layer in enumerate(student.seen.layers):
            yield f"vit_hidden.{place}", family.student.image.norm(layer)
        for place, layer in enumerate(student.read.layers):
            yield f"text_hidden.{place}", layer
    if step.hierarchy is not None:
        for place in range(len(step.hierarchy.layer_losses)):
            yield f"hidden_image_feat.{place}", step.hierarchy.images[place]
            yield f"hidden_text_feat.{place}", step.hierarchy.texts[place]
            yield f"loss_itc_hidden_layer.{place}", step.hierarchy.layer_losses[place]
        yield "loss_itc_hidden", step.hierarchy.loss
    assert step.masked_image is not None
    assert step.visible is not None
    yield "mim_encoder_latent", step.visible
    yield "mim_mask", step.masked_image.mask.hidden
    decoded, fused = step.masked_image.decoded, step.masked_image.fused
    # Whoever rebuilds alone is stored under the plain names; of two, the fusion tower.
    alone = fused or decoded
    assert alone is not None
    yield "mim_pred", alone.predicted
    if decoded is not None and fused is not None:
        yield "mim_pred_uni", decoded.predicted
        yield "loss_mim_uni", decoded.loss
        yield "loss_mim_cross", fused.loss
    yield "mim_target", step.masked_image.target
    # Ours are computed at the labelled positions alone.
    assert step.masked_text is not None
    if "mlm_logits" in expected:
        yield "mlm_logits", _with_labelled(expected["mlm_logits"], labelled, step.masked_text.logits)
    if step.masked_text.twin_logits is not None and "mlm_logits_m" in expected:
        yield "mlm_logits_m", _with_labelled(expected["mlm_logits_m"], labelled, step.masked_text.twin_logits)


def _with_labelled(expected: Tensor, positions: Tensor, found: Tensor) -> Tensor:
    return expected.flatten(0, 1).index_copy(0, positions, found.detach()).view_as(expected)


def _losses(step: Step, expected: dict[str, Tensor], prefix: str) -> Iterator[tuple[str, Tensor]]:
    terms = step.losses.terms
    assert step.masked_text is not None
    yield "loss_i2t", step.contrast.image_loss
    yield "loss_t2i", step.contrast.text_loss
    yield "loss_itc_main", step.contrast.loss
    yield "loss_itc_total", terms["contrast"] + terms.get("hierarchy", torch.zeros(()))
    yield "loss_itm", terms["match"]
    yield "loss_mlm", terms["masked_text"]
    yield "loss_mlm_hard", step.masked_text.hard
    if step.masked_text.soft is not None:
        yield "loss_mlm_soft", step.masked_text.soft
    yield "targets_i2t", step.contrast.image_targets
    yield "targets_t2i", step.contrast.text_targets
    # Published without its weight, which its sum of all losses holds.
    assert step.masked_image is not None
    unweighted = torch.isclose(step.masked_image.loss, expected[f"{prefix}loss_mim"], rtol=1e-4)
    yield "loss_mim", step.masked_image.loss if unweighted else terms["masked_image"]
    yield "loss_total", step.losses.total


def test_every_intermediate_tensor_equals_the_reference(case: Any, family: Vicha, batch: Any, close: Any) -> None:
    alpha, _ = max(_alphas(case))
    step = family.step(batch, soften=alpha)
    seen = set()
    for name, found in _intermediates(family, step, batch, case.expected):
        if name in case.expected:  # some cases store fewer; below, whatever is stored must have been compared
            close(found, case.expected[name], name)
            seen.add(name)
    assert step.masked_image is not None
    assert torch.equal(step.masked_image.mask.keep, case.expected["mim_ids_keep"])
    assert torch.equal(step.masked_image.mask.restore, case.expected["mim_ids_restore"])
    elsewhere = ("alpha", "grad.", "momentum_after.", "queue_after.", "mim_ids_", "none_grad_count")
    assert seen
    assert {name for name in case.expected if not name.startswith(elsewhere)} == seen


def test_losses_equal_the_reference_at_every_alpha(
    case: Any, vicha_family: Any, family: Vicha, batch: Any, close: Any
) -> None:
    start = {name: value.clone() for name, value in family.state_dict().items()}
    for alpha, prefix in _alphas(case):
        family.load_state_dict(start)
        step = family.step(batch, soften=alpha)
        compared = {name for name, found in _losses(step, case.expected, prefix)}
        for name, found in _losses(step, case.expected, prefix):
            close(found, case.expected[prefix + name], prefix + name, atol=1e-6)
        given = {name.removeprefix(prefix) for name in case.expected if name.startswith(prefix)}
        assert given - compared == (set() if alpha > 0 else {"loss_mlm_soft"})


def test_gradients_equal_the_reference(case: Any, family: Vicha, batch: Any, close: Any) -> None:
    family.step(batch, soften=case.config["alpha"]).losses.total.backward()
    released = published_names(family.config)
    norms = case.json("grad_norms.json")
    gradients = {released[name][0]: value.grad for name, value in family.named_parameters() if value.grad is not None}
    trainable = [released[name][0] for name, value in family.named_parameters() if value.requires_grad]
    assert set(gradients) == set(trainable) == set(norms)
    for name, norm in norms.items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-6), name
    for name, expected in case.expected.items():
        if name.startswith("grad."):
            close(gradients[name.removeprefix("grad.")].squeeze(), expected.squeeze(), name)


def test_twin_and_queues_after_the_step_equal_the_reference(case: Any, family: Vicha, batch: Any, close: Any) -> None:
    family.step(batch, soften=case.config["alpha"])
    state = export_published(family)
    checked = 0
    for name, expected in case.expected.items():
        kind, _, published = name.partition(".")
        if kind in ("momentum_after", "queue_after"):
            close(state[published], expected, name, atol=1e-6)
            checked += 1
    assert checked


def test_released_names_survive_a_round_trip(case: Any, family: Vicha) -> None:
    given, exported = case.weights(), export_published(family)
    assert exported.keys() <= given.keys()
    for name, value in exported.items():
        if "queue" not in name:  # the case brings queues of its own
            torch.testing.assert_close(
                value, given[name], rtol=1e-6, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )
