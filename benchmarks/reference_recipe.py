"""The recipe of the published training code of ALBEF and ViCHA: loose files by Pillow, torchvision's v1 transforms, RandAugment by
numpy tables and OpenCV, and in the training process the tokenizer of those days, which is plain Python.

    python -m benchmarks.reference_recipe FOLDER [quick]

FOLDER holds `recipe.json` (rows of [file, caption, concepts]) and `vocab.txt`; see `benchmarks.loader_speed`. With `quick` the
same is done as one would today without changing the design: tables by OpenCV, and the tokenizer in Rust. Nothing of this project
is imported but `benchmarks`.
"""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Work, serve

SIZE, SCALE, BATCH = 256, (0.2, 1.0), 64
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
COUNT, LEVEL = 2, 7
MAX_WORDS, MAX_TOKENS, CONCEPT_TOKENS, CONCEPT_SHARE = 30, 25, 55, 0.3
GREY = (128, 128, 128)

Pixels = Any  # (H, W, 3) uint8, as OpenCV takes it


def opencv() -> Any:
    """OpenCV, which is none of this project's dependencies."""
    return importlib.import_module("cv2")


def by_table(pixels: Pixels, table: Any) -> Pixels:
    """Look up every value in a table of 256 bytes."""
    return opencv().LUT(pixels, table) if _quick() else table[pixels]


def warp(pixels: Pixels, matrix: list[list[float]]) -> Pixels:
    """An affine motion, bilinear, grey from outside."""
    cv2 = opencv()
    height, width = pixels.shape[:2]
    return cv2.warpAffine(
        pixels, np.array(matrix, dtype=np.float32), (width, height), borderValue=GREY, flags=cv2.INTER_LINEAR
    )


def stretch(pixels: Pixels) -> Pixels:
    """Each channel from its least to its largest value over the whole range."""
    cv2 = opencv()
    tables = []
    for channel in cv2.split(pixels):
        low, high = int(channel.min()), int(channel.max())
        levels = np.arange(256, dtype=np.float32)
        table = ((levels - low) * 255.0 / (high - low)).clip(0, 255) if high > low else levels
        tables.append(by_table(channel, table.astype(np.uint8)))
    return cv2.merge(tables)


def equalize(pixels: Pixels) -> Pixels:
    """Each channel's histogram spread evenly."""
    cv2 = opencv()
    done = []
    for channel in cv2.split(pixels):
        histogram = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        used = histogram[histogram > 0]
        step = int(used[:-1].sum()) // 255
        if not step:
            done.append(channel)
            continue
        table = (step // 2 + np.concatenate([[0], histogram.cumsum()[:-1]])) // step
        done.append(by_table(channel, table.clip(0, 255).astype(np.uint8)))
    return cv2.merge(done)


def brighten(pixels: Pixels) -> Pixels:
    """All values times a factor."""
    return by_table(pixels, (np.arange(256, dtype=np.float32) * _factor()).clip(0, 255).astype(np.uint8))


def sharpen(pixels: Pixels) -> Pixels:
    """Away from the smoothed picture."""
    cv2 = opencv()
    kernel = np.ones((3, 3), dtype=np.float32)
    kernel[1, 1] = 5
    smooth = cv2.filter2D(pixels, -1, kernel / 13)
    done = pixels.astype(np.float32)
    inner = smooth[1:-1, 1:-1].astype(np.float32)
    done[1:-1, 1:-1] = inner + _factor() * (done[1:-1, 1:-1] - inner)
    return done.clip(0, 255).astype(np.uint8)


def rotate(pixels: Pixels) -> Pixels:
    """About the centre."""
    cv2 = opencv()
    height, width = pixels.shape[:2]
    return warp(pixels, cv2.getRotationMatrix2D((width / 2, height / 2), _signed(30 * LEVEL / 10), 1))


OPERATIONS: tuple[Callable[[Pixels], Pixels], ...] = (
    lambda pixels: pixels,
    stretch,
    equalize,
    brighten,
    sharpen,
    lambda pixels: warp(pixels, [[1, _signed(0.3 * LEVEL / 10), 0], [0, 1, 0]]),
    lambda pixels: warp(pixels, [[1, 0, 0], [_signed(0.3 * LEVEL / 10), 1, 0]]),
    lambda pixels: warp(pixels, [[1, 0, _signed(10 * LEVEL / 10)], [0, 1, 0]]),
    lambda pixels: warp(pixels, [[1, 0, 0], [0, 1, _signed(10 * LEVEL / 10)]]),
    rotate,
)


def rand_augment(picture: Any) -> Pixels:
    """Two operations drawn with replacement, each done with chance one half."""
    pixels = np.array(picture)
    for operation in random.choices(OPERATIONS, k=COUNT):
        if random.random() < 0.5:
            pixels = operation(pixels)
    return pixels


def recipe(folder: Path) -> Work:
    """An epoch of batches: pictures, caption tokens, concept tokens, the words that are hidden."""
    import torch
    from PIL import Image
    from torchvision import transforms

    opencv().setNumThreads(1)
    torch.set_num_threads(1)
    tokenizer = _tokenizer(folder / "vocab.txt")
    rows = json.loads((folder / "recipe.json").read_text())
    bicubic = transforms.InterpolationMode.BICUBIC
    shown = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=SCALE, interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
            rand_augment,
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )

    def work() -> int:
        order = random.sample(rows, len(rows))
        for first in range(0, len(order), BATCH):
            batch = order[first : first + BATCH]
            pictures = torch.stack([shown(Image.open(folder / file).convert("RGB")) for file, _, _ in batch])
            texts = [_clean(caption) for _, caption, _ in batch]
            words = [" ".join(random.choices(concepts, k=int(CONCEPT_SHARE * len(concepts)))) for *_, concepts in batch]
            read = tokenizer(texts, padding="longest", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
            tokenizer(words, padding="longest", truncation=True, max_length=CONCEPT_TOKENS, return_tensors="pt")
            hide(read.input_ids, tokenizer)
            assert len(pictures) == len(batch)
        return len(order)

    return work


def hide(ids: Any, tokenizer: Any) -> tuple[Any, Any]:
    """Hide words as BERT does: 15 %, of which 80 % behind the mask and 10 % behind a random word."""
    import torch

    targets = ids.clone()
    hidden = torch.bernoulli(torch.full(targets.shape, 0.15)).bool()
    hidden[(ids == tokenizer.pad_token_id) | (ids == tokenizer.cls_token_id)] = False
    targets[~hidden] = -100
    masked = torch.bernoulli(torch.full(targets.shape, 0.8)).bool() & hidden
    ids[masked] = tokenizer.mask_token_id
    other = torch.bernoulli(torch.full(targets.shape, 0.5)).bool() & hidden & ~masked
    ids[other] = torch.randint(len(tokenizer), targets.shape)[other]
    return ids, targets


def _clean(caption: str) -> str:
    """A caption in small letters without its punctuation, cut to so many words."""
    bare = re.sub(r"[,.'!?\"()*#:;~]", "", caption.lower()).replace("-", " ").replace("/", " ")
    return " ".join(re.sub(r"\s{2,}", " ", bare).strip().split(" ")[:MAX_WORDS])


def _tokenizer(vocabulary: Path) -> Any:
    """BERT's word pieces, in plain Python as they were published, or in Rust."""
    if _quick():
        from transformers import BertTokenizerFast

        return BertTokenizerFast(vocab=str(vocabulary), do_lower_case=True)
    legacy = importlib.import_module("transformers.models.bert.tokenization_bert_legacy")
    return legacy.BertTokenizerLegacy(str(vocabulary), do_lower_case=True)


def _quick() -> bool:
    return sys.argv[2:] == ["quick"]


def _factor() -> float:
    return 1.8 * LEVEL / 10 + 0.1


def _signed(value: float) -> float:
    return -value if random.random() < 0.5 else value


if __name__ == "__main__":
    serve(recipe(Path(sys.argv[1])))
