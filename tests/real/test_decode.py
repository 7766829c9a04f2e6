from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from shards.records import Media, Origin, Record
from trainers.augment import AugmentConfig, EvalView, Interpolation, TrainView
from trainers.decode import decode_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif"}
PER_FOLDER = 25  # spread over its names, so that every folder is looked at and the test stays quick


def real_pictures(folder: Path) -> list[Path]:
    """Some pictures of every folder of the real files."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            found.setdefault(path.parent, []).append(path)
    return [path for paths in found.values() for path in paths[:: -(-len(paths) // PER_FOLDER)]]


def test_every_real_picture_decodes_to_what_pillow_shows(real_data: Path) -> None:
    paths = real_pictures(real_data)
    assert len(paths) > 50
    for path in paths:
        data = path.read_bytes()
        shown = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if "A" in shown.getbands() or "transparency" in shown.info:
            continue  # laid over white here, cut off there
        expected = np.asarray(shown.convert("RGB")).astype(int)
        ours = decode_image(data).permute(1, 2, 0).numpy()
        assert ours.shape == expected.shape, path
        assert np.abs(ours - expected).max() <= 2, path


def test_views_show_real_photos_at_the_familys_size_and_the_whole_of_them_in_evaluation(real_data: Path) -> None:
    for number, path in enumerate(real_pictures(real_data)[::5]):
        data = path.read_bytes()
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        media = Media(member="jpg", kind="image", width=picture.width, height=picture.height)
        origin = Origin(dataset="real", split="any", id=path.stem)
        record = Record(key=f"real-{number}", origin=origin, media=(media,), annotations=(), payload={"jpg": data})
        crop = TrainView(96, AugmentConfig())(record, np.random.default_rng(number))
        whole = EvalView(96)(record, np.random.default_rng(0))
        assert crop.shape == whole.shape == (3, 96, 96)
        assert crop.dtype == torch.uint8
        by_pillow = np.asarray(picture.resize((96, 96), Image.Resampling.BICUBIC)).astype(int)
        difference = whole.permute(1, 2, 0).numpy() - by_pillow
        assert 10 * np.log10(255**2 / max(1e-9, float((difference**2).mean()))) > 45, path  # dB; 8-bit rounding is 50


@pytest.mark.parametrize(("interpolation", "most"), [("bilinear", 1), ("bicubic", 2)])
def test_a_crop_of_a_real_photo_is_the_one_that_pillow_cuts_and_resizes(
    real_data: Path, interpolation: Interpolation, most: int
) -> None:
    view = TrainView(96, AugmentConfig(interpolation=interpolation, flip=0))
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    for number, path in enumerate(real_pictures(real_data)[::3]):
        data = path.read_bytes()
        with Image.open(path) as opened:
            if "A" in opened.getbands() or "transparency" in opened.info:
                continue  # laid over white here
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        media = Media(member="jpg", kind="image", width=picture.width, height=picture.height)
        origin = Origin(dataset="real", split="any", id=path.stem)
        record = Record(key=f"real-{number}", origin=origin, media=(media,), annotations=(), payload={"jpg": data})
        crop = view.draw(picture.height, picture.width, np.random.default_rng(number)).crop
        cut = picture.crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
        expected = np.asarray(cut.resize((96, 96), filters[interpolation])).astype(int)
        ours = view(record, np.random.default_rng(number)).permute(1, 2, 0).numpy()
        assert np.abs(ours - expected).max() <= most, path
