"""How much memory a stretch of work takes at its peak, this process and all that it started together."""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Self

INTERVAL_S = 0.5
_PROC = Path("/proc")


class PeakMemory:
    """Samples the resident memory of this process and its descendants while a `with` block runs.

    Pages that several processes share are counted once for each, so with Ray the figure is an upper estimate. Where there is
    no /proc, it is the peak of this process since its start.

    Attributes:
        peak_bytes: the largest sum seen.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, resident_bytes())

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process and all its descendants, in bytes."""
    if not (_PROC / "self" / "statm").is_file():
        # macOS counts in bytes, all others in KiB.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            parent = _parent(entry)
            if parent is not None:
                children[parent].append(int(entry.name))
    total, family = 0, [os.getpid()]
    while family:
        process = family.pop()
        total += _resident_pages(process)
        family += children[process]
    return total * os.sysconf("SC_PAGE_SIZE")


def _parent(entry: Path) -> int | None:
    try:
        # The command name in brackets may hold spaces and brackets itself: the fields count from the last one.
        return int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None  # it ended meanwhile


def _resident_pages(process: int) -> int:
    try:
        return int((_PROC / str(process) / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
