"""One trainer per run folder, and a polite end: the lock on `output`, and SIGTERM as a request that has its time."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from shards.errors import ConfigError

logger = logging.getLogger(__name__)

STOP = ".stop"  # a file of this name in the run folder asks the run to end, as SIGTERM does
_LOOKED_FOR_S = 1.0


class Termination:
    """Whether someone has asked this process to end."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._mark: Path | None = None
        self._looked = 0.0

    @property
    def asked(self) -> bool:
        """Whether a signal came, or the file that is watched for lies there (looked for once a second)."""
        if self._mark is not None and not self._told.is_set() and time.monotonic() - self._looked > _LOOKED_FOR_S:
            self._looked = time.monotonic()
            if self._mark.exists():
                self._told.set()
        return self._told.is_set()

    def ask(self, number: int | None = None, frame: FrameType | None = None) -> None:
        """Take a signal, or a request from within the process."""
        self._told.set()

    def watch_for(self, mark: Path) -> None:
        """Take a file, once it is there, as a request, too: whoever cannot reach the process may reach its folder."""
        self._mark = mark

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until a request comes; of a file only once `asked` has seen it."""
        return self._told.wait(timeout_s)


@contextmanager
def until_terminated(termination: Termination | None = None, *, grace_s: float) -> Iterator[Termination]:
    """Turn SIGTERM into a request, so that a run saves before it ends; the former handler comes back afterwards.

    A step or a read that takes longer than the grace cannot be waited for: the process then ends without another checkpoint,
    and the one before stays valid.

    Off the main thread (inside a Ray Train worker) signals cannot be caught: there the launcher gives its own `termination`.

    Args:
        termination: what the launcher has told of already.
        grace_s: seconds from the request after which the process ends in any case.
    """
    termination = termination or Termination()
    caught = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, termination.ask) if caught else None
    ended = threading.Event()
    watcher = threading.Thread(target=_end_after, args=(termination, ended, grace_s), daemon=True)
    watcher.start()
    try:
        yield termination
    finally:
        ended.set()
        watcher.join()  # a thread that the end of the interpreter finds alive may abort it, in place of the exit code
        if caught:
            signal.signal(signal.SIGTERM, former)


def _end_after(termination: Termination, ended: threading.Event, grace_s: float) -> None:
    """End the process where a request has not been followed in time."""
    while not termination.wait(0):
        if ended.wait(_LOOKED_FOR_S):
            return
    if ended.wait(grace_s):
        return
    logger.error(
        "SIGTERM: the step, or the checkpoint, was not done within %g s, so this process ends without it; the last complete "
        "checkpoint is where the same command goes on (grace_s=… gives more time)",
        grace_s,
    )
    logging.shutdown()
    os._exit(1)


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Hold a run folder against a second trainer. The lock dies with the process, however it dies.

    Raises:
        ConfigError: the folder cannot be written, or another process trains in it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = (run / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"output={str(run)!r} cannot be written ({error.strerror}); choose another folder") from error
    with file:
        try:
            # Not `flock`: forked loader workers would inherit it and hold the folder for seconds after a `kill -9`.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ConfigError(f"another process is training in {run}; wait for it, or choose another output") from None
        except OSError:
            pass  # a file system without locks; the checkpoints' renames are still atomic
        yield
