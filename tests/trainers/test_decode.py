from __future__ import annotations

import io
import random
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from shards.media import probe_media
from shards.records import MediaProblem
from trainers.decode import DecodeError, decode_image, decode_rows, jpeg_size

ORIENTATION = 0x0112


def scene(width: int = 60, height: int = 40) -> Image.Image:
    """A smooth picture without symmetry: every turn and mirror of it differs."""
    down, right = np.mgrid[0:height, 0:width]
    channels = [255 * right / width, 255 * down / height, 255 * (right / width) * (down / height)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


def packed(picture: Image.Image, form: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **settings)
    return file.getvalue()


def shown(data: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Decode to (H, W, 3), signed for differences."""
    return decode_image(data).permute(1, 2, 0).numpy().astype(np.int64)


def by_pillow(data: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert picture is not None
    return np.asarray(picture.convert("RGB")).astype(np.int64)


@pytest.mark.parametrize(
    "settings", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"optimize": True}]
)
def test_a_jpeg_decodes_to_the_pixels_that_pillow_shows(settings: dict[str, Any]) -> None:
    data = packed(scene(), "JPEG", **settings)
    assert shown(data).shape == (40, 60, 3)
    assert np.abs(shown(data) - by_pillow(data)).max() <= 2  # builds of libjpeg-turbo may round differently


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_honoured(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = packed(scene(), form, exif=exif, quality=95)
    assert shown(data).shape[:2] == ((40, 60) if orientation < 5 else (60, 40))
    assert np.abs(shown(data) - by_pillow(data)).max() <= 2


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG"), ("P", "GIF")]
)
def test_every_colour_mode_comes_out_as_rgb(mode: str, form: str) -> None:
    data = packed(scene().convert(mode), form)
    assert np.abs(shown(data) - by_pillow(data)).max() <= 2
    if mode != "1":
        grey = scene().convert("L").convert("RGB") if mode == "L" else scene()
        assert np.abs(shown(data) - np.asarray(grey)).mean() < 24  # the palette of the web is coarse


def test_an_inverted_cmyk_jpeg_of_a_print_shop_shows_its_true_colours() -> None:
    # Such files hold 255 − ink and say so in an Adobe marker; ink 0 everywhere but yellow is a yellow picture.
    ink = np.zeros((16, 16, 4), dtype=np.uint8)
    ink[:, :, 2] = 255
    data = packed(Image.fromarray(ink, mode="CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    assert jpeg_size(data) == (16, 16)
    assert np.abs(shown(data) - [255, 255, 0]).max() < 12


def test_sixteen_bits_are_cut_to_eight_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 32 * 8).astype(np.uint16).reshape(8, 32)
    pixels = shown(packed(Image.fromarray(ramp), "PNG"))
    assert (pixels == (ramp >> 8)[:, :, None]).all()
    assert len(np.unique(pixels)) > 200


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_laid_over_white(form: str) -> None:
    picture = scene().convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 0))
    assert (shown(packed(picture, form)) == 255).all()


def test_a_palette_with_a_transparent_colour_is_laid_over_white() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((0, 0), 0)
    pixels = shown(packed(picture, "PNG", transparency=0))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [0, 255, 0]


def test_of_an_animation_the_first_frame_is_shown() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        data = packed(frames[0], form, save_all=True, append_images=frames[1:])
        assert np.abs(shown(data) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>gone</html>",
        b"\xff\xd8\xff\xe0",
        packed(scene(), "JPEG")[:-200],
        packed(scene(), "JPEG")[:30],
        packed(scene(), "PNG")[:-60],
        packed(Image.new("F", (4, 4)), "TIFF"),
    ],
    ids=["nothing", "a page", "a stub", "cut off", "cut in the header", "cut png", "floating point"],
)
def test_what_cannot_be_shown_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_image(data)


def test_a_bomb_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.decode.MAX_PIXELS", 100)
    for form in ("JPEG", "PNG"):
        with pytest.raises(DecodeError, match="60 x 40"):
            decode_image(packed(scene(), form))


def test_the_frame_header_is_found_behind_other_segments() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = packed(scene(), "JPEG", exif=exif, comment=b"\xff\xc0 not a frame", icc_profile=bytes(3000))
    assert jpeg_size(data) == (60, 40)
    assert jpeg_size(packed(scene(), "PNG")) is None


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colours that change from pixel to pixel, so that a row that is missing beneath another would show in it."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8))


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 120),
    until=st.integers(1, 120),
    subsampling=st.sampled_from([0, 1, 2]),
    quality=st.sampled_from([30, 75, 95]),
    restart=st.sampled_from([0, 1, 3]),
    grey=st.booleans(),
)
def test_the_upper_rows_are_those_of_the_whole_picture(
    *, width: int, height: int, until: int, subsampling: int, quality: int, restart: int, grey: bool
) -> None:
    picture = noise(width, height).convert("L") if grey else noise(width, height)
    data = packed(picture, "JPEG", quality=quality, subsampling=subsampling, restart_marker_blocks=restart)
    upper = decode_rows(data, until)
    assert (upper.width, upper.height) == (width, height)
    assert upper.pixels.shape[1] >= min(until, height)
    assert torch.equal(upper.pixels[:, :until], decode_image(data)[:, : min(until, upper.pixels.shape[1])])


def test_rows_that_are_not_asked_for_are_left_out_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    assert decode_rows(packed(noise(64, 400), "JPEG"), 100).pixels.shape[1] < 200
    assert capfd.readouterr() == ("", "")


def test_a_picture_that_does_not_come_from_top_to_bottom_is_decoded_whole() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for settings_ in ({"progressive": True}, {"exif": exif}):
        data = packed(noise(64, 400), "JPEG", **settings_)
        assert torch.equal(decode_rows(data, 10).pixels, decode_image(data))


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_jpeg_that_is_cut_off_is_found_even_where_its_upper_rows_are_there(kept: float) -> None:
    data = packed(noise(64, 400), "JPEG")
    with pytest.raises(DecodeError):
        decode_rows(data[: int(kept * len(data))], 10)


def test_without_simplejpeg_pictures_are_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(noise(64, 400), "JPEG")
    upper = decode_rows(data, 100).pixels
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    whole = decode_rows(data, 100).pixels
    assert whole.shape[1] == 400
    assert torch.equal(whole[:, :100], upper[:, :100])


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 120),
    until=st.one_of(st.none(), st.integers(1, 120)),
    shrink=st.sampled_from([2, 4, 8]),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
)
def test_a_shrunk_picture_has_the_fraction_of_rows_and_columns_that_it_says(
    *, width: int, height: int, until: int | None, shrink: int, subsampling: int, progressive: bool
) -> None:
    data = packed(noise(width, height), "JPEG", subsampling=subsampling, progressive=progressive)
    whole, upper = decode_rows(data, shrink=shrink), decode_rows(data, until, shrink=shrink)
    assert (whole.width, whole.height, whole.shrink, upper.shrink) == (width, height, shrink, shrink)
    assert whole.pixels.shape == (3, -(-height // shrink), -(-width // shrink))
    rows = upper.pixels.shape[1]
    wanted = -(-min(until or height, height) // shrink)
    assert rows >= wanted
    assert torch.equal(upper.pixels[:, :wanted], whole.pixels[:, :wanted])


@pytest.mark.parametrize("form", ["PNG", "turned JPEG"])
def test_what_cannot_be_shrunk_comes_whole_and_says_so(form: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = packed(scene(), "PNG") if form == "PNG" else packed(scene(), "JPEG", exif=exif)
    assert decode_rows(data, 10, shrink=2).shrink == 1
    assert torch.equal(decode_rows(data, 10, shrink=2).pixels, decode_image(data))


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what is broken
def test_what_passed_as_a_picture_decodes_in_that_size_and_all_else_is_refused_however_it_is_broken() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    forms = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", *(("AVIF",) if features.check("avif") else ()))
    whole = [packed(scene(), form, exif=exif) for form in forms]
    draw = random.Random(7)
    passed = 0
    for _ in range(700):
        data = bytearray(draw.choice(whole))
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(min(len(data), draw.choice((60, 10**9))))
            data[place] ^= 1 << draw.randrange(8)
        try:
            media = probe_media(bytes(data), kind="image")
        except MediaProblem:
            with suppress(DecodeError):
                decode_image(bytes(data))
            continue
        passed += 1
        assert decode_image(bytes(data)).shape == (3, media.height, media.width)
    assert passed > 100
