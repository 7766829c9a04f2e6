"""Building a CLIP by name or path: the only file of this room that touches open_clip. Every failure becomes one sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.config import nearest
from shards.errors import ConfigError, MissingLibraryError, OstrakaError

BRINGS_WEIGHTS = ("local-dir:", "hf-hub:")  # schemes of names that carry their own weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What open_clip built: `open_clip.CLIP` or a relative, its evaluation preprocessing and its tokenizer.

    Attributes:
        name: the model's name without any path of this machine.
        config: the architecture, as open_clip's model config.
    """

    name: str
    config: Mapping[str, Any]
    model: Any
    preprocess: Any
    tokenizer: Any


def build_clip(model: str, pretrained: str | None, *, device: str) -> Clip:
    """Build a CLIP through `open_clip.create_model_and_transforms`, frozen and in evaluation mode.

    Args:
        model: a name that open_clip knows, `local-dir:…`, `hf-hub:…`, or the path of a model config (.json).
        pretrained: a released tag or the path of a weights file; unused where the model's name brings its weights.
        device: `cpu` or `cuda`.

    Raises:
        ConfigError: unknown model or tag, a file that does not exist, or weights that do not fit the model.
        OstrakaError: released weights are not cached here and cannot be fetched.
        MissingLibraryError: open_clip is not installed.
    """
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
        raise ConfigError(
            f"embedder: {pretrained or model} does not fit the model {model} ({reason}); give the weights that belong to it"
        ) from problem
    config = {} if brings_weights else open_clip.get_model_config(name)
    plain = Path(model.removeprefix("local-dir:")).stem if _is_path(model) else model
    return Clip(
        name=plain, config=config, model=built.eval().requires_grad_(False), preprocess=preprocess, tokenizer=tokenizer
    )


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
        if path.stem not in open_clip.list_models() or open_clip.get_model_config(path.stem) != _read_json(path):
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
