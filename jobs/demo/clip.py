"""A small CLIP for the demo, in the place of a released one: open_clip's own model, tokenizer and loss, and files it loads by path.

    OUTPUT/demo-clip.json           the model config, as open_clip describes its models
    OUTPUT/demo-clip.safetensors    the weights
    OUTPUT/training.json            written last: config, data and loss; with it the work counts as done

Texts are captions and, now and then, a few neighbouring words of one: concepts are single nouns, and a text tower that has only
ever seen sentences says little about those.
"""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from shards.address import example_rng
from shards.config import Config, digest
from shards.errors import DatasetError, MissingLibraryError
from shards.reader import Dataset, open_dataset
from shards.records import Caption
from shards.stores import open_storage

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

NAME = "demo-clip"
SCHEMA = 1
IMAGE_SIZE = 64
# A convolutional picture tower learns scenes of this size from some thousand pictures, where a vision transformer of equal cost
# does not: 37 % against 8 % text-to-image recall at 1 on 400 unseen scenes after a minute of one core.
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}
WARM_UP_STEPS = 20
SHIFT = 3  # pixels a picture is moved by at most; it is never mirrored, since captions say left and right
LONGEST_PHRASE = 3  # words
LARGEST_LOGIT_SCALE = math.log(100)  # CLIP's own bound


class DemoClipConfig(Config):
    """What the model is trained on, and for how long."""

    dataset: str
    """dataset whose picture-caption pairs are learned"""
    output: str
    """folder of the model"""
    steps: PositiveInt = 300
    batch_size: PositiveInt = 64
    lr: float = Field(1e-3, gt=0)
    """peak learning rate: linear warm-up, cosine to zero"""
    weight_decay: float = Field(0.05, ge=0)
    phrase_share: float = Field(0.4, ge=0, le=1)
    """share of texts that are a few neighbouring words instead of the whole caption"""
    largest: PositiveInt = 20_000
    """at most this many pictures are held in memory, spread evenly over the dataset"""
    seed: NonNegativeInt = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The pictures and captions of a dataset, in memory.

    Attributes:
        pixels: (N, 3, H, W) float16, normalised as the model wants it.
        captions: at least one per picture.
    """

    pixels: torch.Tensor
    captions: tuple[tuple[str, ...], ...]


def clip_files(output: str | Path) -> tuple[Path, Path]:
    """The model config and the weights: `embedder.model` and `embedder.pretrained` of the concepts verb."""
    return Path(output) / f"{NAME}.json", Path(output) / f"{NAME}.safetensors"


def train_demo_clip(config: DemoClipConfig, *, on_step: Callable[[int, int], None] | None = None) -> Path:
    """Train the model, or find it trained already by the same config on the same data.

    Args:
        config: what to do.
        on_step: told (steps done, steps in all) after every step.

    Returns:
        The weights file.

    Raises:
        DatasetError: the dataset has too few pictures with captions, or the folder cannot be written.
        MissingLibraryError: open_clip is not installed.
    """
    dataset = open_dataset(config.dataset)
    storage = open_storage(config.output)
    storage.ensure_writable()
    model_path, weights_path = clip_files(config.output)
    identity = digest(
        {
            "schema": SCHEMA,
            "config": config.model_dump(mode="json", exclude={"dataset", "output"}),
            "model": MODEL_CONFIG,
            "data": dataset.digest,
        }
    )
    if _is_done(config, identity):
        logger.info("%s is trained already", weights_path)
        return weights_path
    storage.remove("training.json")  # from here on the folder holds no finished model
    storage.replace(model_path.name, json.dumps(MODEL_CONFIG, indent=2).encode())
    weights, losses = _train(config, model_path, dataset, on_step)
    storage.replace(weights_path.name, weights)
    last = losses[-max(1, len(losses) // 10) :]
    storage.replace(
        "training.json",
        json.dumps(
            {
                "digest": identity,
                "config": config.model_dump(mode="json"),
                "data": dataset.digest,
                "loss": {
                    "first": losses[0],
                    "last_tenth": sum(last) / len(last),
                    "chance": math.log(config.batch_size),
                },
            },
            indent=2,
        ).encode(),
    )
    return weights_path


def _is_done(config: DemoClipConfig, identity: str) -> bool:
    storage = open_storage(config.output)
    if not all(storage.exists(path.name) for path in clip_files(config.output)) or not storage.exists("training.json"):
        return False
    return bool(json.loads(storage.read("training.json")).get("digest") == identity)


def _train(
    config: DemoClipConfig, model_path: Path, dataset: Dataset, on_step: Callable[[int, int], None] | None
) -> tuple[bytes, list[float]]:
    """Run all steps. Returns the weights as safetensors bytes, and the loss of each step."""
    import torch
    from safetensors.torch import save

    try:
        import open_clip
    except ImportError as problem:
        raise MissingLibraryError("the demo's CLIP needs open_clip; install the extra: ostraka[clip]") from problem
    open_clip.add_model_config(model_path)
    logging.getLogger().addFilter(_is_news)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model, _, preprocess = open_clip.create_model_and_transforms(model_path.stem)
    finally:
        logging.getLogger().removeFilter(_is_news)
    tokenizer = open_clip.get_tokenizer(model_path.stem)
    loss_of = open_clip.ClipLoss()
    pairs = _read_pairs(config, dataset, preprocess)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
    )
    losses: list[float] = []
    model.train()
    model.visual.to(memory_format=torch.channels_last)  # convolutions on a CPU: 1.5 times as fast
    for step, rows in enumerate(_batches(len(pairs.captions), config)):
        rng = example_rng(config.seed, step, "demo-clip")
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _schedule(step, config.steps)
        pixels = _shifted(pairs.pixels[rows].float(), rng).contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)
        tokens = tokenizer([_text_of(pairs.captions[row], rng, config.phrase_share) for row in rows])  # (B, T)
        image_features = model.encode_image(pixels, normalize=True)  # (B, D)
        text_features = model.encode_text(tokens, normalize=True)  # (B, D)
        loss = loss_of(image_features, text_features, model.logit_scale.exp())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, LARGEST_LOGIT_SCALE)
        losses.append(float(loss.detach()))
        if on_step is not None:
            on_step(step + 1, config.steps)
    return save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}), losses


def _is_news(line: logging.LogRecord) -> bool:
    """Drop the warning that the model starts from random weights: here it does so on purpose."""
    return "Model initialized randomly" not in line.getMessage()


def _read_pairs(config: DemoClipConfig, dataset: Dataset, preprocess: Callable[[Any], torch.Tensor]) -> Pairs:
    import torch
    from PIL import Image

    places = [(shard, row) for shard, count in enumerate(dataset.shard_sizes()) for row in range(count)]
    step = -(-len(places) // config.largest)
    pixels: list[torch.Tensor] = []
    captions: list[tuple[str, ...]] = []
    for shard, row in places[::step]:
        record = dataset.record(shard, row)
        texts = tuple(annotation.text for annotation in record.annotations if isinstance(annotation, Caption))
        pictures = [record.payload[media.member] for media in record.media if media.kind == "image"]
        if not texts or len(pictures) != 1:
            continue
        with Image.open(io.BytesIO(pictures[0])) as picture:
            pixels.append(preprocess(picture.convert("RGB")).half())
        captions.append(texts)
    if len(captions) < 2:
        raise DatasetError(
            f"{dataset.path}: {len(captions)} pictures have captions, too few to train on; make a larger dataset"
        )
    return Pairs(pixels=torch.stack(pixels), captions=tuple(captions))


def _batches(count: int, config: DemoClipConfig) -> Iterator[list[int]]:
    """The rows of every step: one permutation of the data after the other, each keyed by its number."""
    size = min(config.batch_size, count)
    waiting: list[int] = []
    epoch = 0
    for _ in range(config.steps):
        while len(waiting) < size:
            waiting += example_rng(config.seed, epoch, "demo-clip-order").permutation(count).tolist()
            epoch += 1
        yield waiting[:size]
        waiting = waiting[size:]


def _text_of(captions: tuple[str, ...], rng: np.random.Generator, phrase_share: float) -> str:
    """One caption, or some neighbouring words of it."""
    caption = captions[int(rng.integers(len(captions)))]
    if rng.random() >= phrase_share:
        return caption
    words = caption.rstrip(".").split()
    length = int(rng.integers(1, LONGEST_PHRASE + 1))
    start = int(rng.integers(max(1, len(words) - length + 1)))
    return " ".join(words[start : start + length])


def _shifted(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Move a batch by a few pixels; the edge is repeated. (B, 3, H, W) in and out."""
    from torch.nn import functional

    height, width = pixels.shape[-2:]
    down, across = (int(amount) for amount in rng.integers(0, 2 * SHIFT + 1, 2))
    padded = functional.pad(pixels, (SHIFT, SHIFT, SHIFT, SHIFT), mode="replicate")
    return padded[:, :, down : down + height, across : across + width]


def _schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: linear warm-up, then half a cosine down to zero."""
    warm_up = min(WARM_UP_STEPS, max(1, steps // 5))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
