"""Pictures and words as unit vectors of one space, by any CLIP that open_clip can build."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import NonNegativeInt, PositiveInt, field_validator

from concepts.clip_model import build_clip
from shards.config import Config, digest
from shards.errors import ConfigError, DamagedRecordError

if TYPE_CHECKING:
    import torch

Vectors = npt.NDArray[np.float32]


class EmbedderConfig(Config):
    """Which CLIP, and how it runs."""

    model: str = "ViT-B-16"
    """a model name of open_clip, `local-dir:…`, `hf-hub:…`, or the path of a model config (.json)"""
    pretrained: str | None = "openai"
    """a released tag (needs the hub or its cache), or the path of a weights file"""
    templates: tuple[str, ...] = ("{}",)
    """prompts a concept is put into; several are averaged. ViCHA embeds the bare noun"""
    batch_size: PositiveInt = 64
    """pictures or texts per forward pass"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: fp32 on a CPU, bf16 autocast on a GPU"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one"""
    threads: PositiveInt = 1
    """CPU threads of one worker's arithmetic; their number changes the last bits, so it is part of what the embeddings are.
    On many cores use more workers instead"""
    decode_threads: NonNegativeInt = 0
    """threads that decode ahead of the model; 0: none on a CPU, up to 8 on a GPU"""

    @field_validator("templates")
    @classmethod
    def _has_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates or any(template.count("{}") != 1 for template in templates):
            raise ValueError("every template holds one {} where the concept goes, such as 'a photo of a {}'")
        return templates


class ClipEmbedder:
    """A loaded CLIP.

    Attributes:
        dimension: D, the width of the shared space.
        weights_digest: xxh3-128 of all parameters and buffers, whatever file they came from.
        card: what names this embedder beside everything it made; no path of any machine is in it.
        digest: of the card.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        """Build the model through `open_clip.create_model_and_transforms`, as for any released CLIP.

        Raises:
            ConfigError: unknown model or tag, a weights file that does not exist or does not fit, no GPU where one was asked for.
            OstrakaError: released weights that are not cached here cannot be fetched.
            MissingLibraryError: open_clip is not installed.
        """
        import torch

        self.config = config
        self._device = _device(config.device)
        self._threads = config.threads
        built = build_clip(config.model, config.pretrained, device=self._device)
        self._model, self._preprocess, self._tokenizer = built.model, built.preprocess, built.tokenizer
        self.weights_digest = _weights_digest(self._model.state_dict())
        self.card: dict[str, Any] = {
            "model": built.name,
            "model_config": digest(built.config),
            "weights": self.weights_digest,
            "precision": config.precision,
            "threads": config.threads,
        }
        self.digest = digest(self.card)
        self._autocast = _autocast_type(config.precision, self._device, torch)
        with self._inference():
            probe = self._encode_texts([""])
        self.dimension = int(probe.shape[1])

    def images(self, pictures: Sequence[bytes], *, names: Sequence[str] | None = None) -> Vectors:
        """Embed pictures.

        Args:
            pictures: encoded files (JPEG, PNG, …).
            names: what to call each picture in an error.

        Returns:
            (len(pictures), D), unit norm.

        Raises:
            DamagedRecordError: a picture cannot be decoded, or its embedding is not finite.
        """
        import torch

        rows: list[Vectors] = []
        with self._inference(), self._decoder() as decode:
            for batch in decode(pictures, names or [f"picture {place}" for place in range(len(pictures))]):
                pixels = torch.stack(batch).to(self._device)  # (B, 3, H, W)
                with self._cast():
                    features = self._model.encode_image(pixels)  # (B, D)
                rows.append(_unit(features))
        vectors = np.concatenate(rows) if rows else np.zeros((0, self.dimension), np.float32)
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if bad.size:
            name = names[bad[0]] if names else f"picture {bad[0]}"
            raise DamagedRecordError(f"{name}: its embedding is not finite; try embedder.precision=fp32")
        return vectors

    def texts(self, phrases: Sequence[str]) -> Vectors:
        """Embed concepts, each in every template of the config; the mean of several is brought back to unit norm.

        Returns:
            (len(phrases), D), unit norm.
        """
        total = np.zeros((len(phrases), self.dimension), np.float32)
        with self._inference():
            for template in self.config.templates:
                for start in range(0, len(phrases), self.config.batch_size):
                    part = phrases[start : start + self.config.batch_size]
                    total[start : start + len(part)] += self._encode_texts([template.format(text) for text in part])
        norms = np.linalg.norm(total, axis=1, keepdims=True)
        return np.asarray(total / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)

    def _encode_texts(self, texts: list[str]) -> Vectors:
        tokens = self._tokenizer(texts).to(self._device)  # (B, T)
        with self._cast():
            features = self._model.encode_text(tokens)
        return _unit(features)

    def _cast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self._device, self._autocast) if self._autocast is not None else nullcontext()

    @contextmanager
    def _inference(self) -> Iterator[None]:
        """No gradients, and a fixed number of threads: sums then run in the same order in every worker."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)

    @contextmanager
    def _decoder(self) -> Iterator[Any]:
        threads = self.config.decode_threads or (min(8, os.cpu_count() or 1) if self._device == "cuda" else 0)
        size = self.config.batch_size

        def one(item: tuple[bytes, str]) -> torch.Tensor:
            return self._decode(*item)

        if threads == 0:
            yield lambda pictures, names: _batches(map(one, zip(pictures, names, strict=True)), size)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield lambda pictures, names: _batches(pool.map(one, zip(pictures, names, strict=True)), size)

    def _decode(self, data: bytes, name: str) -> torch.Tensor:
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(data)) as picture:
                # As a person sees it: the record's width and height are those after the EXIF orientation too.
                pixels: torch.Tensor = self._preprocess(ImageOps.exif_transpose(picture).convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as problem:
            raise DamagedRecordError(
                f"{name}: the picture cannot be decoded ({problem}); run `verify` on the dataset"
            ) from problem
        return pixels


def _batches(tensors: Iterator[torch.Tensor], size: int) -> Iterator[list[torch.Tensor]]:
    batch: list[torch.Tensor] = []
    for tensor in tensors:
        batch.append(tensor)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _unit(features: torch.Tensor) -> Vectors:
    wide = features.float()
    unit: Vectors = (wide / wide.norm(dim=-1, keepdim=True)).cpu().numpy()
    return unit


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("embedder.device=cuda, but torch sees no GPU here; use embedder.device=auto")
    return "cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu"


def _autocast_type(precision: str, device: str, torch: Any) -> Any:
    if precision == "auto":
        return torch.bfloat16 if device == "cuda" else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _weights_digest(state: dict[str, torch.Tensor]) -> str:
    import torch

    hasher = xxhash.xxh3_128()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()
