"""A family small enough to take a step in milliseconds, its processor, and pairs to feed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.examples import Classify, Compare, Generate, Paired, Target
from model.families.vicha import Config
from model.families.vicha.model import Vicha
from model.families.vicha.processor import VichaProcessor
from model.tokenizer import SPECIALS, WordPiece

WORDS = ("a", "red", "green", "blue", "ball", "cube", "on", "the", "grass", "sand")
HEADS: dict[str, dict[str, Any]] = {
    "answers": {"kind": "answers"},
    "classes": {"kind": "classes", "classes": ("no", "yes")},
    "compare": {"kind": "compare"},
    "assign": {"kind": "assign"},
}


def _pictures(count: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8) for _ in range(count))


def head_examples(kind: str, count: int = 4) -> list[Any]:
    """Examples of the kind that a head reads, with pictures of their own."""
    torch.manual_seed(1)
    shared: list[dict[str, Any]] = [
        {"key": f"e-{place}", "concepts": ("ball", "cube")[: 1 + place % 2]} for place in range(count)
    ]
    match kind:
        case "answers":
            targets = (Target(text="red", weight=0.7), Target(text="a ball", weight=0.3))
            return [
                Generate(**each, images=_pictures(1), prompt="the ball on the grass?", targets=targets[: 1 + place % 2])
                for place, each in enumerate(shared)
            ]
        case "classes":
            return [
                Classify(**each, images=_pictures(1), text="a red ball", label=place % 2, classes=("no", "yes"))
                for place, each in enumerate(shared)
            ]
        case "compare":
            return [
                Compare(**each, images=_pictures(2), text="both red", label=place % 2 == 0, second_concepts=("sand",))
                for place, each in enumerate(shared)
            ]
        case _:
            return [Paired(**each, images=_pictures(1), text="a red ball") for each in shared]


@pytest.fixture
def tiny_config() -> Callable[..., Config]:
    """A config of tiny sizes; keywords replace its parts."""

    def build(**parts: Any) -> Config:
        sizes: dict[str, Any] = {
            "image_size": 16,
            "patch_size": 4,
            "projection": 8,
            "vision": {"width": 16, "depth": 3, "heads": 2, "mlp_ratio": 2},
            "text": {
                "vocab_size": len(SPECIALS) + len(WORDS),
                "width": 12,
                "layers": 3,
                "fusion_layer": 2,
                "heads": 2,
                "mlp_width": 24,
                "max_positions": 16,
                "dropout": 0.0,
            },
            "cleaning": {"max_tokens": 10},
            "contrast": {"queue_size": 8},
            "hierarchy": {"layers": 2},
            "masked_text": {"probability": 0.4},
            "masked_image": {"decoder_width": 8, "decoder_layers": 1, "decoder_heads": 2},
            "concepts": {"layers": 1, "max_tokens": 9, "draw": 3},
        }
        return Config.model_validate(sizes | parts)

    return build


@pytest.fixture
def tiny_family(tiny_config: Callable[..., Config]) -> Callable[..., Vicha]:
    """A tiny family with weights of a fixed seed; keywords replace parts of its config."""

    def build(**parts: Any) -> Vicha:
        torch.manual_seed(0)
        return Vicha(tiny_config(**parts))

    return build


@pytest.fixture
def tiny_processor(tiny_config: Callable[..., Config]) -> Callable[..., VichaProcessor]:
    """The processor of the tiny family."""

    def build(**parts: Any) -> VichaProcessor:
        return VichaProcessor(tiny_config(**parts), WordPiece([*SPECIALS, *WORDS]))

    return build


@pytest.fixture
def pairs() -> Callable[..., list[Paired]]:
    """Distinct pictures with texts and concepts."""

    def build(count: int = 6, **fields: Any) -> list[Paired]:
        rng = torch.Generator().manual_seed(1)
        texts = ("a red ball on the grass", "the green cube", "a blue ball on sand", "red cube on the sand", "a ball")
        return [
            Paired(
                **{
                    "key": f"pair-{number}",
                    "images": (torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8, generator=rng),),
                    "text": texts[number % len(texts)],
                    "concepts": ("ball", "cube", "grass", "sand")[number % 3 :],
                    **fields,
                }
            )
            for number in range(count)
        ]

    return build
