"""Clips: frames counted to the end, average rate, size as displayed, sound noted, and every way to be broken named."""

from __future__ import annotations

import pytest

from shards.media import probe_media
from shards.records import MediaProblem
from tests.clips import clip_bytes, cut_without_encoding, sound_bytes, turned


def reason(data: bytes, **limits: int) -> str:
    with pytest.raises(MediaProblem) as caught:
        probe_media(data, kind="video", **limits)
    return caught.value.reason


def test_frames_rate_and_seconds_are_counted() -> None:
    media = probe_media(clip_bytes(frames=20, fps=10), kind="video")
    assert (media.frames, media.fps, media.duration_s) == (20, 10.0, 2.0)
    assert media.sample_rate is None


def test_a_variable_rate_is_an_average_over_the_frames_that_are_there() -> None:
    media = probe_media(clip_bytes(frames=5, times=[0, 10, 20, 120, 200]), kind="video")
    assert media.frames == 5
    assert media.duration_s is not None
    assert media.duration_s >= 2.0
    assert media.fps == pytest.approx(5 / media.duration_s)


def test_a_clip_may_begin_behind_its_only_key_frame() -> None:
    media = probe_media(cut_without_encoding(clip_bytes(frames=20, fps=10), hidden=8), kind="video")
    assert (media.frames, media.duration_s) == (12, 1.2)


def test_the_sound_of_a_clip_is_noted() -> None:
    media = probe_media(clip_bytes(sound=16000), kind="video")
    assert (media.sample_rate, media.channels) == (16000, 1)


@pytest.mark.parametrize(("turns", "size"), [(0, (64, 48)), (1, (48, 64)), (2, (64, 48)), (3, (48, 64))])
def test_the_size_is_as_displayed(turns: int, size: tuple[int, int]) -> None:
    media = probe_media(turned(clip_bytes(), turns), kind="video")
    assert (media.width, media.height) == size


def test_a_sound_track_that_nothing_can_decode_is_none() -> None:
    data = clip_bytes(sound=16000)
    for name in (b"mp4a", b"esds"):  # the two places that say which codec it is
        assert data.count(name) == 1
        data = data.replace(name, b"zzzz")
    media = probe_media(data, kind="video")
    assert (media.frames, media.sample_rate, media.channels) == (20, None, None)


def test_a_sound_is_no_clip() -> None:
    assert reason(sound_bytes()) == "unsupported"


def test_a_clip_with_more_pixels_than_allowed_is_not_decoded() -> None:
    assert reason(clip_bytes(), max_pixels=64 * 48 - 1) == "decompression_bomb"


def test_a_download_that_left_its_end_empty_is_found() -> None:
    data = clip_bytes(form="avi", codec="mpeg4")
    start = data.rindex(b"00dc", 0, data.rindex(b"idx1")) + 8  # behind the name and size of the last picture
    end = data.rindex(b"idx1")
    assert reason(data[:start] + bytes(end - start) + data[end:]) == "truncated_media"


def test_packets_that_do_not_decode_are_found() -> None:
    data = clip_bytes()
    start = data.index(b"mdat") + 4
    assert reason(data[:start] + b"\xaa" * 400 + data[start + 400 :]) == "truncated_media"


def test_two_looks_at_one_clip_say_the_same() -> None:
    data = clip_bytes(form="webm", codec="libvpx", sound=None)
    assert probe_media(data, kind="video") == probe_media(data, kind="video")
