"""Building a CLIP by name or path, by open_clip (which only this file touches) or transformers. A failure is one sentence."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concepts.dual_encoder import Clip, Pixels
from concepts.hub_clip import build_hub_clip
from shards.config import nearest
from shards.errors import ConfigError, MissingLibraryError, OstrakaError

if TYPE_CHECKING:
    import torch
    from PIL import Image

TRANSFORMERS = "transformers:"
BRINGS_WEIGHTS = ("local-dir:", "hf-hub:")  # schemes of names that carry their own weights


def build_clip(model: str, pretrained: str | None, *, device: str) -> Clip:
    """Build a CLIP through `open_clip.create_model_and_transforms` or transformers, frozen and in evaluation mode.

    Args:
        model: a name that open_clip knows, `local-dir:…`, `hf-hub:…`, the path of a model config (.json), or `transformers:…`
            with a folder or a hub's name.
        pretrained: a released tag or the path of a weights file; unused where the model's name brings its weights.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: unknown model or tag, a file that does not exist, or weights that do not fit the model.
        OstrakaError: released weights are not cached here and cannot be fetched.
        MissingLibraryError: open_clip is not installed.
    """
    if model.startswith(TRANSFORMERS):
        return build_hub_clip(model.removeprefix(TRANSFORMERS), device=device)
    try:
        import open_clip
    except ImportError as problem:
        raise MissingLibraryError("embedding pictures needs open_clip; install the extra: ostraka[clip]") from problem
    name = _registered_name(model, open_clip)
    brings_weights = model.startswith(BRINGS_WEIGHTS)
    tag = {} if brings_weights else _released(name, pretrained, open_clip)
    try:
        with _quiet():
            built, _, preprocess = open_clip.create_model_and_transforms(
                name,
                pretrained=None if brings_weights else pretrained,
                device=device,
                # OpenAI's own weights were trained with another GELU than the model config of the same name says.
                force_quick_gelu=bool(tag.get("quick_gelu")),
            )
            tokenizer = open_clip.get_tokenizer(name)
    except Exception as problem:  # open_clip, torch and the hub raise a dozen kinds, assertions among them
        if tag or model.startswith("hf-hub:"):
            raise OstrakaError(
                f"the weights of {model} ({pretrained}) are neither in the hub's cache here nor can they be fetched; fetch them "
                "once where the hub is reachable, or give embedder.pretrained a weights file"
            ) from problem
        reason = (" ".join(str(problem).split()) or type(problem).__name__)[:200]
        if isinstance(
            problem, pickle.UnpicklingError
        ):  # torch's own words would advise to run whatever code the file holds
            reason = "it is no weights file, or holds more than tensors"
        raise ConfigError(
            f"embedder: {pretrained or model} does not fit the model {model} ({reason}); give the weights that belong to it"
        ) from problem
    config = {} if brings_weights else open_clip.get_model_config(name)
    plain = Path(model.removeprefix("local-dir:")).stem if _is_path(model) else model
    built.eval().requires_grad_(False)
    prepare, mean, deviation = _split(preprocess)
    is_causal = _is_causal(built)
    return Clip(
        name=plain,
        config=config,
        model=built,
        prepare=prepare,
        mean=mean,
        deviation=deviation,
        tokenize=tokenizer,
        encode_image=built.encode_image,
        encode_text=_short_text_encoder(built) if is_causal else built.encode_text,
        is_causal=is_causal,
    )


def _split(preprocess: Any) -> tuple[Callable[[Image.Image], Pixels], tuple[float, ...], tuple[float, ...]]:
    """Part open_clip's preprocessing into what needs the picture, and the arithmetic that a whole batch can share."""
    *steps, _, normalize = preprocess.transforms  # what is left out turns the picture into numbers from 0 to 1

    def prepare(picture: Image.Image) -> Pixels:
        for step in steps:
            picture = step(picture)
        return np.asarray(picture)

    return prepare, tuple(map(float, normalize.mean)), tuple(map(float, normalize.std))


def _is_causal(built: Any) -> bool:
    text = getattr(built, "text", built)  # some models hold their text tower as a part, the first ones are it
    pool = getattr(text, "pool_type", getattr(text, "text_pool_type", None))
    return pool == "argmax" and getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None


def _short_text_encoder(built: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Encode texts of fewer tokens than the context holds: the tables are cut to their length for the call."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.built = built

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.built.encode_text(tokens)
            return features

    encoder = Encoder()
    prefix = "built.text" if hasattr(built, "text") else "built"
    text = getattr(built, "text", built)

    def encode(tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        tables = {
            f"{prefix}.positional_embedding": text.positional_embedding[:length],
            f"{prefix}.attn_mask": text.attn_mask[:length, :length],
        }
        features: torch.Tensor = torch.func.functional_call(encoder, tables, (tokens,))
        return features

    return encode


def _is_path(model: str) -> bool:
    return model.endswith(".json") or model.startswith("local-dir:")


def _released(name: str, pretrained: str | None, open_clip: Any) -> dict[str, Any]:
    """What open_clip knows of a released tag; empty for a weights file."""
    if pretrained is None:
        raise ConfigError(
            f"embedder.pretrained is unset, so {name} would embed with random weights; give a released tag or a weights file"
        )
    tag = dict(open_clip.get_pretrained_cfg(name, pretrained) or {})
    if tag or Path(pretrained).is_file():
        return tag
    tags = open_clip.list_pretrained_tags_by_model(name)
    advice = nearest(pretrained, tags) if tags else "give the path of its weights file"
    raise ConfigError(f"embedder.pretrained: {pretrained!r} is no file and no released tag of {name}; {advice}")


def _registered_name(model: str, open_clip: Any) -> str:
    """The name under which open_clip knows the model; the path of a model config is made known to it first."""
    if model.startswith(BRINGS_WEIGHTS):
        return model
    if model.endswith(".json"):
        path = Path(model)
        if not path.is_file():
            raise ConfigError(f"embedder.model: {model} does not exist; give the path of an open_clip model config")
        content = _read_json(path)
        if path.stem not in open_clip.list_models() or open_clip.get_model_config(path.stem) != content:
            open_clip.add_model_config(path)
        if path.stem not in open_clip.list_models():
            raise ConfigError(
                f"embedder.model: {model} is no open_clip model config; it needs embed_dim, vision_cfg, text_cfg"
            )
        return path.stem
    if model not in open_clip.list_models():
        raise ConfigError(f"embedder.model: open_clip knows no {model!r}: {nearest(model, open_clip.list_models())}")
    return model


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ConfigError(f"embedder.model: {path} is broken JSON ({problem})") from problem


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's own lines out of the log: what goes wrong is said once, in our sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
