"""CLIPs in the layout of the transformers library, by folder or by their name on the hub: the one file here that touches it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concepts.dual_encoder import Clip
from shards.errors import ConfigError, MissingLibraryError, OstrakaError

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from concepts.dual_encoder import Pixels


def build_hub_clip(name: str, *, device: str) -> Clip:
    """Load model, tokenizer and preprocessing of a dual encoder, such as `openai/clip-vit-base-patch32` or its relatives.

    Args:
        name: a folder that `save_pretrained` wrote, or a hub's name, whose files are taken from its cache where they are there.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: what the name leads to is no dual encoder.
        OstrakaError: the hub's files are neither cached here nor can they be fetched.
        MissingLibraryError: transformers is not installed.
    """
    try:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
    except ImportError as problem:
        raise MissingLibraryError("embedder.model=transformers:… needs transformers; install ostraka anew") from problem
    try:
        model = AutoModel.from_pretrained(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
        processor = AutoImageProcessor.from_pretrained(name)
    except Exception as problem:  # the library and the hub raise a dozen kinds
        if not Path(name).is_dir():
            raise OstrakaError(
                f"{name} is neither a folder nor in the hub's cache here, nor can it be fetched; fetch it once where the hub is "
                "reachable, or give embedder.model=transformers:FOLDER"
            ) from problem
        reason = (" ".join(str(problem).split()) or type(problem).__name__)[:200]
        raise ConfigError(
            f"embedder.model: {name} cannot be loaded ({reason}); give a folder with config.json, weights, tokenizer and "
            "preprocessor_config.json"
        ) from problem
    if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
        raise ConfigError(
            f"embedder.model: {name} is a {type(model).__name__}, which does not embed pictures and texts"
        )
    model.eval().requires_grad_(False).to(device)
    config = model.config.to_dict()
    context = int(model.config.text_config.max_position_embeddings)

    def prepare(picture: Image.Image) -> Pixels:
        sized = processor(images=picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        return np.ascontiguousarray(np.moveaxis(np.asarray(sized), 0, -1).astype(np.uint8))

    def tokenize(texts: list[str]) -> torch.Tensor:
        ids: torch.Tensor = tokenizer(
            texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt"
        )["input_ids"]
        return ids

    return Clip(
        name=Path(name).name,
        config={key: config[key] for key in ("model_type", "projection_dim", "text_config", "vision_config")},
        model=model,
        prepare=prepare,
        mean=tuple(processor.image_mean),
        deviation=tuple(processor.image_std),
        tokenize=tokenize,
        encode_image=lambda pixels: _vectors(model.get_image_features(pixel_values=pixels)),
        encode_text=lambda tokens: _vectors(model.get_text_features(input_ids=tokens)),
        is_causal=_is_causal(model),
    )


def _vectors(output: Any) -> torch.Tensor:
    """Releases of the library differ in whether they wrap the features."""
    found: torch.Tensor = getattr(output, "pooler_output", output)
    return found


def _is_causal(model: Any) -> bool:
    text = model.config.text_config
    # An end mark of 2 stands for "the largest id" in files of older releases.
    return model.config.model_type == "clip" and text.eos_token_id in (2, text.vocab_size - 1)
