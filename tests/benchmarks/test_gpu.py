"""The benchmark of a GPU runs without our other dependencies, and on a CPU too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.device import Device
from benchmarks.gpu.encoder import measure_encoder
from benchmarks.gpu.feeding import measure_loader, quickest_step, wait_of, waiting

ROOT = Path(__file__).resolve().parents[2]
# What a machine with torch, timm and transformers, pydantic and xxhash need not have.
ELSEWHERE = (
    *(
        "ray",
        "webdataset",
        "pyarrow",
        "pandas",
        "open_clip",
        "spacy",
        "simplejpeg",
        "rich",
        "tensorboard",
        "fsspec",
        "s3fs",
    ),
    *("torchvision", "torchaudio", "av", "decord", "soundfile", "h5py", "PIL", "yaml", "tokenizers", "safetensors"),
)
BLOCKED_RUN = """
import runpy, sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
sys.argv = ["benchmarks.gpu", *{arguments}]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


def _blocked(names: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED_RUN.format(blocked=set(names), arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_steps_are_measured_without_our_other_dependencies_and_the_loader_says_what_it_lacks() -> None:
    ran = _blocked(ELSEWHERE, "--device", "cpu", "--tiny", "--parts", "peak,step,loader")
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = json.loads(ran.stdout)
    assert found["product_tflop_per_s"]["fp32"] > 0
    assert found["step"]["gflop_per_picture"]["straight"] > found["step"]["gflop_per_picture"]["ours"] > 0
    ways = found["step"]["ways"]
    assert {"ours_bf16", "ours_bf16_checkpointed", "ours_bf16_channels_last", "ours_fp32", "straight_fp32"} == set(ways)
    for name, way in ways.items():
        assert way["seconds"]["median"] > 0
        assert ("share_of_measured_bf16_peak" in way) == name.startswith("ours")
    assert ways["straight_fp32"]["straight_fp32_to_it"] == 1
    assert any(name in found["loader"]["absent"] for name in ELSEWHERE)
    assert "absent" in found["waiting"]


def test_without_the_little_it_needs_it_says_what_to_bring() -> None:
    ran = _blocked(("pydantic",), "--device", "cpu", "--tiny")
    assert ran.returncode == 2
    assert ran.stderr.strip().splitlines()[-1].startswith("python -m benchmarks.gpu needs pydantic; bring its wheel")


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--parts", "steps"])
    assert "known are peak, step, clip, loader" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_cuda_device_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_the_encoder_is_measured_beside_resident_tensors() -> None:
    found = measure_encoder(Device("cpu"), tiny=True, pictures=6, batch=4, rounds=1)
    assert 0 < found["share_of_resident_rate"] < 1


def test_the_loader_is_measured_over_shards_made_of_nothing() -> None:
    found = measure_loader(photos=12, batch=4, image_size=32, rounds=1, workers=1)
    assert found["pictures_per_s"]["median"] > 0
    assert found["one_process_per_s"]["median"] > 0


def test_a_loader_that_keeps_up_makes_no_step_wait_and_a_slow_one_makes_it_wait_for_the_rest() -> None:
    quick = waiting(step_per_s=100.0, loader_per_s=40.0, loader_workers=2, workers=8)
    assert quick["loader_per_s"] == 160
    assert quick["share_of_step_time_waiting"] == 0
    slow = waiting(step_per_s=100.0, loader_per_s=10.0, loader_workers=1, workers=8)
    assert slow["share_of_step_time_waiting"] == 0.2


def test_waiting_is_judged_by_the_quickest_of_our_steps() -> None:
    ways = {
        "ours_bf16": {"pictures_per_s": {"median": 50.0}},
        "ours_bf16_compiled": {"pictures_per_s": {"median": 80.0}},
        "straight_fp32": {"pictures_per_s": {"median": 900.0}},
        "ours_fp32": {"absent": "out of memory"},
    }
    loader = {"workers": 4, "one_process_per_s": {"median": 10.0}, "pictures_per_s": {"median": 30.0}}
    found = wait_of(quickest_step({"ways": ways}), loader)
    assert found["from_one_process"]["loader_to_step"] == 1
    assert found["from_all_workers"]["share_of_step_time_waiting"] == 0.25
    assert "absent" in wait_of(quickest_step({"ways": {}}), loader)
