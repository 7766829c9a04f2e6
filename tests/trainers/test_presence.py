"""One trainer per run folder, and SIGTERM as a request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.errors import ConfigError
from trainers.presence import Termination, claimed, until_terminated

ROOT = Path(__file__).resolve().parent.parent.parent

# Claims the folder, forks a child as a loader does its workers, tells the child's number, and waits to be killed.
HOLDER = """
import os, sys, time
from pathlib import Path
from trainers.presence import claimed
with claimed(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that trains in the folder, and the number of its worker."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    yield process, worker
    process.kill()
    process.wait()
    process.stdout.close()
    os.kill(worker, signal.SIGKILL)


def test_a_second_trainer_is_refused_until_the_first_is_dead_even_if_its_workers_live(
    tmp_path: Path, holder: tuple[subprocess.Popen[str], int]
) -> None:
    process, worker = holder
    with pytest.raises(ConfigError, match="another process is training"), claimed(tmp_path):
        pass
    process.kill()
    process.wait()
    os.kill(worker, 0)  # the worker is still there
    with claimed(tmp_path):
        pass


def test_a_folder_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path / "run"):
            assert (tmp_path / "run").is_dir()


def test_sigterm_becomes_a_request_and_the_former_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with until_terminated(grace_s=60) as termination:
        assert not termination.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.asked
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("asked", [False, True])
def test_nothing_keeps_watching_when_the_run_has_ended(asked: bool) -> None:
    before = set(threading.enumerate())
    with until_terminated(grace_s=60) as termination:
        assert set(threading.enumerate()) > before
        if asked:
            termination.ask()
    assert set(threading.enumerate()) == before


# Waits for a request, tells that it is ready, and then does not heed the request for as long as it is told.
SLOW = """
import sys, time
from trainers.presence import until_terminated
with until_terminated(grace_s=float(sys.argv[1])) as termination:
    print("ready", flush=True)
    while not termination.asked:
        time.sleep(0.01)
    time.sleep(float(sys.argv[2]))
print("saved", flush=True)
"""


@pytest.mark.parametrize(("step_s", "code", "said"), [(0.1, 0, "saved"), (120, 1, "ends without it")])
def test_a_step_that_outlasts_the_grace_is_given_up(step_s: float, code: int, said: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "1.5", str(step_s)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert said in output


def test_a_file_that_is_watched_for_is_a_request_too(tmp_path: Path) -> None:
    termination = Termination()
    termination.watch_for(tmp_path / "stop")
    assert not termination.asked
    (tmp_path / "stop").touch()
    assert termination.wait(0) is False  # seen only by who asks
    deadline = time.monotonic() + 30
    while not termination.asked:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert termination.wait(0)
