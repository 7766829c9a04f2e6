from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from concepts.embed import ClipEmbedder, EmbedderConfig
from shards.config import validate
from shards.errors import ConfigError, DamagedRecordError, OstrakaError

TinyClip = Callable[..., dict[str, Any]]


def picture(colour: str, *, orientation: int = 1, kind: str = "JPEG") -> bytes:
    image = Image.new("RGB", (48, 32), colour)
    image.paste("white", (0, 0, 10, 10))
    exif = image.getexif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    image.save(data, kind, exif=exif)
    return data.getvalue()


def test_embeddings_are_what_open_clip_gives_brought_to_unit_norm(tiny_clip: TinyClip) -> None:
    import open_clip
    import torch

    keys = tiny_clip("reference-clip")
    embedder = ClipEmbedder(EmbedderConfig(**keys))
    model, _, preprocess = open_clip.create_model_and_transforms("reference-clip", pretrained=keys["pretrained"])
    with Image.open(io.BytesIO(picture("red"))) as image, torch.inference_mode():
        image_features = model.eval().encode_image(preprocess(image)[None], normalize=True)
        text_features = model.encode_text(open_clip.get_tokenizer("reference-clip")(["dog"]), normalize=True)
    np.testing.assert_allclose(embedder.images([picture("red")]), image_features.numpy(), atol=1e-6)
    np.testing.assert_allclose(embedder.texts(["dog"]), text_features.numpy(), atol=1e-6)


def test_batches_and_decode_threads_do_not_change_embeddings(tiny_clip: TinyClip) -> None:
    keys = tiny_clip()
    pictures = [picture(colour) for colour in ("red", "green", "blue", "black", "pink")]
    wide = ClipEmbedder(EmbedderConfig(**keys)).images(pictures)
    narrow = ClipEmbedder(EmbedderConfig(**keys, batch_size=2, decode_threads=3)).images(pictures)
    assert wide.shape == (5, 16)
    np.testing.assert_allclose(np.linalg.norm(wide, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(narrow, wide, atol=1e-6)
    assert np.abs(wide - wide[0]).max(axis=1)[1:].min() > 1e-3  # pictures are told apart


def test_a_rotated_picture_is_embedded_as_a_person_sees_it(tiny_clip: TinyClip) -> None:
    embedder = ClipEmbedder(EmbedderConfig(**tiny_clip()))
    upside_down = picture("red", orientation=3, kind="PNG")
    turned = io.BytesIO()
    Image.open(io.BytesIO(picture("red", kind="PNG"))).rotate(180).save(turned, "PNG")
    np.testing.assert_allclose(embedder.images([upside_down]), embedder.images([turned.getvalue()]), atol=1e-6)


def test_templates_are_averaged_on_the_sphere(tiny_clip: TinyClip) -> None:
    keys = tiny_clip()
    bare = ClipEmbedder(EmbedderConfig(**keys))
    both = ClipEmbedder(EmbedderConfig(**keys, templates=("{}", "a photo of a {}")))
    mean = bare.texts(["dog"]) + bare.texts(["a photo of a dog"])
    np.testing.assert_allclose(both.texts(["dog"]), mean / np.linalg.norm(mean), atol=1e-6)


def test_the_digest_names_the_weights_whatever_file_holds_them(tiny_clip: TinyClip, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    keys = tiny_clip()
    state = load_file(keys["pretrained"])
    torch.save({"state_dict": state}, tmp_path / "other.pt")
    one = ClipEmbedder(EmbedderConfig(**keys))
    same = ClipEmbedder(EmbedderConfig(model=keys["model"], pretrained=str(tmp_path / "other.pt")))
    other = ClipEmbedder(EmbedderConfig(**tiny_clip(seed=1)))
    assert one.digest == same.digest
    assert one.digest != other.digest
    assert str(tmp_path) not in str(one.card)


def test_a_picture_that_cannot_be_decoded_is_named(tiny_clip: TinyClip) -> None:
    embedder = ClipEmbedder(EmbedderConfig(**tiny_clip()))
    with pytest.raises(DamagedRecordError, match=r"shard 3, record 'b': the picture cannot be decoded"):
        embedder.images([picture("red"), b"\xff\xd8 no picture"], names=["shard 3, record 'a'", "shard 3, record 'b'"])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"model": "ViT-B16"}, r"knows no 'ViT-B16': did you mean 'ViT-B-16'"),
        ({"pretrained": "opnai"}, r"'opnai' is no file and no released tag of ViT-B-16; did you mean 'openai'"),
        ({"pretrained": None}, r"random weights"),
        ({"model": "nowhere.json", "pretrained": "openai"}, r"nowhere.json does not exist"),
    ],
)
def test_a_wrong_model_is_one_sentence(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        ClipEmbedder(EmbedderConfig(**keys))


def test_weights_of_another_model_are_one_sentence(tiny_clip: TinyClip) -> None:
    wide = tiny_clip("wide-clip", width=24)
    with pytest.raises(ConfigError, match="does not fit the model"):
        ClipEmbedder(EmbedderConfig(model=tiny_clip("narrow-clip")["model"], pretrained=wide["pretrained"]))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip.factory

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    with pytest.raises(OstrakaError, match=r"ViT-B-32 \(openai\) are neither in the hub's cache here nor"):
        ClipEmbedder(EmbedderConfig(model="ViT-B-32", pretrained="openai"))


def test_a_template_without_a_place_for_the_concept_is_refused() -> None:
    with pytest.raises(ConfigError, match="templates: every template holds one"):
        validate(EmbedderConfig, {"templates": ["a photo"]})


def test_embedding_leaves_the_number_of_threads_as_it_was(tiny_clip: TinyClip) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ClipEmbedder(EmbedderConfig(**tiny_clip())).texts(["dog"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_short_texts_embed_as_they_do_at_full_length(tiny_clip: TinyClip) -> None:
    import open_clip
    import torch

    keys = tiny_clip("short-clip")
    texts = ["dog", "a very long description of a dog on a sofa", "", "red car", "a cat " * 20]
    embedder = ClipEmbedder(EmbedderConfig(**keys, batch_size=2))
    model, _, _ = open_clip.create_model_and_transforms("short-clip", pretrained=keys["pretrained"])
    with torch.inference_mode():
        whole = model.eval().encode_text(open_clip.get_tokenizer("short-clip")(texts), normalize=True)
    np.testing.assert_allclose(embedder.texts(texts), whole.numpy(), atol=1e-6)


def test_a_picture_that_cannot_be_decoded_keeps_its_place_and_changes_no_other(tiny_clip: TinyClip) -> None:
    embedder = ClipEmbedder(EmbedderConfig(**tiny_clip(), batch_size=3))
    pictures = [picture(colour) for colour in ("red", "green", "blue", "black", "pink")]
    whole = np.concatenate([batch.vectors for batch in embedder.stream(pictures)])
    broken = [*pictures[:1], b"", *pictures[2:4], b"no picture"]
    batches = list(embedder.stream(broken))
    found = np.concatenate([batch.vectors for batch in batches])
    np.testing.assert_array_equal(found[[0, 2, 3]], whole[[0, 2, 3]])
    assert np.isnan(found[[1, 4]]).all()
    assert [list(batch.problems) for batch in batches] == [[1], [1]]
    assert "cannot be decoded" in batches[1].problems[1]


def test_only_a_few_batches_are_read_ahead(tiny_clip: TinyClip) -> None:
    embedder = ClipEmbedder(EmbedderConfig(**tiny_clip(), batch_size=2, decode_threads=2))
    taken: list[int] = []

    def pictures() -> Iterator[bytes]:
        for number in range(60):
            taken.append(number)
            yield picture("red")

    batches = embedder.stream(pictures())
    next(batches)
    assert len(taken) <= 2 * 2 + 2 * 2 + 2 * 2 + 1


def test_a_clip_of_transformers_embeds_as_the_library_does(tmp_path: Path) -> None:
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *words]
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**size, "vocab_size": len(vocabulary), "max_position_embeddings": 12, "eos_token_id": len(vocabulary) - 1}
    config = CLIPConfig(
        text_config={**text, "bos_token_id": len(vocabulary) - 2, "pad_token_id": len(vocabulary) - 1},
        vision_config={**size, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(config).eval()
    (tmp_path / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(vocabulary)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    for part in (model, tokenizer, processor):
        part.save_pretrained(tmp_path / "clip")

    embedder = ClipEmbedder(EmbedderConfig(model=f"transformers:{tmp_path / 'clip'}", pretrained=None))
    assert str(tmp_path) not in str(embedder.card)
    phrases = ["dog", "a red car", "cat"]
    with torch.inference_mode():
        ids = tokenizer(phrases, padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
        wanted = model.get_text_features(input_ids=ids)
        wanted = getattr(wanted, "pooler_output", wanted)
        with Image.open(io.BytesIO(picture("red"))) as image:
            pixels = processor(images=image, return_tensors="pt")["pixel_values"]
        seen = model.get_image_features(pixel_values=pixels)
        seen = getattr(seen, "pooler_output", seen)
    np.testing.assert_allclose(embedder.texts(phrases), torch.nn.functional.normalize(wanted).numpy(), atol=1e-5)
    np.testing.assert_allclose(
        embedder.images([picture("red")]), torch.nn.functional.normalize(seen).numpy(), atol=1e-5
    )


def test_a_folder_that_holds_no_clip_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        ClipEmbedder(EmbedderConfig(model=f"transformers:{tmp_path}"))
