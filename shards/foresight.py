"""Announcing the order: the records of coming steps are named to their datasets before they are read."""

from __future__ import annotations

from dataclasses import dataclass

from shards.stream import RecordStream


@dataclass(kw_only=True)
class Foresight:
    """What one process announces of the steps that it is going to make; nothing where all data lie on this machine."""

    records: RecordStream
    rank: int
    world: int
    stop: int | None = None
    """the step before which the run ends; unset: none"""
    _announced: range = range(0)

    def before(self, step: int, *, stride: int = 1) -> None:
        """Announce what follows, now that a step is going to be made.

        Args:
            step: the one to be made.
            stride: distance between the steps that this process makes, which is the number of its peers.
        """
        ahead = self.records.ahead
        if not ahead:
            return
        if step not in self._announced:  # the first one, or a jump
            self._announced = range(step, step, stride)
        # Several steps at once, so that neighbours among their records share a request.
        coming = range(self._announced.stop, step + (ahead + 1) * stride, stride)
        if len(coming) < max(1, ahead // 2):
            return
        self._announced = range(step, coming.stop, stride)
        wanted = [each for each in coming if self.stop is None or each < self.stop]
        stream = self.records.stream
        self.records.expect([address for each in wanted for address in stream.slots(each, self.rank, self.world)])
