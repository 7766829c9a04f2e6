"""What a CLIP is to this room, whichever library built it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from PIL import Image

Pixels = npt.NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A CLIP that was built, with all that lies between a file or a sentence and its vector.

    Attributes:
        name: the model's name without any path of this machine.
        config: the architecture, as the library that built it writes it down.
        model: holds the weights.
        prepare: its evaluation preprocessing up to whole numbers: a picture in RGB to one of the model's size.
        mean: per channel, of pixels in [0, 1]; taken off before the model.
        deviation: per channel; divided by before the model.
        tokenize: N texts to (N, T) ids.
        encode_image: (B, 3, H, W) to (B, D).
        encode_text: (B, T) to (B, D).
        is_causal: no token sees those behind it, and the vector is taken at the end mark, which has the largest id: then whatever
            pads a text behind that mark changes nothing and need not be computed.
    """

    name: str
    config: Mapping[str, Any]
    model: torch.nn.Module
    prepare: Callable[[Image.Image], Pixels]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    tokenize: Callable[[list[str]], torch.Tensor]
    encode_image: Callable[[torch.Tensor], torch.Tensor]
    encode_text: Callable[[torch.Tensor], torch.Tensor]
    is_causal: bool
