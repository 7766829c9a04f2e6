"""The `shards` verb as a person runs it: results, plans, resume after a kill, and mistakes in one sentence."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.config import load_config, preset_names, read_preset
from jobs.ray_executor import SUBMITTED_JOB
from jobs.verbs.shards import Config
from shards.reader import open_dataset

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def raw(tmp_path: Path) -> list[str]:
    """Command line words of a COCO folder of 40 pictures, two of them broken."""
    from PIL import Image

    folder = tmp_path / "val2017"
    folder.mkdir()
    images, annotations = [], []
    for number in range(40):
        images.append({"id": number, "file_name": f"{number:012}.jpg"})
        annotations.append({"id": 100 + number, "image_id": number, "caption": f"Picture number {number}."})
        Image.new("RGB", (320, 240), (number, 2 * number, 50)).save(folder / f"{number:012}.jpg")
    (folder / f"{7:012}.jpg").unlink()
    (folder / f"{31:012}.jpg").write_bytes(b"<html>")
    (tmp_path / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return [
        "source.kind=coco_captions",
        f"source.annotations={tmp_path / 'captions_val2017.json'}",
        f"source.media={folder}",
        "records_per_shard=4",
    ]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_result_is_one_line_on_standard_output(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shards", *raw, f"output={tmp_path / 'out'}"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("coco_captions-val: 38 records, 38 annotations, 10 shards, ")
    assert "missing_media 1" in line
    assert "not_media 1" in line
    assert line.endswith(f"-> {tmp_path / 'out'}")
    assert len(open_dataset(tmp_path / "out")) == 38


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shards", *raw, f"output={tmp_path / 'out'}", "--dry-run"]) == 0
    plan = capsys.readouterr().out.splitlines()[-1]
    assert plan.startswith("coco_captions-val: 40 raw items in 10 units (10 left), about ")
    assert not (tmp_path / "out").exists()


def test_the_folder_a_command_is_given_in_does_not_change_the_dataset(
    raw: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["shards", *raw, f"output={tmp_path / 'absolute'}"]) == 0
    monkeypatch.chdir(tmp_path)
    relative = [word.replace(f"{tmp_path}/", "") for word in raw]
    assert main(["shards", *relative, "output=relative"]) == 0
    assert tree(tmp_path / "relative") == tree(tmp_path / "absolute")


def test_a_run_killed_at_any_moment_is_resumed_to_the_same_bytes(raw: list[str], tmp_path: Path) -> None:
    assert main(["shards", *raw, f"output={tmp_path / 'straight'}"]) == 0
    command = [sys.executable, "-m", "jobs", "shards", *raw, f"output={tmp_path / 'killed'}"]
    moments = random.Random(11)
    for _ in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        commits = tmp_path / "killed" / "commits"
        before = len(list(commits.glob("*"))) if commits.is_dir() else 0
        while process.poll() is None and not (commits.is_dir() and len(list(commits.glob("*"))) > before):
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(["shards", *raw, f"output={tmp_path / 'killed'}"]) == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "straight")


def test_a_second_run_does_nothing_and_says_so(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["shards", *raw, f"output={tmp_path / 'out'}"]
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()}
    capsys.readouterr()
    assert main(words) == 0
    assert "nothing was left to convert" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()} == before


def test_mistakes_are_one_sentence_with_exit_code_2_and_nothing_is_written(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"output={tmp_path / 'out'}"
    for words, says in (
        ([*raw, output, "records_per_shards=3"], "did you mean 'records_per_shard'"),
        ([*raw, output, "source.anotations=3"], "did you mean 'annotations'"),
        ([*raw, output, "source.kind=coco"], "source.kind"),
        ([*raw, output, "source.media=/nowhere"], "/nowhere does not exist"),
        ([*raw, output, "transforms=[clean_txt]"], "did you mean 'clean_text'"),
        ([*raw, output, "executor=inline", "workers=2"], "say executor=ray"),
        ([*raw], "missing key 'output'"),
    ):
        assert main(["shards", *words]) == 2, says
        assert says in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_another_config_in_the_same_folder_is_refused_before_work_starts(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"output={tmp_path / 'out'}"
    assert main(["shards", *raw, output]) == 0
    before = tree(tmp_path / "out")
    assert main(["shards", *raw, output, "records_per_shard=5"]) == 1
    assert "another config: records_per_shard (" in (said := capsys.readouterr().err)
    assert "→ 5)" in said
    assert tree(tmp_path / "out") == before
    assert main(["shards", *raw, output, "transforms=[clean_text]"]) == 1
    assert "transforms.0.kind (None → 'clean_text')" in capsys.readouterr().err


def test_too_many_rejects_stop_the_run_early(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["shards", *raw, f"output={tmp_path / 'out'}", "reject_count=0", "reject_share=0.01"]
    assert main(words) == 1
    assert "missing_media 1" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "commits").iterdir())) == 2
    assert main(words) == 1
    assert main([*words, "reject_count=10"]) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission_is_one_sentence(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert main(["shards", *raw, f"output={tmp_path / 'locked' / 'out'}"]) == 2
    assert "locked" in capsys.readouterr().err


def test_an_output_below_a_file_is_one_sentence(
    raw: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        assert main(["shards", *raw, f"output={output}"]) == 2
        assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err


def test_the_executor_settings_are_no_part_of_the_conversion() -> None:
    source = {"kind": "coco_captions", "annotations": "a.json", "media": "m"}
    inline = Config(source=source, output="out")
    on_ray = Config(source=source, output="out", executor="ray", workers=7)
    assert inline.conversion() == on_ray.conversion()


def test_relative_paths_are_refused_where_they_would_point_into_an_uploaded_copy(
    raw: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SUBMITTED_JOB, "{}")
    assert main(["shards", *raw, "output=runs/coco"]) == 2
    assert "output=runs/coco is relative" in capsys.readouterr().err


def test_pictures_and_dataset_may_lie_on_any_storage(raw: list[str], tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    for photo in (tmp_path / "val2017").iterdir():
        system.pipe_file(f"/verb/val2017/{photo.name}", photo.read_bytes())
    assert main(["shards", *raw, f"output={tmp_path / 'local'}"]) == 0
    remote = [word if "media" not in word else "source.media=memory://verb/val2017" for word in raw]
    assert main(["shards", *remote, "output=memory://verb/out"]) == 0
    found = {str(name).removeprefix("/verb/out/"): system.cat_file(name) for name in system.find("/verb/out")}
    assert found == tree(tmp_path / "local")


@pytest.mark.parametrize("preset", preset_names("shards"))
def test_a_preset_needs_nothing_but_the_places_of_files(preset: str, tmp_path: Path) -> None:
    kind = read_preset(preset, verb="shards")["source"]["kind"]
    model = importlib.import_module(f"pipelines.sources.{kind}").Config
    places = [name for name in model.LOCATIONS if name in model.model_fields and model.model_fields[name].is_required()]
    words = [*(f"source.{name}={tmp_path / name}" for name in places), f"output={tmp_path / 'out'}"]
    config = load_config(Config, preset, words, verb="shards")
    assert config.conversion().identity()["source"]["kind"] == kind
