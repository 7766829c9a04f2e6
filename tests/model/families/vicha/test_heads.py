"""The fine-tuned models: what they inherit, when they have a twin, and which configs are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from model.checkpoints import load_earlier_weights, save_weights
from model.families.vicha import build, build_processor
from model.families.vicha.compare import TRUTH
from model.families.vicha.published import export_published, import_published
from model.family import Embed, Progress, Rank
from model.tokenizer import SPECIALS, WordPiece
from tests.model.families.vicha.conftest import HEADS, WORDS, head_examples

WIDE = {"vision": {"width": 12, "depth": 3, "heads": 2, "mlp_ratio": 2}}  # as wide as texts: decoders inherit all


@pytest.fixture
def config(tiny_config: Any) -> Any:
    """A tiny config with a head."""

    def make(kind: str, **parts: Any) -> Any:
        off = dict.fromkeys(("hierarchy", "masked_text", "masked_image"))
        return tiny_config(head=HEADS[kind], contrast={}, **off | parts)

    return make


def _batch(config: Any, kind: str, *, train: bool = True) -> Any:
    processor = build_processor(config, WordPiece([*SPECIALS, *WORDS]))
    return processor(head_examples(kind), [1, 2, 3, 4], train=train)


@pytest.mark.parametrize("kind", HEADS)
def test_gradient_reaches_every_trainable_parameter_and_the_loss_of_one_batch_falls(config: Any, kind: str) -> None:
    torch.manual_seed(0)
    family, batch = build(config(kind)).train(), _batch(config(kind), kind)
    optimizer = torch.optim.AdamW([each for each in family.parameters() if each.requires_grad], lr=3e-3)
    losses = []
    for step in range(12):
        optimizer.zero_grad()
        loss = family(batch, Progress(step=step, steps_per_epoch=4)).total
        loss.backward()
        reached = {name for name, each in family.named_parameters() if each.grad is not None}
        assert reached == {name for name, each in family.named_parameters() if each.requires_grad}
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["answers", "classes", "compare"])
def test_without_soft_targets_there_is_no_twin_at_all(tiny_config: Any, kind: str) -> None:
    off = dict.fromkeys(("hierarchy", "masked_text", "masked_image"))
    config = tiny_config(head=HEADS[kind] | {"distil": None}, contrast={}, **off)
    family = build(config).train()
    assert not any(name.startswith("twin.") for name in family.state_dict())
    assert family(_batch(config, kind), Progress(step=9)).total.isfinite()


@pytest.mark.parametrize("kind", HEADS)
def test_released_names_survive_a_round_trip(config: Any, kind: str) -> None:
    torch.manual_seed(0)
    first, second = build(config(kind)), build(config(kind))
    exported = export_published(first)  # type: ignore[arg-type]
    report = import_published(second, exported)  # type: ignore[arg-type]
    assert not report.missing
    assert not report.unexpected
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name


def test_a_decoder_starts_as_the_fusion_tower_with_the_text_embeddings_and_the_head_of_masked_words(
    tiny_family: Any, config: Any, tmp_path: Any
) -> None:
    pretrained = tiny_family(**WIDE)
    save_weights(pretrained, tmp_path / "weights.safetensors")
    family = build(config("answers", **WIDE))
    report = load_earlier_weights(family, tmp_path / "weights.safetensors")
    assert not report.missing
    state, origin = family.state_dict(), pretrained.state_dict()
    for side in ("student", "twin"):
        for ours, theirs in {
            "decoder.layers.0.cross_attention.key.weight": "fusion.layers.0.cross_attention.key.weight",
            "decoder.embedding.words.weight": "text.embedding.words.weight",
            "decoder.words.dense.weight": "words.dense.weight",
            "fusion.layers.0.mlp.up.weight": "fusion.layers.0.mlp.up.weight",
        }.items():
            assert torch.equal(state[f"{side}.{ours}"], origin[f"{side}.{theirs}"])


def test_own_weights_come_back_under_their_own_names(config: Any, tmp_path: Any) -> None:
    for kind in HEADS:
        torch.manual_seed(2)
        first, second = build(config(kind)), build(config(kind))
        save_weights(first, tmp_path / f"{kind}.safetensors")
        report = load_earlier_weights(second, tmp_path / f"{kind}.safetensors")
        assert not report.missing
        assert not report.unexpected
        assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_two_pictures_inherit_each_fusion_layer_twice_and_the_teacher_knows_what_the_student_learned(
    tiny_family: Any, config: Any, tmp_path: Any
) -> None:
    pretrained = tiny_family()
    save_weights(pretrained, tmp_path / "pretrained.safetensors")
    assigned = build(config("assign"))
    report = load_earlier_weights(assigned, tmp_path / "pretrained.safetensors")
    assert set(report.missing) == {"student.head.weight", "student.head.bias"}
    query = "fusion.layers.{}.attention.query.weight"
    for place in (0, 1):
        expected = pretrained.state_dict()["student." + query.format(0)]
        assert torch.equal(assigned.state_dict()["student." + query.format(place)], expected)
    with torch.no_grad():
        assigned.get_parameter("student." + query.format(1)).add_(1.0)
    save_weights(assigned, tmp_path / "assigned.safetensors")
    compared = build(config("compare"))
    report = load_earlier_weights(compared, tmp_path / "assigned.safetensors")
    assert all(".head." in name for name in report.missing)
    for side in ("student", "twin"):
        for place in (0, 1):
            expected = assigned.state_dict()["student." + query.format(place)]
            assert torch.equal(compared.state_dict()[f"{side}." + query.format(place)], expected)


def test_each_picture_of_a_statement_sees_the_padding_of_its_own_concepts_alone(config: Any) -> None:
    torch.manual_seed(0)
    family, batch = build(config("compare")).eval(), _batch(config("compare"), "compare", train=False)
    longer = (0, 3)  # three more tokens of padding, for the second picture only
    padded = replace(
        batch,
        second_concept_ids=torch.nn.functional.pad(batch.second_concept_ids, longer),
        second_concept_mask=torch.nn.functional.pad(batch.second_concept_mask, longer),
    )
    first, second = (family.side(family.student, each).seen for each in (batch, padded))  # type: ignore[operator]
    torch.testing.assert_close(first[0], second[0])
    assert second[1].shape[1] == first[1].shape[1] + 3


def test_the_first_candidates_are_chosen_by_their_first_token_and_all_are_ranked_when_all_are_kept(config: Any) -> None:
    torch.manual_seed(0)
    settings = config("answers")
    family, processor = build(settings).eval(), build_processor(settings, WordPiece([*SPECIALS, *WORDS]))
    batch = processor(head_examples("answers"), [0] * 4, train=False)
    answers = ("red", "red ball", "green cube", "sand")
    everything = family.predict(batch, processor.request(Rank(candidates=answers, keep=9)))  # type: ignore[attr-defined]
    assert everything.places.sort(dim=1).values.tolist() == [[0, 1, 2, 3]] * 4
    torch.testing.assert_close(everything.scores.sum(1), torch.ones(4))
    assert torch.equal(everything.scores, everything.scores.sort(dim=1, descending=True).values)
    with pytest.raises(ValueError, match="let the processor's `request` cut them"):
        family.predict(batch, Rank(candidates=answers))


def test_other_classes_and_other_requests_are_refused(config: Any) -> None:
    family, batch = build(config("classes")).eval(), _batch(config("classes"), "classes", train=False)
    with pytest.raises(ValueError, match="asked for, and this model tells apart"):
        family.predict(batch, Rank(candidates=TRUTH))
    with pytest.raises(NotImplementedError, match="answers Rank, not Embed"):
        family.predict(batch, Embed())


def test_a_head_turns_the_objectives_on_pairs_off_and_refuses_them_by_name(tiny_config: Any) -> None:
    plain = {"head": HEADS["compare"], "contrast": {}, "hierarchy": None, "masked_text": None, "masked_image": None}
    assert tiny_config(**plain).masked_text is None
    with pytest.raises(ValueError, match="hierarchy and contrast would have no effect"):
        tiny_config(**plain | {"hierarchy": {"layers": 1}, "contrast": {"queue_size": 8}})
    with pytest.raises(ValueError, match=r"vision.width 16 must equal text.width 12"):
        tiny_config(masked_image={"mode": "cross_modal"})
    with pytest.raises(ValueError, match="one mask token for both"):
        tiny_config(masked_image={"mode": "uni_cross_modal", "decoder_width": 8, "decoder_heads": 2}, **WIDE)
