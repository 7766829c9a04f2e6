"""Faults on purpose: each leaves the right dataset or a clear stop. `python -m benchmarks.chaos` does many more."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.chaos import LOCAL, build_world, run_trial
from benchmarks.chaos_world import ROOT, World, finish, problem_with, visible
from jobs.cli import main
from jobs.ray_executor import RayExecutor
from jobs.verbs.shards import Config
from pipelines.convert import ConvertConfig, convert_unit, plan_units
from pipelines.source import Unit
from shards.errors import DatasetError
from shards.local_storage import LocalStorage
from shards.manifest import read_card
from shards.stores import open_storage
from shards.verify import verify
from shards.writer import UnitReport

SEED = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world") / "raw")


def config_of(world: World, output: Path) -> ConvertConfig:
    from jobs.config import load_config

    return load_config(Config, None, [*world.words[1:], f"output={output}"], verb="shards").conversion()


@pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind in LOCAL for number in range(4)])
def test_a_run_killed_at_a_random_operation_ends_in_the_undisturbed_bytes(
    world: World, tmp_path: Path, kind: str, number: int
) -> None:
    trial = run_trial(number, kind, LOCAL[kind], world=world, folder=tmp_path, seed=SEED)
    assert trial.problem is None


def test_the_check_for_misleading_files_is_no_rubber_stamp(world: World, tmp_path: Path) -> None:
    assert finish(world.words, tmp_path / "out", world.first) is None
    assert problem_with(tmp_path / "out", world) is None
    tar = next((tmp_path / "out" / "shards").iterdir())
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1])
    assert problem_with(tmp_path / "out", world) == f"shards/{tar.name} is visible and wrong"
    tar.unlink()
    assert problem_with(tmp_path / "out", world) == "a dataset opens before it is complete"
    tar.write_bytes(whole)
    (tmp_path / "out" / "dataset.json").write_bytes(b"{}")
    assert problem_with(tmp_path / "out", world) == "dataset.json is visible and wrong"


@pytest.mark.parametrize("number", [1, 9, 22])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    world: World, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync, calls = os.fsync, iter(range(10_000))

    def full(descriptor: int) -> None:
        if next(calls) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert main([*world.words, f"output={tmp_path / 'out'}"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    monkeypatch.undo()
    assert problem_with(tmp_path / "out", world) is None
    assert finish(world.words, tmp_path / "out", world.first) is None


def test_a_limit_on_file_sizes_stops_the_run_with_the_shard_named(world: World, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", *world.words, f"output={tmp_path / 'out'}"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # Python ignores SIGXFSZ, so a write fails with EFBIG

    stopped = subprocess.run(command, cwd=ROOT, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert stopped.returncode == 1
    assert "cannot write coco_captions-train-00000 (File too large)" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert problem_with(tmp_path / "out", world) is None
    assert finish(world.words, tmp_path / "out", world.first) is None


def test_an_output_that_is_read_only_is_one_sentence_before_any_work(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(storage: LocalStorage, temporary: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")  # what even root is told by a read-only mount

    monkeypatch.setattr(LocalStorage, "open_write", refuse)
    assert main([*world.words, f"output={tmp_path / 'out'}"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Read-only file system" in line
    assert "choose another `output`" in line
    assert visible(tmp_path / "out") == {}


def test_another_config_on_the_same_output_is_refused_also_before_the_first_run_has_ended(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(world, tmp_path / "out")
    convert_unit(config, plan_units(config)[0])
    before = visible(tmp_path / "out")
    assert main([*world.words, f"output={tmp_path / 'out'}", "max_pixels=1000000"]) == 1
    assert "another config" in capsys.readouterr().err
    assert visible(tmp_path / "out") == before
    assert finish(world.words, tmp_path / "out", world.first) is None


def test_two_jobs_of_different_configs_at_once_never_mix_in_silence(world: World, tmp_path: Path) -> None:
    one = config_of(world, tmp_path / "out")
    other = one.model_copy(update={"transforms": ({"kind": "clean_text"},)})
    for first, second in zip(plan_units(one), plan_units(other), strict=True):
        convert_unit(one, first)
        with pytest.raises(DatasetError, match=r"was committed by unit .* another config"):
            convert_unit(other, second)
    assert finish(world.words, tmp_path / "out", world.first) is None


def test_two_identical_jobs_at_once_both_succeed(world: World, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", *world.words, f"output={tmp_path / 'out'}"]
    jobs = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [job.communicate(timeout=120)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert finish(world.words, tmp_path / "out", world.first) is None


def test_a_resumed_run_says_what_is_done_already(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(world, tmp_path / "out")
    for unit in plan_units(config)[:4]:
        convert_unit(config, unit)
    assert main([*world.words, f"output={tmp_path / 'out'}"]) == 0
    said = capsys.readouterr().err
    assert "4 of 6 units are committed already" in said
    assert "2 of 6 units converted now" in said


def test_retry_and_append_from_the_command_line(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main([*world.words, f"output={output}"]) == 0
    assert main([*world.words, f"output={output}", "retry=rejects", "--dry-run"]) == 0
    assert "2 raw items in 1 unit" in capsys.readouterr().out
    assert main([*world.words, f"output={output}", "retry=rejects"]) == 0
    card = read_card(open_storage(output))
    assert (card.raw_items, card.records, dict(card.rejects)) == (18, 16, {"missing_media": 1, "not_media": 1})
    assert main([*world.words, f"output={output}"]) == 0
    assert main([*world.grown, f"output={output}"]) == 1
    assert "say append=true" in capsys.readouterr().err
    assert main([*world.grown, f"output={output}", "append=true"]) == 0
    card = read_card(open_storage(output))
    assert (card.raw_items, card.records) == (27, 25)
    assert verify(output) == []
    assert main([*world.words, f"output={output}", "append=true", "retry=rejects"]) == 2


def test_damaged_units_are_converted_again_from_the_raw_data_alone(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main([*world.words, f"output={output}"]) == 0
    shards = sorted((output / "shards").iterdir())
    shards[1].write_bytes(shards[1].read_bytes()[:900])
    shards[3].unlink()
    assert main(["verify", f"dataset={output}", "repair=true"]) == 1
    assert "source.annotations=… source.media=…" in capsys.readouterr().err
    places = [word for word in world.words if word.startswith(("source.annotations", "source.media"))]
    assert main(["verify", f"dataset={output}", "repair=true", places[0]]) == 2  # the media folder is not given
    assert main(["verify", f"dataset={output}", "repair=true", *places]) == 0
    assert visible(output) == world.first


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("number", range(2))
def test_ray_workers_killed_at_a_random_operation_lose_nothing(world: World, tmp_path: Path, number: int) -> None:
    from benchmarks.chaos_cluster import kill_workers

    trial = run_trial(number, "worker", kill_workers, world=world, folder=tmp_path, seed=SEED)
    assert trial.problem is None
    assert trial.kills > 0


def _greedy(config: ConvertConfig, mark: str) -> Callable[[Unit], UnitReport]:
    def work(unit: Unit) -> UnitReport:
        if unit.index == 2 and not Path(mark).exists():
            Path(mark).touch()
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
            os.abort() if _takes_all_memory() else None
        return convert_unit(config, unit)

    return work


def _takes_all_memory() -> bool:
    try:
        return not bytearray(64 << 30)
    except MemoryError:
        return True


def _straggling(config: ConvertConfig) -> Callable[[Unit], UnitReport]:
    def work(unit: Unit) -> UnitReport:
        time.sleep(1.5 if unit.index == 0 else 0)
        return convert_unit(config, unit)

    return work


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_out_of_memory_is_replaced_and_a_straggler_is_waited_for(world: World, tmp_path: Path) -> None:
    for name, work in (("greedy", partial(_greedy, mark=str(tmp_path / "mark"))), ("slow", _straggling)):
        config = config_of(world, tmp_path / name)
        order = [o.unit.index for o in RayExecutor(workers=2).run(partial(work, config), plan_units(config))]
        assert sorted(order) == list(range(6))
        if name == "slow":
            assert order[-1] == 0  # the others did not wait
        assert problem_with(tmp_path / name, world) is None
        assert finish(world.words, tmp_path / name, world.first) is None


def test_seeds_decide_over_the_moments(world: World, tmp_path: Path) -> None:
    draws = [random.Random(f"{SEED}/process/{number}").random() for number in range(3)]
    assert len(set(draws)) == 3
    assert 50 < world.operations < 1000


def test_a_dataset_on_an_object_store_is_made_grown_and_verified_to_the_same_bytes(
    world: World, s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import fsspec

    output = f"{s3}/flows/dataset"
    assert main([*world.words, f"output={output}"]) == 0
    assert main([*world.grown, f"output={output}", "append=true"]) == 0
    assert main(["verify", f"dataset={output}"]) == 0
    assert "sound, 9 shards" in capsys.readouterr().out
    system = fsspec.filesystem("s3")
    root = output.removeprefix("s3://")
    found = {str(name).removeprefix(f"{root}/"): system.cat_file(name) for name in system.find(root)}
    assert found == world.expected
