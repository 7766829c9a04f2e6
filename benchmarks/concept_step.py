"""The whole concept step beside the model's own forward, beside the original recipe, and texts in batches beside one by one.

    python -m benchmarks.concept_step pictures=96 batch=32 model=ViT-B-32

The weights are random: what they are changes no time. On a CPU all sides count its seconds, under `OMP_NUM_THREADS=1`; on a GPU
(`device=cuda`) seconds on the wall, and the floor is the encoder's best rate on tensors that lie there already.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.photos import write_photos
from benchmarks.rounds import Side, Step, compare, spread, timed
from benchmarks.selection import cpu_timed, one_by_one, unit_vectors
from concepts.annotate import concept_table
from concepts.bank import ConceptBank
from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.picture_column import embedding_table
from concepts.select import select_concepts
from shards.index import encode_parquet

VOCABULARY = 5_000
TEXTS_ONE_BY_ONE = 40
NOUNS = (
    "dog", "house", "boat", "tree", "ball", "table", "street", "train", "horse", "bus", "cat", "water", "car", "sky", "kite",
    "bench", "plate", "bowl",
)  # fmt: skip
ADJECTIVES = ["red", "small", "old", "wooden", "tall", "white"]


def random_clip(model: str, folder: Path) -> EmbedderConfig:
    """Save a model of this shape with random weights."""
    import open_clip
    import torch

    torch.manual_seed(0)
    path = folder / "weights.pt"
    torch.save({"state_dict": open_clip.create_model(model).state_dict()}, path)
    return EmbedderConfig(model=model, pretrained=str(path))


def whole_step(photos: Sequence[bytes], embedder: ClipEmbedder, bank: ConceptBank) -> bytes:
    """Decode, embed and choose, down to the bytes of both columns."""
    vectors = np.concatenate([batch.vectors for batch in embedder.stream(photos)]).astype(np.float16)
    table = concept_table(select_concepts(vectors, bank), bank.phrases)
    return encode_parquet(embedding_table(vectors)) + encode_parquet(table)


def original_recipe(photos: Sequence[bytes], embedder: ClipEmbedder, bank: ConceptBank) -> str:
    """One picture per call, read by Pillow; vectors kept as nested lists of JSON, the concepts found by a full sort."""
    import open_clip
    import torch
    from PIL import Image

    model = embedder.model
    size = open_clip.get_model_config(embedder.config.model)["vision_cfg"]["image_size"]
    preprocess = open_clip.image_transform(size, is_train=False)
    phrases = bank.vectors.astype(np.float32)
    kept = []
    with torch.inference_mode():
        for data in photos:
            pixels = preprocess(Image.open(io.BytesIO(data)).convert("RGB"))[None]
            vector = model.encode_image(pixels, normalize=True).numpy()  # type: ignore[operator]
            one_by_one(vector, phrases)
            kept.append(vector.tolist())
    return json.dumps(kept)


def forward_alone(embedder: ClipEmbedder, batches: Sequence[Any]) -> None:
    """The picture tower on ready tensors."""
    import torch

    with torch.inference_mode(), embedder.autocast():
        for batch in batches:
            features = embedder.model.encode_image(batch)  # type: ignore[operator]
        features.cpu()


def measure_step(
    embedder: ClipEmbedder, photos: Sequence[bytes], *, rounds: int, clock: Callable[[Callable[[], object]], Any]
) -> dict[str, Any]:
    """Compare the step with its floor and with the original recipe; a few pictures are enough for the latter."""
    import torch

    batch = embedder.config.batch_size
    bank = ConceptBank(
        phrases=tuple(map(str, range(VOCABULARY))),
        vectors=unit_vectors(VOCABULARY, seed=2, width=embedder.dimension),
        digest="benchmark",
    )
    size = embedder.picture_size
    resident = [
        torch.rand(len(photos[start : start + batch]), 3, size, size, device=embedder.device)
        for start in range(0, len(photos), batch)
    ]
    step = Step(
        name="concept step",
        ours=Side(records=len(photos), run=clock(lambda: whole_step(photos, embedder, bank))),
        floor=Side(records=len(photos), run=clock(lambda: forward_alone(embedder, resident))),
        floor_is="the model's own forward on ready tensors",
        peers={
            "original_recipe": Side(
                records=len(photos[:16]), run=clock(lambda: original_recipe(photos[:16], embedder, bank))
            )
        }
        if embedder.device == "cpu"
        else {},
    )
    stored = len(encode_parquet(embedding_table(unit_vectors(2000, seed=3)))) / 2000
    as_json = len(json.dumps(unit_vectors(20, seed=3).astype(np.float32).tolist())) / 20
    return {
        **compare(step, rounds=rounds),
        "bytes_per_image_at_512": {"ours": round(stored), "json": round(as_json), "ratio": round(as_json / stored, 1)},
    }


def measure_texts(
    embedder: ClipEmbedder, count: int, *, rounds: int, clock: Callable[[Callable[[], object]], Any]
) -> dict[str, Any]:
    """Compare embedding many phrases with one call per phrase, each at the full context."""
    import torch

    rng = np.random.default_rng(0)
    phrases = [
        " ".join((*rng.choice(ADJECTIVES, rng.integers(0, 2)), *rng.choice(NOUNS, rng.integers(1, 3))))
        for _ in range(count)
    ]

    def singly() -> None:
        with torch.inference_mode(), embedder.autocast():
            for phrase in phrases[:TEXTS_ONE_BY_ONE]:
                embedder.model.encode_text(embedder.tokenize([phrase]).to(embedder.device)).cpu()  # type: ignore[operator]

    ours, theirs = clock(lambda: embedder.texts(phrases)), clock(singly)
    singly()
    ratios, speeds = [], []
    for _ in range(rounds):
        speeds.append(count / ours())
        ratios.append(speeds[-1] / (TEXTS_ONE_BY_ONE / theirs()))
    return {"phrases": count, "texts_per_s": spread(speeds), "to_one_per_call": spread(ratios)}


def main() -> None:
    """Measure; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="pictures= texts= batch= rounds= model= device= decode_threads=")
    said = dict(each.split("=", 1) for each in parser.parse_args().settings)
    device: Literal["cpu", "cuda"] = "cuda" if said.get("device") == "cuda" else "cpu"
    rounds, pictures = int(said.get("rounds", 3)), int(said.get("pictures", 96))
    clock = timed if device == "cuda" else cpu_timed
    originals = Path(os.environ.get("OSTRAKA_DATA", "../shared/data"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(originals, folder, count=min(pictures, 512))
        photos = [path.read_bytes() for path in sorted((folder / "photos").iterdir())]
        photos = (photos * (pictures // len(photos) + 1))[:pictures]
        config = random_clip(said.get("model", "ViT-B-32"), folder).model_copy(
            update={
                "device": device,
                "batch_size": int(said.get("batch", 32)),
                "decode_threads": int(said.get("decode_threads", 0)),
            }
        )
        embedder = ClipEmbedder(config)
        result: dict[str, Any] = {"model": config.model, "device": device, "batch": config.batch_size}
        result["step"] = measure_step(embedder, photos, rounds=rounds, clock=clock)
        result["texts"] = measure_texts(embedder, int(said.get("texts", 20_000)), rounds=rounds, clock=clock)
    print(json.dumps({**result, "started": time.strftime("%Y-%m-%d")}, indent=1))


if __name__ == "__main__":
    main()
