"""One trainer per run folder, and SIGTERM as a request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.errors import ConfigError
from trainers.presence import claimed, until_terminated

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
