"""Released files of the line (ViCHA's and ALBEF's): which model one is of, and of which sizes, told by its tensors.

A file says nothing of itself but names and shapes. From these come all sizes except the number of attention heads; the
published rule of 64 channels per head gives that, unless settings say otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor

from model.families.vicha.config import Config

Stage = Literal["pretraining", "pairs", "answers", "classes", "compare", "assign"]
EARLIER: tuple[Stage, ...] = ("pretraining", "pairs")  # what every task can be fine-tuned from
PAIRED: tuple[Stage, ...] = ("compare", "assign")  # whose fusion layers come in pairs

HEAD_CHANNELS = 64

_PAIRS: dict[str, Any] = {
    "hierarchy": None,
    "masked_text": None,
    "masked_image": None,
    "contrast": {"targets": "identity", "temperature_range": None},
}
# Each task's published family config, beside the sizes that the file tells.
_FINE_TUNED: dict[str, Any] = {"image_size": 380}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "pretraining": {"image_size": 256},
    "retrieval": {**_FINE_TUNED, **_PAIRS},
    "grounding": {**_FINE_TUNED, **_PAIRS},
    "vqa": {**_FINE_TUNED, "head": {"kind": "answers"}},
    "entailment": {**_FINE_TUNED, "head": {"kind": "classes"}},
    "nlvr2": {**_FINE_TUNED, "head": {"kind": "compare"}},
    "nlvr2_assignment": {"image_size": 256, "head": {"kind": "assign"}},
}

# How each task's released code shows concepts and cuts texts, where that differs from the family's defaults; its evaluations
# pad concepts to the longest of the batch but for retrieval and grounding, and NLVR2 cuts nothing.
_UNCUT = 512
_CONCEPTS: Mapping[str, Mapping[str, Any]] = {
    "retrieval": {"draw": None},
    "grounding": {"draw": None},
    "vqa": {"draw": None, "eval_padding": "longest"},
    "entailment": {"draw": None, "eval_padding": "longest"},
    "nlvr2": {"draw": None, "eval_padding": "longest", "max_tokens": _UNCUT},
}
_TEXT_TOKENS: Mapping[str, int] = {"nlvr2": _UNCUT}
_TEXT_TOKENS_ALONE: Mapping[str, int] = {"retrieval": 30, "grounding": 30, "entailment": _UNCUT, "nlvr2": _UNCUT}

# The stages whose picture size is the task's own.
_STAGES_OF: Mapping[str, tuple[Stage, ...]] = {
    "pretraining": ("pretraining",),
    "retrieval": ("pairs",),
    "grounding": ("pairs",),
    "vqa": ("answers",),
    "entailment": ("classes",),
    "nlvr2": ("compare",),
    "nlvr2_assignment": ("assign", "pretraining"),
}


def stage_of(tensors: Mapping[str, Tensor]) -> Stage:
    """Tell which model a file is of.

    Raises:
        ValueError: it holds no picture tower and text model under released names.
    """
    names = tensors.keys()
    if "visual_encoder.cls_token" not in names or not any(name.startswith("text_encoder.") for name in names):
        raise ValueError(
            "the file has no 'visual_encoder.…' and 'text_encoder.…' tensors, as every released model of ViCHA and ALBEF has; "
            "give one of those files"
        )
    if any(name.startswith("text_decoder.") for name in names):
        return "answers"
    if any(name.startswith("ta_head.") for name in names):
        return "assign"
    if any(name.startswith("cls_head.") for name in names):
        return "compare" if _has_paired_layers(tensors) else "classes"
    return "pretraining" if any(name.startswith("text_encoder.bert.") for name in names) else "pairs"


def infer_config(tensors: Mapping[str, Tensor], *, task: str, settings: Mapping[str, Any] | None = None) -> Config:
    """Build the config of a task's model from a released file; see `infer_settings`."""
    return Config.model_validate(infer_settings(tensors, task=task, settings=settings))


def infer_settings(
    tensors: Mapping[str, Tensor], *, task: str, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Work out the keys of a task's family config from a released file: its sizes, and what was published for the task.

    Args:
        tensors: under released names.
        task: what the model is to be used for, one of `TASKS`.
        settings: what shall differ, as nested keys of the family's config; they win over all else.

    Raises:
        ValueError: no such task, or the file is of no released model.
    """
    if task not in TASKS:
        raise ValueError(f"task={task!r} is none of the released tasks: {', '.join(TASKS)}")
    stage = stage_of(tensors)
    published = dict(TASKS[task])
    data = merged(sizes(tensors, stage), published)
    if task == "pretraining":
        data |= _objectives(tensors)
    _show_as_released(data, task)
    if "head" in published:
        data.pop("contrast", None)
        data["head"] = {**data["head"], **_head_sizes(tensors, stage)}
    grid, patch = math.isqrt(tensors["visual_encoder.pos_embed"].shape[1] - 1), data["patch_size"]
    if stage in _STAGES_OF[task] and data["image_size"] // patch != grid:
        data["image_size"] = grid * patch  # it was trained for this task at another size than the published one
    if data["image_size"] % patch and "image_size" not in (settings or {}):
        # Published: pictures of 380 pixels give a grid of 23 patches, and the 12 rows and columns beyond it are never seen.
        data["border"] = "ignore"
    return merged(data, settings or {})


def _show_as_released(data: dict[str, Any], task: str) -> None:
    """Set how concepts and texts are shown to a task's model; what it has positions for is the limit."""
    positions = data["text"]["max_positions"]
    if data["concepts"] is not None:
        shown = dict(_CONCEPTS.get(task, {}))
        if "max_tokens" in shown:
            shown["max_tokens"] = min(shown["max_tokens"], positions)
        data["concepts"] |= shown
    tokens = (_TEXT_TOKENS_ALONE if data["concepts"] is None else _TEXT_TOKENS).get(task)
    if tokens is not None:
        data["cleaning"] = {"max_tokens": min(tokens, positions)}


def canonical(name: str) -> str:
    """Spell a released name as fine-tuned files do: pretraining files have one more level, and some a wrapper's prefix."""
    name = name.removeprefix("module.")
    return name.replace("text_encoder.bert.", "text_encoder.").replace("text_encoder_m.bert.", "text_encoder_m.")


def sizes(tensors: Mapping[str, Tensor], stage: Stage) -> dict[str, Any]:
    """Read the sizes of the towers off a released file, as keys of the family's config."""
    shapes = {canonical(name): tuple(value.shape) for name, value in tensors.items()}
    vision = shapes["visual_encoder.patch_embed.proj.weight"]  # (D, 3, patch, patch)
    layer, embeddings = "text_encoder.encoder.layer", "text_encoder.embeddings"
    layers = _count(shapes, rf"{layer}\.(\d+)\.")
    crossing = _count(shapes, rf"{layer}\.(\d+)\.crossattention\.self\.query\.weight", distinct=True)
    words, width = shapes[f"{embeddings}.word_embeddings.weight"]
    data: dict[str, Any] = {
        "patch_size": vision[2],
        "vision": {
            "width": vision[0],
            "depth": _count(shapes, r"visual_encoder\.blocks\.(\d+)\."),
            "heads": max(1, vision[0] // HEAD_CHANNELS),
            "mlp_ratio": shapes["visual_encoder.blocks.0.mlp.fc1.weight"][0] / vision[0],
        },
        "text": {
            "vocab_size": words,
            "width": width,
            "layers": layers - crossing // 2 if stage in PAIRED else layers,
            "fusion_layer": layers - crossing,
            "heads": max(1, width // HEAD_CHANNELS),
            "mlp_width": shapes[f"{layer}.0.intermediate.dense.weight"][0],
            "max_positions": shapes[f"{embeddings}.position_embeddings.weight"][0],
            "token_types": shapes[f"{embeddings}.token_type_embeddings.weight"][0],
        },
        "concepts": None,
    }
    if "kw_proj.weight" in shapes:
        data["concepts"] = {"layers": _count(shapes, r"kw_encoder\.encoder\.layer\.(\d+)\.")}
    if "vision_proj.weight" in shapes:
        data["projection"] = shapes["vision_proj.weight"][0]
    if "image_queue" in shapes:
        data["contrast"] = {"queue_size": shapes["image_queue"][1]}
    return data


def _objectives(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Say which objectives beyond contrast and matching a pretraining file has weights for."""
    parts: dict[str, Any] = {"hierarchy": None, "masked_text": None, "masked_image": None}
    if depths := _count(tensors, r"vision_proj_hidden\.(\d+)\.weight"):
        parts["hierarchy"] = {"layers": depths, "layer_weights": [1.0] * depths}
    if "text_encoder.cls.predictions.bias" in tensors:
        parts["masked_text"] = {}
    if "mae_proj_uni.weight" in tensors:
        parts["masked_image"] = {"mode": "uni_cross_modal"} | _decoder(tensors)
    elif "decoder_embed.weight" in tensors:
        parts["masked_image"] = {"mode": "unimodal"} | _decoder(tensors)
    elif "mae_proj.weight" in tensors:
        parts["masked_image"] = {"mode": "cross_modal"}
    return parts


def _decoder(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "decoder_width": tensors["decoder_embed.weight"].shape[0],
        "decoder_layers": _count(tensors, r"decoder_blocks\.(\d+)\."),
    }


def _head_sizes(tensors: Mapping[str, Tensor], stage: Stage) -> dict[str, Any]:
    if stage == "answers":
        return {"layers": _count(tensors, r"text_decoder\.bert\.encoder\.layer\.(\d+)\.")}
    return {}


def _has_paired_layers(tensors: Mapping[str, Tensor]) -> bool:
    """Whether fusion layers come in pairs that share their keys and values, as models of two pictures have them."""
    pattern = re.compile(r"text_encoder\.encoder\.layer\.(\d+)\.crossattention\.self\.key\.weight")
    keys = {int(match[1]): value for name, value in tensors.items() if (match := pattern.fullmatch(name))}
    first = min(keys, default=0)
    return len(keys) % 2 == 0 and all(
        bool((keys[place] == keys[place + 1]).all()) for place in range(first, first + len(keys), 2)
    )


def _count(names: Iterable[str], pattern: str, *, distinct: bool = False) -> int:
    """Count the numbers in names of a pattern: one more than the largest, or how many there are."""
    numbers = {int(match[1]) for name in names if (match := re.match(pattern, name))}
    return len(numbers) if distinct else max(numbers, default=-1) + 1


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested settings over others; a part that is `None` in either is replaced whole."""
    result = dict(base)
    for key, value in changes.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return result
