"""Containers are told by their bytes, never by a name, and a file that breaks off is found where its container says its size."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.containers import check_whole, container_of
from shards.media import probe_media
from shards.records import MediaKind, MediaProblem
from tests.clips import clip_bytes, encoded_sound, sound_bytes


@pytest.mark.parametrize(
    ("form", "codec", "extension"),
    [
        ("mp4", "libx264", "mp4"),
        ("mov", "libx264", "mov"),
        ("matroska", "libx264", "mkv"),
        ("webm", "libvpx", "webm"),
        ("avi", "mpeg4", "avi"),
        ("flv", "flv", "flv"),
        ("mpegts", "mpeg2video", "ts"),
        ("mpeg", "mpeg1video", "mpg"),
    ],
)
def test_a_clip_is_stored_under_the_ending_of_what_it_is(form: str, codec: str, extension: str) -> None:
    data = clip_bytes(form=form, codec=codec, frames=10, fps=25)
    media = probe_media(data, kind="video")
    assert (media.member, media.width, media.height, media.frames) == (extension, 64, 48, 10)


@pytest.mark.parametrize(
    ("form", "codec", "sample_format", "extension"),
    [
        ("flac", "flac", "s16", "flac"),
        ("mp3", "mp3", "fltp", "mp3"),
        ("ogg", "libopus", "s16", "ogg"),
        ("ipod", "aac", "fltp", "m4a"),
        ("mp4", "aac", "fltp", "m4a"),
        ("adts", "aac", "fltp", "aac"),
        ("wav", "pcm_s16le", "s16", "wav"),
    ],
)
def test_a_sound_is_stored_under_the_ending_of_what_it_is(
    form: str, codec: str, sample_format: str, extension: str
) -> None:
    media = probe_media(encoded_sound(form, codec, rate=48000, sample_format=sample_format), kind="audio")
    assert (media.member, media.sample_rate, media.channels) == (extension, 48000, 1)
    assert media.duration_s == pytest.approx(1.0, abs=0.15)  # lossy kinds pad to whole frames


@pytest.mark.parametrize(
    "data", [b"#EXTM3U\n/etc/passwd\n", b"ffconcat version 1.0\nfile x\n", b"plain text", b"\x89PNG\r\n"]
)
def test_playlists_pictures_and_text_are_no_media(data: bytes) -> None:
    with pytest.raises(MediaProblem, match="no clip and no sound") as caught:
        container_of(data)
    assert caught.value.reason == "not_media"


def test_an_empty_file_is_named_so() -> None:
    with pytest.raises(MediaProblem) as caught:
        probe_media(b"", kind="video")
    assert caught.value.reason == "zero_size"


@pytest.mark.parametrize(
    "data",
    [
        clip_bytes(form="mp4"),
        clip_bytes(form="avi", codec="mpeg4"),
        clip_bytes(form="matroska"),
        clip_bytes(form="mpegts", codec="mpeg2video", fps=25),
        sound_bytes(),
        encoded_sound("ogg", "libopus", rate=48000),
        clip_bytes(form="mpeg", codec="mpeg1video", fps=25),
        clip_bytes(form="vob", codec="mpeg2video", fps=25),
        clip_bytes(form="flv", codec="flv"),
    ],
    ids=["mp4", "avi", "mkv", "ts", "wav", "ogg", "mpg", "vob", "flv"],
)
def test_every_cut_is_found_and_the_whole_file_passes(data: bytes) -> None:
    check_whole(data, container_of(data))
    for size in (len(data) - 8, len(data) // 2 | 1, len(data) // 3 | 1):  # no whole number of transport packets
        with pytest.raises(MediaProblem) as caught:
            check_whole(data[:size], container_of(data[:size]))
        assert caught.value.reason == "truncated_media"


def gif_bytes(pictures: int) -> bytes:
    from PIL import Image

    first, *others = [Image.new("P", (16, 12), number) for number in range(pictures)]
    for number, picture in enumerate((first, *others)):
        picture.putpalette([number, 0, 0, 255, 255, 255] * 8)
        picture.putpixel((number, 3), 1)
    output = io.BytesIO()
    first.save(output, "GIF", save_all=True, append_images=others, duration=100)
    return output.getvalue()


@pytest.mark.parametrize("pictures", [1, 5])
@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_gif_that_is_cut_anywhere_is_found_and_a_whole_one_passes(pictures: int, kind: MediaKind) -> None:
    data = gif_bytes(pictures)
    assert probe_media(data, kind=kind).width == 16
    for size in range(6, len(data)):
        with pytest.raises(MediaProblem) as caught:
            probe_media(data[:size], kind=kind)
        assert caught.value.reason == "truncated_media"


@pytest.mark.parametrize("behind", [b"\0", bytes(100), b"junk" * 30], ids=["zero", "zeros", "junk"])
@pytest.mark.parametrize(
    "data",
    [
        gif_bytes(3),
        clip_bytes(form="mpeg", codec="mpeg1video", fps=25),
        clip_bytes(form="vob", codec="mpeg2video", fps=25),
        clip_bytes(form="flv", codec="flv"),
        clip_bytes(form="asf", codec="wmv2"),
    ],
    ids=["gif", "mpg", "vob", "flv", "wmv"],
)
def test_what_stands_behind_the_end_of_a_file_is_no_fault(data: bytes, behind: bytes) -> None:
    check_whole(data + behind, container_of(data))


def test_a_program_stream_whose_packets_do_not_say_their_size_is_taken_as_it_is() -> None:
    data = b"\0\0\1\xba" + b"\x21" + bytes(7) + b"\0\0\1\xe0\0\0" + b"pictures"
    check_whole(data, container_of(data))


def test_zeros_between_the_packs_of_a_program_stream_are_no_end() -> None:
    pack = b"\0\0\1\xba" + b"\x21" + bytes(7) + b"\0\0\1\xe0\0\x08pictures"
    data = pack + bytes(20) + pack
    check_whole(data, container_of(data))
    with pytest.raises(MediaProblem, match="1 are missing"):
        check_whole(data[:-1], container_of(data))


def test_a_windows_media_file_may_lose_its_index_and_nothing_before_it() -> None:
    data = clip_bytes(form="asf", codec="wmv2")
    index = data.index(bytes.fromhex("90080033b1e5cf1189f400a0c90349cb"))
    check_whole(data[:index], container_of(data))
    for size in (index - 1, index // 2, 40):
        with pytest.raises(MediaProblem, match="are missing"):
            check_whole(data[:size], container_of(data))


def test_the_packets_of_a_camera_carry_a_time_before_them() -> None:
    broadcast = clip_bytes(form="mpegts", codec="mpeg2video", fps=25)
    packets = [broadcast[at : at + 188] for at in range(0, len(broadcast), 188)]
    data = b"".join(number.to_bytes(4, "big") + packet for number, packet in enumerate(packets))
    assert probe_media(data, kind="video") == probe_media(broadcast, kind="video")
    with pytest.raises(MediaProblem, match="9 are missing"):
        check_whole(data[:-9], container_of(data))


def test_an_animated_png_that_is_cut_behind_its_first_picture_is_found() -> None:
    from PIL import Image

    pictures = [Image.new("RGB", (16, 12), (number, 0, 90)) for number in range(3)]
    output = io.BytesIO()
    pictures[0].save(output, "PNG", save_all=True, append_images=pictures[1:])
    data = output.getvalue()
    assert probe_media(data, kind="image").member == "png"
    for missing in (1, 12, 40):
        with pytest.raises(MediaProblem) as caught:
            probe_media(data[:-missing], kind="image", check="structure")
        assert caught.value.reason == "truncated_media"


@given(
    start=st.sampled_from(
        [
            b"RIFF\0\0\0\0WAVE",
            b"OggS",
            b"\x1a\x45\xdf\xa3",
            b"\0\0\0\x18ftypisom",
            b"ID3\4\0\0",
            b"GIF89a",
            b"FLV\1\5\0\0\0\t",
            b"\0\0\1\xba",
            bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
        ]
    ),
    rest=st.binary(max_size=200),
)
def test_whatever_follows_a_signature_the_answer_is_media_or_a_reason(start: bytes, rest: bytes) -> None:
    for kind in ("video", "audio"):
        try:
            media = probe_media(start + rest, kind=kind)  # type: ignore[arg-type]
        except MediaProblem:
            continue
        assert media.duration_s is not None
        assert media.duration_s > 0
