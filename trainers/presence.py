"""One trainer per run folder, and a polite end: the lock on `output`, and SIGTERM as a request."""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from shards.errors import ConfigError


class Termination:
    """Whether someone has asked this process to end."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        self.asked = True


@contextmanager
def until_terminated() -> Iterator[Termination]:
    """Turn SIGTERM into a request, so that a run saves before it ends; the former handler comes back afterwards.

    Off the main thread (inside a Ray Train worker) signals cannot be caught: there the launcher decides.
    """
    termination = Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    former = signal.signal(signal.SIGTERM, termination.ask)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, former)


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
