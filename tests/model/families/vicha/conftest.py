"""A family small enough to take a step in milliseconds, its processor, and pairs to feed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from model.examples import Paired
from model.families.vicha import Config
from model.families.vicha.model import Vicha
from model.families.vicha.processor import VichaProcessor
from model.tokenizer import SPECIALS, WordPiece

WORDS = ("a", "red", "green", "blue", "ball", "cube", "on", "the", "grass", "sand")


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
