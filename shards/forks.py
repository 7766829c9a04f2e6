"""What a forked child must not inherit: locks that a thread of its parent held, and work that only such threads would finish."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Something that has to begin afresh in a forked child."""

    def begin_process(self) -> None:
        """Replace the locks and forget the threads; called in the child before anything else runs there."""


# Python calls back per process, not per object; so the living objects are kept in one place, weakly.
_living: weakref.WeakSet[Forked] = weakref.WeakSet()


def begin_in_every_child(each: Forked) -> None:
    """Have `each.begin_process()` called in every child that this process forks, as long as the object lives."""
    _living.add(each)


def _begin_all() -> None:
    for each in list(_living):
        each.begin_process()


os.register_at_fork(after_in_child=_begin_all)
