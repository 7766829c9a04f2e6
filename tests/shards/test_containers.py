"""Containers are told by their bytes, never by a name, and a file that breaks off is found where its container says its size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.containers import check_whole, container_of
from shards.media import probe_media
from shards.records import MediaProblem
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
    ],
    ids=["mp4", "avi", "mkv", "ts", "wav", "ogg"],
)
def test_every_cut_is_found_and_the_whole_file_passes(data: bytes) -> None:
    check_whole(data, container_of(data))
    for size in (len(data) - 8, len(data) // 2 | 1, len(data) // 3 | 1):  # no whole number of transport packets
        with pytest.raises(MediaProblem) as caught:
            check_whole(data[:size], container_of(data[:size]))
        assert caught.value.reason == "truncated_media"


@given(
    start=st.sampled_from([b"RIFF\0\0\0\0WAVE", b"OggS", b"\x1a\x45\xdf\xa3", b"\0\0\0\x18ftypisom", b"ID3\4\0\0"]),
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
