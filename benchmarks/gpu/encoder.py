"""The concept step's CLIP on a device: from JPEGs to vectors, beside its own forward pass on pictures that lie there already."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.device import Device, rate_of
from benchmarks.gpu.generated import write_generated_photos

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def measure_encoder(device: Device, *, tiny: bool, pictures: int, batch: int, rounds: int) -> dict[str, Any]:
    """Embed generated photos by the concept step's own embedder.

    Returns:
        Pictures per second of the whole way and of the forward pass alone on resident tensors, and the ratio of the two.
    """
    import torch

    from concepts.embed import ClipEmbedder, EmbedderConfig

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = [path.read_bytes() for path in write_generated_photos(folder, count=min(pictures, 256))]
        photos = (photos * (pictures // len(photos) + 1))[:pictures]
        where: Literal["cuda", "cpu"] = "cuda" if device.name == "cuda" else "cpu"
        model = f"transformers:{write_untrained_clip(folder / 'clip', tiny=tiny)}"
        embedder = ClipEmbedder(EmbedderConfig(model=model, pretrained=None, device=where, batch_size=batch))
        size = embedder.picture_size
        resident = torch.rand(batch, 3, size, size, device=device.name)

        def forward() -> None:
            with torch.inference_mode(), embedder.autocast():
                for _ in range(max(1, pictures // batch)):
                    embedder.model.get_image_features(pixel_values=resident)  # type: ignore[operator]

        whole = device.rounds(lambda: list(embedder.stream(photos)), rounds=rounds, warm_up=1)
        alone = device.rounds(forward, rounds=rounds, warm_up=1)
    alone_pictures = batch * max(1, pictures // batch)
    of_whole, of_alone = rate_of(pictures, whole), rate_of(alone_pictures, alone)
    return {
        "pictures_per_s": of_whole,
        "resident_pictures_per_s": of_alone,
        "share_of_resident_rate": round(of_whole["median"] / of_alone["median"], 4),
    }


def write_untrained_clip(folder: Path, *, tiny: bool) -> Path:
    """Save a CLIP ViT-B/16, or a tiny one, with random weights and a tokenizer that spells: as quick as a trained one."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder.mkdir(parents=True)
    vocabulary = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    ends = {
        "bos_token_id": len(vocabulary) - 2,
        "eos_token_id": len(vocabulary) - 1,
        "pad_token_id": len(vocabulary) - 1,
    }
    side = 32 if tiny else 224
    sizes = (
        {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2} if tiny else {}
    )
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**sizes, **ends, "vocab_size": len(vocabulary)},
        vision_config={**sizes, "image_size": side, "patch_size": 16},
        projection_dim=8 if tiny else 512,
    )
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    processor = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    for part in (CLIPModel(config), tokenizer, processor):
        part.save_pretrained(folder)
    return folder
