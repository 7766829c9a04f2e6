"""The family: what learns, what stays, and what a step leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from model.family import Decode, Embed, Match, Progress

SEEDS = list(range(6))
LATER = Progress(step=10, steps_per_epoch=5)
FINE_TUNING = {
    "hierarchy": None,
    "masked_text": None,
    "masked_image": None,
    "contrast": {"queue_size": 8, "targets": "identity", "temperature_range": None},
}


@pytest.fixture
def batch(tiny_processor: Any, pairs: Any) -> Any:
    return tiny_processor()(pairs(), SEEDS)


def test_every_objective_gives_a_gradient_to_all_it_should_and_none_to_the_twin(tiny_family: Any, batch: Any) -> None:
    family = tiny_family().train()
    losses = family(batch, LATER)
    assert set(losses.terms) == {"contrast", "match", "hierarchy", "masked_text", "masked_image"}
    losses.total.backward()
    for name, parameter in family.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == (not name.startswith("twin.")), name


@pytest.mark.parametrize("part", ["hierarchy", "masked_text", "masked_image", "concepts"])
def test_a_part_that_is_null_leaves_nothing_behind(
    tiny_family: Any, tiny_processor: Any, pairs: Any, part: str
) -> None:
    family = tiny_family(**{part: None}).train()
    losses = family(tiny_processor(**{part: None})(pairs(), SEEDS), LATER)
    assert part not in losses.terms
    losses.total.backward()
    unused = [name for name, value in family.named_parameters() if value.requires_grad and value.grad is None]
    assert not unused


def test_losses_fall_on_one_batch(tiny_family: Any, batch: Any) -> None:
    family = tiny_family(hierarchy={"layers": 2, "weight": 1.0}).train()
    batch = replace(batch, image_negatives=torch.arange(6).roll(1), text_negatives=torch.arange(6).roll(2))
    optimizer = torch.optim.AdamW([value for value in family.parameters() if value.requires_grad], lr=1e-2)
    history = []
    for _ in range(40):
        losses = family(batch, Progress())
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.terms.items()})
    for name in history[0]:
        assert history[-1][name] < 0.9 * history[0][name], (name, history[0][name], history[-1][name])


def test_evaluation_changes_no_state(tiny_family: Any, batch: Any) -> None:
    family = tiny_family().eval()
    before = {name: value.clone() for name, value in family.state_dict().items()}
    family(batch, LATER)
    family.predict(batch, Embed())
    family.predict(batch, Match())
    assert all(torch.equal(value, before[name]) for name, value in family.state_dict().items())


def test_a_training_step_moves_the_twin_fills_the_queue_and_clamps_the_temperature(
    tiny_family: Any, batch: Any
) -> None:
    family = tiny_family(contrast={"queue_size": 8, "temperature": 0.9, "temperature_range": (0.001, 0.5)}).train()
    with torch.no_grad():
        family.student.image.class_token.add_(1.0)
    before = family.twin.image.class_token.clone()
    family(batch, LATER)
    torch.testing.assert_close(family.twin.image.class_token, before + 0.005)
    assert family.queue.pointer.item() == 6
    assert family.temperature.item() == 0.5


def test_a_resumed_run_repeats_the_next_step_bit_for_bit(tiny_family: Any, batch: Any) -> None:
    first = tiny_family().train()
    first(batch, LATER)
    second = tiny_family().train()
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    assert torch.equal(first(batch, LATER).total, second(batch, LATER).total)


def test_soft_targets_grow_over_the_first_epoch_only_with_a_ramp(tiny_family: Any, batch: Any) -> None:
    def targets(progress: Progress, **settings: Any) -> torch.Tensor:
        family = tiny_family(contrast={"queue_size": 8, **settings}).eval()
        return family(batch, progress).terms["contrast"]

    start, late = Progress(step=0, steps_per_epoch=10), Progress(step=10, steps_per_epoch=10)
    assert not torch.equal(targets(start), targets(late))
    assert torch.equal(targets(start, ramp="none"), targets(late, ramp="none"))
    assert torch.equal(targets(late, ramp="none"), targets(late))
    assert torch.equal(targets(start, distil=False), targets(late, distil=False))
    assert torch.equal(targets(start, distil=False), targets(start))


def test_bytes_are_normalised_on_the_way_in(tiny_family: Any, batch: Any) -> None:
    family = tiny_family().eval()
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (family.config.pixel_mean, family.config.pixel_std))
    floats = replace(batch, pixels=(batch.pixels / 255 - mean) / std)
    found, expected = family.predict(batch, Embed()), family.predict(floats, Embed())
    torch.testing.assert_close(found.image_features, expected.image_features)


def test_predictions_do_not_depend_on_the_rest_of_the_batch(tiny_family: Any, tiny_processor: Any, pairs: Any) -> None:
    family, processor = tiny_family().eval(), tiny_processor()
    whole = processor(pairs(), SEEDS, train=False)
    part = processor(pairs()[2:3], SEEDS[2:3], train=False)
    torch.testing.assert_close(family.predict(whole, Match())[2:3], family.predict(part, Match()))
    found, alone = family.predict(whole, Embed()), family.predict(part, Embed())
    torch.testing.assert_close(found.image_features[2:3], alone.image_features)
    torch.testing.assert_close(found.text_features[2:3], alone.text_features)
    torch.testing.assert_close(found.image_features.norm(dim=1), torch.ones(6))


def test_one_picture_is_matched_with_many_texts(tiny_family: Any, tiny_processor: Any, pairs: Any) -> None:
    family = tiny_family().eval()
    batch = tiny_processor()(pairs(), SEEDS, train=False)
    found = family.predict(batch, Embed())
    one = found.image_states[:1]
    together = family.match_pairs(one, found.text_states, found.text_mask)
    repeated = family.match_pairs(one.expand(6, -1, -1), found.text_states, found.text_mask)
    torch.testing.assert_close(together, repeated)
    torch.testing.assert_close(together[:1], family.predict(batch, Match())[:1])


def test_both_experts_are_the_match_log_odds_plus_the_contrast_logit(
    tiny_family: Any, tiny_processor: Any, pairs: Any
) -> None:
    family = tiny_family().eval()
    found = family.predict(tiny_processor()(pairs(), SEEDS, train=False), Embed())
    cosine = (found.image_features * found.text_features).sum(dim=1)
    judged = family.judge_pairs(found.image_states, found.text_states, found.text_mask, cosine)
    family.match.weight.data += torch.randn(1, family.match.weight.shape[1])  # moves both logits alike: odds stay
    again = family.judge_pairs(found.image_states, found.text_states, found.text_mask, cosine)
    torch.testing.assert_close(judged, again, rtol=1e-4, atol=1e-4)
    doubled = family.judge_pairs(found.image_states, found.text_states, found.text_mask, 2 * cosine)
    torch.testing.assert_close(doubled - again, cosine / family.temperature.detach(), rtol=1e-4, atol=1e-4)


def test_texts_are_embedded_without_pictures_and_nothing_else_is(
    tiny_family: Any, tiny_processor: Any, pairs: Any
) -> None:
    family, batch = tiny_family().eval(), tiny_processor()(pairs(images=()), SEEDS, train=False)
    found = family.predict(batch, Embed(images=False))
    assert found.image_features is None
    assert found.text_features.shape == (6, 8)
    with pytest.raises(ValueError, match="holds no pictures"):
        family.predict(batch, Embed())
    with pytest.raises(NotImplementedError, match="not Decode"):
        family.predict(batch, Decode())


def test_fine_tuning_never_draws_another_text_of_the_same_picture(
    tiny_family: Any, tiny_processor: Any, pairs: Any
) -> None:
    family = tiny_family(**FINE_TUNING).train()
    identity = torch.tensor([4, 4, 7, 7, 8, 9])
    batch = replace(tiny_processor(**FINE_TUNING)(pairs(), SEEDS), identity=identity)
    for seed in range(20):
        step = family.step(replace(batch, match_noise=torch.rand(6, 2)), soften=0.4)
        assert (identity[step.negatives.images] != identity).all(), seed
        assert (identity[step.negatives.texts] != identity).all(), seed
    assert set(step.losses.terms) == {"contrast", "match"}
    assert set(family.queue.identities[0].tolist()) <= {4, 7, 8, 9}


def test_a_pretrained_family_starts_a_fine_tuned_one_of_another_size(tiny_family: Any, tmp_path: Any) -> None:
    from model.checkpoints import load_weights, save_weights

    pretrained = tiny_family()
    save_weights(pretrained, tmp_path / "w.safetensors")
    tuned = tiny_family(**FINE_TUNING, image_size=24)
    report = load_weights(tuned, tmp_path / "w.safetensors")
    assert report.missing == ("queue.identities",)
    assert report.resized == ("student.image.positions", "twin.image.positions")
    gone = ("hierarchy.", "masked_image.", "student.words.", "twin.words.")
    assert all(name.startswith(gone) for name in report.unexpected)
    assert torch.equal(tuned.student.text_projection.weight, pretrained.student.text_projection.weight)


def test_half_precision_gives_finite_losses_near_the_full_ones(tiny_family: Any, batch: Any) -> None:
    family = tiny_family().eval()
    full = family(batch, LATER)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = family(batch, LATER)
    for name, value in half.terms.items():
        assert value.item() == pytest.approx(full.terms[name].item(), rel=0.1), name
    half.total.backward()


def test_a_batch_without_hidden_words_still_reaches_every_parameter(tiny_family: Any, batch: Any) -> None:
    family = tiny_family().train()
    none = torch.zeros(0, dtype=torch.long)
    losses = family(replace(batch, masked_ids=batch.text_ids, masked_positions=none, masked_targets=none), LATER)
    losses.total.backward()
    assert losses.terms["masked_text"].item() == 0
    assert all(value.grad is not None for value in family.parameters() if value.requires_grad)


def test_decay_spares_vectors_and_biases_only(tiny_family: Any) -> None:
    family = tiny_family()
    decays = {name: family.decays(name, value) for name, value in family.named_parameters()}
    assert decays["temperature"]
    assert decays["student.image.class_token"]
    assert decays["student.image.layers.0.attention.qkv.weight"]
    assert not decays["student.image.norm.weight"]
    assert not decays["student.words.bias"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"hierarchy": {"layers": 3}}, "hierarchy.layers 3 is too many"),
        ({"image_size": 3}, "smaller than one patch"),
        (
            {"image_size": 18},
            "the last 2 rows and columns of any picture; choose image_size 16 or 20, or say border=ignore",
        ),
        ({"masked_image": {"decoder_width": 6, "decoder_heads": 2}}, "divisible by 4"),
        ({"masked_image": {"decoder_width": 8, "decoder_heads": 2, "mask_ratio": 0.99}}, "leaves no patch"),
        ({"cleaning": {"max_tokens": 40}}, "40 tokens do not fit"),
        ({"vision": {"width": 10, "heads": 4}}, "divisible by their number of heads"),
        ({"text": {"layers": 2, "fusion_layer": 2}}, "leaves no fusion layer"),
    ],
)
def test_configs_that_cannot_work_are_refused(tiny_config: Any, parts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**parts)
