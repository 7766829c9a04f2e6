from __future__ import annotations

import io
import struct
import typing
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.media import Check, MediaProblem, probe_image


def _encoded(kind: str, *, size: tuple[int, int] = (40, 24), mode: str = "RGB", **options: Any) -> bytes:
    noise = Image.effect_noise(size, 90).convert(mode)
    out = io.BytesIO()
    noise.save(out, kind, **options)
    return out.getvalue()


def _png(width: int, height: int) -> bytes:
    """A PNG whose header may lie about the few pixels that follow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    )


def _jpeg_without_rows() -> bytes:
    data = bytearray(_encoded("JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = b"\0\0"
    return bytes(data)


_CHECKS: tuple[Check, ...] = typing.get_args(Check)


@pytest.mark.parametrize("check", _CHECKS)
@pytest.mark.parametrize(
    ("kind", "extension", "mode"),
    [
        ("JPEG", "jpg", "RGB"),
        ("JPEG", "jpg", "CMYK"),
        ("JPEG", "jpg", "L"),
        ("PNG", "png", "RGBA"),
        ("PNG", "png", "P"),
        ("PNG", "png", "I;16"),
        ("WEBP", "webp", "RGB"),
        ("GIF", "gif", "P"),
        ("BMP", "bmp", "RGB"),
        ("TIFF", "tif", "RGB"),
    ],
)
def test_a_picture_is_known_by_its_bytes(kind: str, extension: str, mode: str, check: Check) -> None:
    assert probe_image(_encoded(kind, mode=mode), check=check) == (extension, 40, 24)


@pytest.mark.parametrize("check", _CHECKS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(9))
def test_width_and_height_are_as_displayed(orientation: int, kind: str, check: Check) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    displayed = (24, 40) if orientation >= 5 else (40, 24)
    extension = {"JPEG": "jpg", "PNG": "png"}[kind]
    assert probe_image(_encoded(kind, exif=exif), check=check) == (extension, *displayed)


@pytest.mark.parametrize("check", _CHECKS)
def test_broken_exif_does_not_break_a_picture(check: Check) -> None:
    data = _encoded("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert probe_image(data, check=check) == ("jpg", 40, 24)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "zero_size"),
        (_png(0, 5), "zero_size"),
        (_jpeg_without_rows(), "zero_size"),
        (b"<!DOCTYPE html><html>404 not found</html>", "not_media"),
        (b"\0" * 5000, "not_media"),
        (b"\xff\xd8", "truncated_media"),
        (_encoded("JPEG")[:200], "truncated_media"),
        (_encoded("PNG")[:30], "truncated_media"),
        (_png(50, 50), "truncated_media"),
        (_png(60_000, 60_000), "decompression_bomb"),
        (_encoded("ICO"), "unsupported"),
    ],
)
def test_every_kind_of_bad_picture_has_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MediaProblem) as problem:
        probe_image(data)
    assert problem.value.reason == reason
    assert problem.value.detail


@pytest.mark.parametrize("check", _CHECKS)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_picture_cut_anywhere_is_found(kind: str, check: Check) -> None:
    data = _encoded(kind, size=(64, 64))
    for end in range(1, len(data) - 24, max(1, len(data) // 60)):  # the last bytes are checksums
        with pytest.raises(MediaProblem):
            probe_image(data[:end], check=check)


@pytest.mark.parametrize("check", _CHECKS)
def test_the_limit_on_pixels_is_the_callers(check: Check) -> None:
    data = _encoded("PNG", size=(40, 24))
    assert probe_image(data, max_pixels=960, check=check) == ("png", 40, 24)
    with pytest.raises(MediaProblem, match="40x24 pixels are more than 959"):
        probe_image(data, max_pixels=959, check=check)


@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=4)), max_size=8),
)
def test_whatever_the_bytes_are_the_answer_is_a_size_or_a_reason(kind: str, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(_encoded(kind, size=(16, 16)))
    for place, patch in changes:
        start = place % len(data)
        data[start : start + len(patch)] = patch
    for check in _CHECKS:
        try:
            _, width, height = probe_image(bytes(data), check=check)
        except MediaProblem:
            continue
        assert width > 0
        assert height > 0


def test_decoding_finds_samples_that_are_broken_inside_whole_chunks() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    samples = chunk(b"IDAT", b"\x78\x9c" + b"garbage" * 40)
    with pytest.raises(MediaProblem, match="truncated_media"):
        probe_image(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + samples + chunk(b"IEND", b""), check="decode")
