from __future__ import annotations

import io
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shards.media import MediaProblem, probe_image
from shards.structure import outline


def _jpeg(*, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"optimize": True}, {"subsampling": 2}, {"quality": 1}, {"restart_marker_blocks": 1}],
    ids=str,
)
def test_usual_pictures_are_told_whole_without_a_decoder(mode: str, options: dict[str, Any]) -> None:
    found = outline(_jpeg(mode=mode, **options))
    assert found is not None
    assert (found.extension, found.width, found.height, found.orientation) == ("jpg", 64, 48, 1)


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (480, 640), (12, 0xFFDA), (0xFFC0, 17)])
def test_pictures_of_one_encoder_are_known_again_by_all_but_their_sides(size: tuple[int, int]) -> None:
    whole = _jpeg()
    frame = whole.index(b"\xff\xc0") + 5
    data = whole[:frame] + size[1].to_bytes(2, "big") + size[0].to_bytes(2, "big") + whole[frame + 4 :]
    for _ in range(2):
        found = outline(data)
        assert found is not None
        assert (found.width, found.height) == size
        assert data[found.start :] == whole[found.start :]


def test_what_looks_like_a_frame_and_a_scan_inside_of_a_comment_is_none() -> None:
    decoy = b"\xff\xc0\x00\x11\x08\x00\x05\x00\x05\x03" + bytes(9) + b"\xff\xda\x00\x0c\x03" + bytes(20)
    whole = _jpeg()
    data = whole[:2] + b"\xff\xfe" + (len(decoy) + 2).to_bytes(2, "big") + decoy + whole[2:]
    found = outline(data)
    assert found is not None
    assert (found.width, found.height) == (64, 48)


def test_the_orientation_is_read_and_an_odd_one_is_left_to_a_decoder() -> None:
    found = outline(_jpeg(exif=_orientation(6)))
    assert found is not None
    assert (found.width, found.height, found.orientation) == (64, 48, 6)
    assert outline(_jpeg(exif=_orientation(9))) is None
    assert outline(_jpeg(xmp=b'<x tiff:Orientation="6"/>')) is None


def test_an_end_marker_inside_a_thumbnail_does_not_make_a_picture_whole() -> None:
    data = _jpeg(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0" + _jpeg(size=(8, 8)))
    assert outline(data) is not None
    assert all(outline(data[:end]) is None for end in range(len(data) - 2))


@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4"], ids=["quantizers", "coders"])
def test_a_picture_without_one_of_its_tables_is_not_whole(marker: bytes) -> None:
    data = _jpeg()
    place = data.index(marker)
    length = int.from_bytes(data[place + 2 : place + 4], "big")
    assert outline(data[:place] + data[place + 2 + length :]) is None


def test_one_wrong_bit_in_any_chunk_of_a_png_is_seen() -> None:
    out = io.BytesIO()
    Image.effect_noise((16, 12), 90).save(out, "PNG")
    data = out.getvalue()
    assert outline(data) is not None
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        assert outline(bytes(damaged)) is None


@given(place=st.integers(0, 700), bit=st.integers(0, 7))
def test_a_wrong_bit_never_makes_another_size_than_a_decoder_finds(place: int, bit: int) -> None:
    data = bytearray(_jpeg(mode="L", exif=_orientation(8)))
    data[place % len(data)] ^= 1 << bit
    found = outline(bytes(data))
    if found is None:
        return
    try:
        decoded = probe_image(bytes(data), check="decode")
    except MediaProblem:
        return  # a decoder sees more; that it never sees another picture is what counts here
    sides = (found.height, found.width) if found.orientation >= 5 else (found.width, found.height)
    assert (found.extension, *sides) == decoded


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_the_smallest_pngs_of_every_kind_are_whole(mode: str) -> None:
    out = io.BytesIO()
    Image.new(mode, (1500, 1000)).save(out, "PNG", optimize=True)  # as well packed as samples can be
    assert outline(out.getvalue()) is not None


def test_a_png_that_promises_more_than_its_data_can_hold_is_left_to_a_decoder() -> None:
    out = io.BytesIO()
    Image.new("L", (64, 48)).save(out, "PNG")
    small = out.getvalue()
    header = b"IHDR" + (12000).to_bytes(4, "big") * 2 + small[24:29]
    data = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    assert outline(data) is None
    with pytest.raises(MediaProblem, match="truncated_media"):
        probe_image(data, check="structure")


def test_other_formats_are_left_to_a_decoder() -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "WEBP")
    assert outline(out.getvalue()) is None
    assert outline(b"") is None
