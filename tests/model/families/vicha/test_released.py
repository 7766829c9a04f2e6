"""What a released file is, told by its tensors alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.families.vicha import Config, build
from model.families.vicha.published import export_published
from model.families.vicha.released import TASKS, infer_config, stage_of

STAGES = {
    "pretraining": "pretraining",
    "retrieval": "pairs",
    "grounding": "pairs",
    "vqa": "answers",
    "entailment": "classes",
    "nlvr2": "compare",
    "nlvr2_assignment": "assign",
}
HEADS = {"vision": {"heads": 2}, "text": {"heads": 2, "dropout": 0.0}, "cleaning": {"max_tokens": 10}}


def _settings(**parts: Any) -> dict[str, Any]:
    """What no tensor tells of the tiny sizes."""
    return HEADS | {"concepts": {"max_tokens": 9}} | parts


def _shapes(config: Config) -> dict[str, Any]:
    return {name: value.shape for name, value in build(config).state_dict().items()}


@pytest.mark.parametrize("task", TASKS)
def test_a_model_is_rebuilt_from_its_own_file_and_before_from_pretrainings(tiny_config: Any, task: str) -> None:
    torch.manual_seed(0)
    pretrained = export_published(build(tiny_config()))  # type: ignore[arg-type]
    decoder: Any = {"masked_image": {"decoder_heads": 2}} if task == "pretraining" else {}
    config = infer_config(pretrained, task=task, settings=_settings(image_size=16, **decoder))
    assert config.vision == tiny_config().vision
    assert config.text == tiny_config().text
    released = export_published(build(config))  # type: ignore[arg-type]
    assert stage_of(released) == STAGES[task]
    again = infer_config(released, task=task, settings=_settings(**decoder))
    assert again.image_size == 16
    assert _shapes(again) == _shapes(config)


@pytest.mark.parametrize("mode", ["unimodal", "cross_modal", "uni_cross_modal"])
def test_the_objectives_of_pretraining_are_read_off_it(tiny_config: Any, mode: str) -> None:
    settings = {"mode": mode, "decoder_width": 12, "decoder_layers": 2, "decoder_heads": 2}
    # As wide as texts: in two of the modes picture tokens go through the text layers.
    vision = {"width": 12, "depth": 3, "heads": 2, "mlp_ratio": 2}
    config = tiny_config(masked_image=settings, hierarchy={"layers": 1, "layer_weights": [1.0]}, vision=vision)
    released = export_published(build(config))  # type: ignore[arg-type]
    told: Any = {"masked_image": {"decoder_heads": 2}} if mode != "cross_modal" else {}
    found = infer_config(released, task="pretraining", settings=_settings(**told))
    assert found.masked_image is not None
    assert (found.masked_image.mode, found.masked_image.decodes) == (mode, mode != "cross_modal")
    assert found.hierarchy == config.hierarchy
    assert found.masked_text is not None
    bare = {name: value for name, value in released.items() if "mae_proj" not in name and "decoder_" not in name}
    assert infer_config(bare, task="pretraining", settings=_settings()).masked_image is None


def test_a_fine_tuned_file_keeps_its_picture_size_and_an_earlier_one_takes_the_tasks(tiny_config: Any) -> None:
    settings = {"queue_size": 8, "targets": "identity", "temperature_range": None}
    parts = {"hierarchy": None, "masked_text": None, "masked_image": None, "contrast": settings}
    tuned = export_published(build(tiny_config(image_size=24, **parts)))  # type: ignore[arg-type]
    assert infer_config(tuned, task="retrieval", settings=_settings()).image_size == 24
    pretrained = export_published(build(tiny_config()))  # type: ignore[arg-type]
    assert (
        infer_config(pretrained, task="retrieval", settings=_settings()).image_size == TASKS["retrieval"]["image_size"]
    )


@pytest.mark.parametrize(
    ("task", "millions"),
    [("pretraining", 265.9), ("retrieval", 248.1), ("vqa", 328.9), ("entailment", 248.3), ("nlvr2", 297.9)],
)
def test_each_tasks_model_has_the_size_of_the_released_one(task: str, millions: float) -> None:
    with torch.device("meta"):
        pretrained = export_published(build(Config()))  # type: ignore[arg-type]
        family = build(infer_config(pretrained, task=task))
    trainable = sum(value.numel() for value in family.parameters() if value.requires_grad)
    assert round(trainable / 1e6, 1) == millions


def test_a_file_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no 'visual_encoder\.…' and 'text_encoder\.…'"):
        stage_of({"visual.proj": torch.zeros(1)})
    with pytest.raises(ValueError, match="task='vqa2' is none of the released tasks"):
        infer_config({}, task="vqa2")
