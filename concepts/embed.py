"""Pictures and words as unit vectors of one space, by any CLIP that open_clip or transformers can build."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash
from pydantic import NonNegativeInt, PositiveInt, field_validator

from concepts.clip_model import build_clip
from concepts.dual_encoder import Pixels
from concepts.pictures import Undecodable, ahead, prepare_picture
from shards.config import Config, digest
from shards.errors import ConfigError, DamagedRecordError

if TYPE_CHECKING:
    import torch

Vectors = npt.NDArray[np.float32]
TOKENIZED = 16_384  # texts tokenized at once: 10 MB of ids


class EmbedderConfig(Config):
    """Which CLIP, and how it runs."""

    model: str = "ViT-B-16"
    """a model name of open_clip, `local-dir:…`, `hf-hub:…`, the path of a model config (.json), or `transformers:` with a folder or
    a hub's name"""
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
    """threads that decode ahead of the model; 0: none on a CPU, up to 16 on a GPU"""

    @field_validator("templates")
    @classmethod
    def _has_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if not templates or any(template.count("{}") != 1 for template in templates):
            raise ValueError("every template holds one {} where the concept goes, such as 'a photo of a {}'")
        return templates


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedBatch:
    """Some pictures of a stream, in order.

    Attributes:
        vectors: (B, D) float32, unit norm; NaN where there is a problem.
        problems: by place in the batch, why a picture has no embedding.
    """

    vectors: Vectors
    problems: Mapping[int, str]


class ClipEmbedder:
    """A loaded CLIP.

    Attributes:
        dimension: D, the width of the shared space.
        device: `cpu` or `cuda`.
        model: holds the weights.
        tokenize: N texts to (N, T) ids.
        weights_digest: xxh3-128 of all parameters and buffers, whatever file they came from.
        card: what names this embedder beside everything it made; no path of any machine is in it.
        digest: of the card.
    """

    def __init__(self, config: EmbedderConfig) -> None:
        """Build the model as its library builds any released CLIP.

        Raises:
            ConfigError: unknown model or tag, a weights file that does not exist or does not fit, no GPU where one was asked for.
            OstrakaError: released weights that are not cached here cannot be fetched.
            MissingLibraryError: open_clip is not installed.
        """
        import torch

        self.config = config
        self.device = _device(config.device)
        self._threads = config.threads
        self._clip = build_clip(config.model, config.pretrained, device=self.device)
        self.model, self.tokenize = self._clip.model, self._clip.tokenize
        self.weights_digest = _weights_digest(self.model.state_dict())
        self.card: dict[str, Any] = {
            "model": self._clip.name,
            "model_config": digest(self._clip.config),
            "weights": self.weights_digest,
            "precision": config.precision,
            "threads": config.threads,
        }
        self.digest = digest(self.card)
        self._autocast = _autocast_type(config.precision, self.device, torch)
        self._mean, self._deviation = (
            torch.tensor(values, device=self.device)[:, None, None]
            for values in (self._clip.mean, self._clip.deviation)
        )
        with self._inference():
            probe = self._encode_tokens(self.tokenize([""]))
        self.dimension = int(probe.shape[1])

    def images(self, pictures: Sequence[bytes], *, names: Sequence[str] | None = None) -> Vectors:
        """Embed pictures that are known to be whole.

        Args:
            pictures: encoded files (JPEG, PNG, …).
            names: what to call each picture in an error.

        Returns:
            (len(pictures), D), unit norm.

        Raises:
            DamagedRecordError: a picture cannot be decoded, or its embedding is not finite.
        """
        rows = [np.zeros((0, self.dimension), np.float32)]
        for batch in self.stream(pictures):
            for place, problem in batch.problems.items():
                number = sum(map(len, rows)) + place
                name = names[number] if names else f"picture {number}"
                raise DamagedRecordError(f"{name}: {problem}; run `verify` on the dataset")
            rows.append(batch.vectors)
        return np.concatenate(rows)

    def stream(self, pictures: Iterable[bytes]) -> Iterator[EmbeddedBatch]:
        """Embed pictures as they come, decoded ahead of the model; a few batches of them are in memory at a time.

        A picture that cannot be decoded keeps its place in its batch, so that it changes no bit of the others' embeddings.

        Yields:
            Batches of `batch_size`, the last one smaller, in the order of the pictures.
        """
        size = self.config.batch_size
        threads = self.config.decode_threads or (min(16, os.cpu_count() or 1) if self.device == "cuda" else 0)
        prepare = self._clip.prepare
        with ThreadPoolExecutor(threads) if threads else nullcontext() as pool:
            decoded = ahead(
                lambda data: prepare_picture(data, prepare), pictures, pool=pool, window=2 * size + 2 * threads
            )
            started: _Started | None = None
            while batch := list(islice(decoded, size)):
                following = self._start(batch)
                # On a GPU the next batch is on its way before this one's numbers are waited for.
                if started is not None:
                    yield self._finish(started)
                started = following
            if started is not None:
                yield self._finish(started)

    def texts(self, phrases: Sequence[str]) -> Vectors:
        """Embed concepts, each in every template of the config; the mean of several is brought back to unit norm.

        Returns:
            (len(phrases), D), unit norm.
        """
        total = np.zeros((len(phrases), self.dimension), np.float32)
        with self._inference():
            for template in self.config.templates:
                total += self._embed_texts([template.format(text) for text in phrases])
        norms = np.linalg.norm(total, axis=1, keepdims=True)
        return np.asarray(total / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)

    def _embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, those of equal length together: what pads a text behind its end is computed only where it counts.

        A phrase of two words has 4 tokens and the context of CLIP holds 77, so this is where nearly all of the time would go.
        """
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for first in range(0, len(texts), TOKENIZED):
            tokens = self.tokenize(list(texts[first : first + TOKENIZED]))  # (N, T)
            lengths = (
                tokens.argmax(dim=1) + 1 if self._clip.is_causal else tokens.new_full((len(tokens),), tokens.shape[1])
            ).numpy()
            order = np.argsort(lengths, kind="stable")
            start = 0
            while start < len(order):
                # As many texts as have the tokens of `batch_size` full contexts, at most: the memory of a pass stays the same.
                widest = lengths[order[min(start + self.config.batch_size, len(order)) - 1]]
                size = self.config.batch_size * max(1, tokens.shape[1] // int(widest) // 2)
                part = order[start : start + size]
                width = int(lengths[part[-1]])
                vectors[first + part] = self._encode_tokens(tokens[part, :width])
                start += size
        return vectors

    def _encode_tokens(self, tokens: torch.Tensor) -> Vectors:
        with self.autocast():
            features = self._clip.encode_text(tokens.to(self.device))
        return _unit(features)

    def _start(self, batch: Sequence[Pixels | Undecodable]) -> _Started:
        """Send a batch through the model; on a GPU this returns before the model is done."""
        import torch

        problems = {place: str(each) for place, each in enumerate(batch) if isinstance(each, Undecodable)}
        whole = [each for each in batch if not isinstance(each, Undecodable)]
        if not whole:
            return _Started(torch.full((len(batch), self.dimension), torch.nan), problems)
        blank = np.zeros_like(whole[0])
        stacked = np.stack([blank if isinstance(each, Undecodable) else each for each in batch])  # (B, H, W, 3)
        with self._inference():
            shared = torch.from_numpy(stacked)
            if self.device == "cuda":
                shared = shared.pin_memory().to(self.device, non_blocking=True)
            pixels = shared.permute(0, 3, 1, 2).contiguous().float().div_(255)  # (B, 3, H, W)
            pixels = pixels.sub_(self._mean).div_(self._deviation)
            with self.autocast():
                features = self._clip.encode_image(pixels)  # (B, D)
        return _Started(features, problems)

    def _finish(self, started: _Started) -> EmbeddedBatch:
        with self._inference():
            vectors = _unit(started.features)
        problems = dict(started.problems)
        for place in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            problems.setdefault(place, "its embedding is not finite; try embedder.precision=fp32")
        vectors[list(problems)] = np.nan
        return EmbeddedBatch(vectors=vectors, problems=problems)

    @cached_property
    def picture_size(self) -> int:
        """Pixels of the side of what the model sees."""
        from PIL import Image

        return int(self._clip.prepare(Image.new("RGB", (64, 64))).shape[0])

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision that the config asks for, while the model runs."""
        import torch

        return torch.autocast(self.device, self._autocast) if self._autocast is not None else nullcontext()

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


@dataclass(frozen=True, slots=True)
class _Started:
    features: torch.Tensor  # (B, D), perhaps still being computed
    problems: Mapping[int, str]


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
