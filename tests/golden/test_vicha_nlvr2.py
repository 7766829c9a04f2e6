"""Two pictures against the published code: the comparing model, and the text assignment that it is pretrained with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha.assign import VichaAssign
from model.families.vicha.batch import CompareBatch, PairBatch
from model.families.vicha.compare import TRUTH, VichaCompare
from model.families.vicha.published import export_published
from model.family import Rank

both_variants = pytest.mark.parametrize("concepts", [True, False], ids=["concepts", "plain"])


def _prefix(concepts: bool) -> str:
    return "" if concepts else "noconcept."


@pytest.fixture
def comparer(case: Any, concepts: bool, tuned_family: Any) -> VichaCompare:
    # The released model with concepts shows pictures to the teacher through the student's tower.
    teacher = "student" if concepts else "twin"
    head = {"kind": "compare", "teacher_pictures": teacher, "distil": {"momentum": case.config["momentum"]}}
    family: VichaCompare = tuned_family(case, head, concepts=concepts)
    return family


@pytest.fixture
def statements(case: Any, concepts: bool, concepts_of: Any) -> CompareBatch:
    inputs = case.inputs
    words = concepts_of(inputs, "kw1") | concepts_of(inputs, "kw2", "second_concept") if concepts else {}
    return CompareBatch(
        keys=tuple(map(str, range(len(inputs["targets"])))),
        pixels=torch.stack(inputs["image_pair"].chunk(2), dim=1),
        **words,
        text_ids=inputs["text_input_ids"],
        text_mask=inputs["text_attention_mask"].bool(),
        labels=inputs["targets"],
    )


@both_variants
@pytest.mark.golden("vicha/nlvr2")
def test_every_tensor_of_the_comparison_equals_the_reference(
    case: Any, concepts: bool, comparer: VichaCompare, statements: CompareBatch, close: Any
) -> None:
    start = {name: value.clone() for name, value in comparer.state_dict().items()}
    prefix = _prefix(concepts)
    for alpha in {0.0, round(case.config["alpha"], 6)}:
        comparer.load_state_dict(start)
        step = comparer.step(statements, soften=alpha)
        close(step.student.logits, case.expected[f"{prefix}logits"], "logits")
        close(step.student.fused, case.expected[f"{prefix}text_output"], "text_output")
        for place, seen in enumerate(step.student.seen):
            if concepts:  # the case stores them once
                close(seen, case.expected[f"image{place}_embeds"], f"image{place}_embeds")
        close(step.losses.total, case.expected[f"{prefix}alpha{alpha}.loss"], f"alpha{alpha}.loss", atol=1e-6)
        if alpha > 0:
            assert step.twin is not None
            close(step.twin.logits, case.expected[f"{prefix}logits_m"], "logits_m")
        else:
            close(step.losses.total, case.expected[f"{prefix}nodistill.loss"], "nodistill.loss", atol=1e-6)


@both_variants
@pytest.mark.golden("vicha/nlvr2")
def test_gradients_of_the_comparison_equal_the_reference_and_shared_matrices_stay_shared(
    case: Any, concepts: bool, comparer: VichaCompare, statements: CompareBatch, same_gradients: Any
) -> None:
    comparer.step(statements, soften=case.config["alpha"]).losses.total.backward()  # type: ignore[no-untyped-call]
    same_gradients(comparer, case.json(f"grad_norms.{'concept' if concepts else 'noconcept'}.json"))
    torch.optim.SGD(comparer.parameters(), lr=0.1).step()
    exported = export_published(comparer)
    for first, second in case.config["shared_parameters"]:
        assert torch.equal(exported[first], exported[second])
        # Biases of keys shift all scores of a query alike and never learn.
        assert first.endswith("key.bias") or not torch.equal(exported[first], case.weights()[first])


@both_variants
@pytest.mark.golden("vicha/nlvr2")
def test_ranking_true_and_false_follows_the_reference_logits(
    case: Any, concepts: bool, comparer: VichaCompare, statements: CompareBatch
) -> None:
    comparer.eval()
    found = comparer.predict(statements, Rank(candidates=TRUTH))
    assert torch.equal(found.places[:, 0], case.expected[f"{_prefix(concepts)}logits"].argmax(dim=1))


@pytest.fixture
def assigner(case: Any, concepts: bool, tuned_family: Any) -> VichaAssign:
    family: VichaAssign = tuned_family(case, {"kind": "assign"}, concepts=concepts)
    return family


@pytest.fixture
def assigned(case: Any, concepts: bool, pair_batch: Any) -> PairBatch:
    prefix = _prefix(concepts)
    batch: PairBatch = pair_batch(
        case.inputs
        | {"assigned": case.inputs[f"{prefix}image_pair_idx"], "assigned_labels": case.inputs[f"{prefix}labels"]},
        concepts=concepts,
    )
    return batch


@both_variants
@pytest.mark.golden("vicha/text_assignment")
def test_text_assignment_equals_the_reference(
    case: Any, concepts: bool, assigner: VichaAssign, assigned: PairBatch, close: Any
) -> None:
    step, prefix = assigner.step(assigned), _prefix(concepts)
    close(step.seen, case.expected[f"{prefix}image_embeds"], "image_embeds")
    close(step.assignment.weights, case.expected[f"{prefix}sampling_weights"], "sampling_weights")
    close(step.logits, case.expected[f"{prefix}logits"], "logits")
    close(step.losses.total, case.expected[f"{prefix}loss"], "loss", atol=1e-6)


@both_variants
@pytest.mark.golden("vicha/text_assignment")
def test_gradients_of_text_assignment_equal_the_reference_and_stop_at_what_only_draws(
    case: Any, concepts: bool, assigner: VichaAssign, assigned: PairBatch, same_gradients: Any
) -> None:
    assigner.step(assigned).losses.total.backward()  # type: ignore[no-untyped-call]
    variant = "concept" if concepts else "noconcept"
    same_gradients(assigner, case.json(f"grad_norms.{variant}.json"))
    frozen = {name for name, value in assigner.named_parameters() if not value.requires_grad}
    assert len(frozen) == len(case.json("no_gradient.json")[variant])
