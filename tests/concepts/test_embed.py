from __future__ import annotations

import io
from collections.abc import Callable
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
