"""Frame exactness: every frame carries its number in its pixels, through every kind of file that trips decoders up."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.clips import Backend, PyavClip, key_frames_near, open_clip
from trainers.decode import DecodeError

pytest.importorskip("av", reason="the extra `video` is not installed")

FFMPEG = shutil.which("ffmpeg")
WIDTH, HEIGHT, BITS = 128, 64, 8
FRAMES = 150

KINDS: dict[str, list[str]] = {
    "regular": ["-c:v", "libx264", "-g", "30", "-bf", "2"],
    "one_group": ["-c:v", "libx264", "-g", "1000", "-bf", "3", "-x264-params", "scenecut=0"],
    "open_group": ["-c:v", "libx264", "-g", "30", "-bf", "3", "-x264-params", "open-gop=1:scenecut=0:keyint=30"],
    "mpeg4_avi": ["-c:v", "mpeg4", "-q:v", "2", "-g", "12"],
    "h264_avi": ["-c:v", "libx264", "-g", "60", "-bf", "2"],
    "transport": ["-c:v", "libx264", "-g", "40", "-bf", "2"],
    "fragments": ["-c:v", "libx264", "-g", "80", "-bf", "2", "-movflags", "frag_keyframe+empty_moov"],
    "gif": ["-pix_fmt", "rgb8"],
    "vp9": ["-c:v", "libvpx-vp9", "-b:v", "1M", "-g", "30", "-deadline", "realtime", "-cpu-used", "8"],
}
ENDINGS = {"mpeg4_avi": "avi", "h264_avi": "avi", "transport": "ts", "gif": "gif", "vp9": "webm"}
OF_PYAV_ALONE = {
    "mpeg4_avi",
    "h264_avi",
    "transport",
}  # of the first two torchcodec gives other frames, of the last none


def painted(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A frame with its number as eight black or white bars, and its upper half brighter at the left."""
    bars = [(number >> bit & 1) * 220 + 16 for bit in range(BITS)]
    row = np.repeat(np.array(bars, dtype=np.uint8), WIDTH // BITS)
    return np.repeat(np.tile(row, (HEIGHT, 1))[:, :, None], 3, axis=2)


def number_in(frame: torch.Tensor) -> int:
    """Read the number back from a decoded frame, (3, H, W)."""
    bars = frame.float().mean(dim=(0, 1)).view(BITS, -1)[:, 4:-4].mean(dim=1)
    return sum(1 << bit for bit, value in enumerate(bars.tolist()) if value > 128)


def ffmpeg(*words: str, given: bytes | None = None) -> None:
    assert FFMPEG is not None
    subprocess.run([FFMPEG, "-v", "error", "-y", *words], input=given, check=True, timeout=120)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if FFMPEG is None:
        pytest.skip("ffmpeg is not installed, so no odd clips can be made")
    folder = tmp_path_factory.mktemp("clips")
    raw = b"".join(painted(number).tobytes() for number in range(FRAMES))
    source = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{WIDTH}x{HEIGHT}",
        "-r",
        "25",
        "-i",
        "-",
        "-pix_fmt",
        "yuv420p",
    ]
    made: dict[str, Path] = {}
    for kind, words in KINDS.items():
        made[kind] = folder / f"{kind}.{ENDINGS.get(kind, 'mp4')}"
        ffmpeg(*source, "-threads", "1", *words, str(made[kind]), given=raw)
    made["variable"] = folder / "variable.mp4"
    # Every third frame stays three times as long, without any frame being repeated.
    stretch = "setpts='round((N+2*floor(N/3))/25/TB)'"
    ffmpeg(
        *source,
        "-vf",
        stretch,
        "-fps_mode",
        "passthrough",
        "-c:v",
        "libx264",
        "-g",
        "30",
        str(made["variable"]),
        given=raw,
    )
    made["cut"] = folder / "cut.mp4"  # begins in the middle of a group: its first frames are hidden by an edit list
    ffmpeg("-ss", "1.5", "-i", str(made["regular"]), "-c", "copy", str(made["cut"]))
    return made


def linear(path: Path) -> list[int]:
    """The numbers of a full decode from the beginning, as every player shows them."""
    import av

    with av.open(str(path)) as opened:
        found = []
        for frame in opened.decode(video=0):
            if frame.pts is None or frame.pts >= 0:
                picture = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
                found.append(number_in(picture))
        return found


EXACT: list[Backend] = ["pyav", "torchcodec"]


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("kind", [*KINDS, "variable", "cut"])
def test_every_frame_is_the_one_that_was_asked_for(clips: dict[str, Path], kind: str, backend: Backend) -> None:
    if backend == "torchcodec":
        pytest.importorskip(
            "torchcodec", reason="the extra `torchcodec` is not installed", exc_type=(ImportError, RuntimeError)
        )  # type: ignore[arg-type]
        if kind in OF_PYAV_ALONE:
            pytest.skip("only PyAV is exact on this kind of file")
    clip = open_clip(clips[kind].read_bytes(), backend=backend)
    expected = linear(clips[kind])
    assert len(clip.times) == len(expected)
    assert list(clip.times) == sorted(clip.times)
    scattered = [0, 1, 29, 30, 31, len(expected) // 2, len(expected) - 1, 59, 60, 3]
    assert [number_in(frame) for frame in clip.frames(scattered)] == [expected[number] for number in scattered]
    assert [number_in(frame) for frame in clip.frames(range(20, 40))] == expected[20:40]
    far = len(expected) * 2 // 3  # from its key frame, and alone
    assert number_in(open_clip(clips[kind].read_bytes(), backend=backend).frames([far])[0]) == expected[far]


def test_times_follow_a_variable_rate(clips: dict[str, Path]) -> None:
    times = open_clip(clips["variable"].read_bytes()).times
    gaps = {round(later - earlier, 3) for earlier, later in pairwise(times)}
    assert gaps == {0.04, 0.12}


def test_decord_reads_plain_clips(clips: dict[str, Path]) -> None:
    pytest.importorskip("decord", reason="decord has no wheel here")
    clip = open_clip(clips["regular"].read_bytes(), backend="decord")
    assert [number_in(frame) for frame in clip.frames([0, 77, 149, 3])] == [0, 77, 149, 3]
    assert clip.times[50] == pytest.approx(2.0)


def test_frames_are_turned_as_displayed(clips: dict[str, Path], tmp_path: Path) -> None:
    turned = tmp_path / "turned.mp4"
    ffmpeg("-i", str(clips["regular"]), "-c", "copy", "-metadata:s:v:0", "rotate=90", str(turned))
    upright = tmp_path / "upright.png"
    ffmpeg("-i", str(turned), "-frames:v", "1", str(upright))  # ffmpeg turns frames when it re-encodes
    from PIL import Image

    shown = torch.from_numpy(np.array(Image.open(upright).convert("RGB"))).permute(2, 0, 1)
    frame = open_clip(turned.read_bytes()).frames([0])[0]
    assert frame.shape == shown.shape == (3, WIDTH, HEIGHT)
    assert (frame.float() - shown.float()).abs().mean() < 2


def test_key_frames_are_near_and_decode_as_themselves(clips: dict[str, Path]) -> None:
    clip = PyavClip(clips["regular"].read_bytes())
    assert clip.key_frames[0] == 0
    near = key_frames_near(clip, [0, 44, 149])
    assert set(near) <= set(clip.key_frames)
    assert [number_in(frame) for frame in clip.frames(near)] == near


def test_torchcodec_is_not_given_files_of_which_it_shows_other_frames(clips: dict[str, Path]) -> None:
    pytest.importorskip(
        "torchcodec", reason="the extra `torchcodec` is not installed", exc_type=(ImportError, RuntimeError)
    )  # type: ignore[arg-type]
    with pytest.raises(DecodeError, match=r"AVI holds no presentation times.*backend=pyav"):
        open_clip(clips["h264_avi"].read_bytes(), backend="torchcodec")


def test_frames_that_change_their_size_are_refused(clips: dict[str, Path], tmp_path: Path) -> None:
    whole = b""
    for width in (WIDTH, 2 * WIDTH):  # a transport stream may go on in another size
        part = tmp_path / f"{width}.ts"
        ffmpeg("-i", str(clips["regular"]), "-vf", f"scale={width}:{HEIGHT}", "-c:v", "libx264", str(part))
        whole += part.read_bytes()
    clip = open_clip(whole)
    with pytest.raises(DecodeError, match=r"of several sizes: \[\(128, 64\), \(256, 64\)\]"):
        clip.frames([0, len(clip.times) - 1])


def test_no_clip_a_cut_clip_and_a_frame_that_is_not_there(clips: dict[str, Path]) -> None:
    with pytest.raises(DecodeError, match="not a clip"):
        open_clip(b"no clip at all, only some words")
    with pytest.raises(IndexError, match="frame 150 of a clip of 150"):
        open_clip(clips["regular"].read_bytes()).frames([150])
    data = clips["vp9"].read_bytes()
    with pytest.raises(DecodeError, match="are missing"):
        open_clip(data[: len(data) // 2])
