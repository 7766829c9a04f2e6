"""Any frame of every real clip, asked for alone or with others, is the one that a decoding from the beginning shows there."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from shards.video import probe_video
from trainers.clips import open_clip

av = pytest.importorskip("av", reason="the extra `video` is not installed")

SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm"}
ASKED = 9  # at once, and as many again one by one


def test_frames_of_real_clips_are_those_of_a_decoding_from_the_beginning(real_data: Path) -> None:
    paths = [path for path in sorted(real_data.rglob("*")) if path.suffix in SUFFIXES]
    assert paths
    for path in paths:
        data = path.read_bytes()
        clip = open_clip(data)
        length = len(clip.times)
        assert probe_video(data, max_pixels=10**8).frames == length, path
        draw = random.Random(path.name)
        together, alone = (draw.choices(range(length), k=ASKED) for _ in range(2))
        shown = dict(zip(together, clip.frames(together), strict=True))
        shown |= {number: open_clip(data).frames([number])[0] for number in alone}
        count = 0
        with av.open(str(path)) as opened:
            for count, frame in enumerate(opened.decode(opened.streams.best("video")), start=1):
                if count - 1 in shown:
                    expected = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                    assert np.array_equal(shown[count - 1].permute(1, 2, 0).numpy(), expected), (path, count - 1)
        assert count == length, path
