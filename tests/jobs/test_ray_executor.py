"""On a real Ray: killed workers lose nothing, errors arrive as they were raised, models are loaded once per actor."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jobs.ray_executor import RayExecutor
from shards.errors import InputError, OstrakaError

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def _die_once(marks: str) -> Callable[[int], int]:
    def work(unit: int) -> int:
        mark = Path(marks) / str(unit)
        if unit % 4 == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return unit * unit

    return work


@pytest.mark.parametrize("stateful", [False, True])
def test_workers_killed_with_sigkill_lose_nothing(tmp_path: Path, stateful: bool) -> None:
    outcomes = list(RayExecutor(workers=2).run(partial(_die_once, str(tmp_path)), range(8), stateful=stateful))
    assert sorted((outcome.unit, outcome.result) for outcome in outcomes) == [(n, n * n) for n in range(8)]
    assert {mark.name for mark in tmp_path.iterdir()} == {"1", "5"}


def _fail_at(bad: int, error: Exception) -> Callable[[int], int]:
    def work(unit: int) -> int:
        if unit == bad:
            raise error
        return unit

    return work


@pytest.mark.parametrize("stateful", [False, True])
def test_an_error_of_a_unit_arrives_as_it_was_raised(stateful: bool) -> None:
    said = InputError("the table has no column 'x'")
    with pytest.raises(InputError, match=r"^the table has no column 'x'$"):
        list(RayExecutor(workers=2).run(partial(_fail_at, 2, said), range(6), stateful=stateful))
    with pytest.raises(ZeroDivisionError) as caught:
        list(RayExecutor(workers=2).run(partial(_fail_at, 0, ZeroDivisionError("a bug")), range(2), stateful=stateful))
    assert "in work" in caught.value.__notes__[0]


def _loaded(folder: str) -> Callable[[int], int]:
    (Path(folder) / f"loaded-{os.getpid()}-{len(list(Path(folder).iterdir()))}").touch()
    return lambda unit: os.getpid()


def test_stateful_work_is_made_once_per_worker(tmp_path: Path) -> None:
    pids = {o.result for o in RayExecutor(workers=2).run(partial(_loaded, str(tmp_path)), range(12), stateful=True)}
    assert len(list(tmp_path.iterdir())) == len(pids) <= 2
    assert os.getpid() not in pids


def test_work_that_waits_for_an_actor_without_room_goes_to_an_idle_one(tmp_path: Path) -> None:
    # Four actors on two processors: as where a node was lost, some never come up while the others keep theirs.
    outcomes = list(RayExecutor(workers=4).run(partial(_loaded, str(tmp_path)), range(4), stateful=True))
    assert sorted(outcome.unit for outcome in outcomes) == [0, 1, 2, 3]
    assert len({outcome.result for outcome in outcomes}) <= 2


def test_workers_find_our_rooms_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (outcome,) = RayExecutor(workers=1).run(_where_is_our_code, [0])
    assert Path(outcome.result) == Path(__file__).resolve().parents[2] / "pipelines" / "convert.py"


def _where_is_our_code() -> Callable[[int], str]:
    def work(unit: int) -> str:
        import pipelines.convert

        return pipelines.convert.__file__

    return work


def test_nothing_to_do_starts_nothing() -> None:
    assert list(RayExecutor(address="10.0.0.1:1").run(_where_is_our_code, [])) == []


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from jobs.ray_executor import attached

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", _refuse)
    with (
        pytest.raises(OstrakaError, match=r"no Ray cluster could be attached to at far:6379 .*unset RAY_ADDRESS"),
        attached("far:6379", workers=1, object_store_bytes=0),
    ):
        pass


def _refuse(**settings: object) -> None:
    raise ConnectionError("nobody is there\nand a long story")
