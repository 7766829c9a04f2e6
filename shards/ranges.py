"""Few requests for many members: places that lie side by side are read in one request, unless the gaps would cost too much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from shards.storage import Storage

SIDE_BY_SIDE_BYTES = 4096  # tar headers, padding and a first caption between two members
LONGEST_GAP_BYTES = 1 << 20  # about what a store sends in the time that a request of its own takes to begin
WASTE_SHARE = 0.05  # of the wanted bytes, for all wider gaps together: a view of few records must not read them all
REQUEST_BYTES = 8 << 20  # a longer one gains nothing, and a failure costs more


class Place(NamedTuple):
    """Where some wanted bytes lie in a file."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def coalesce(places: Sequence[Place]) -> list[Place]:
    """Cover places by few requests, in the order of the file.

    Gaps of a tar's own making are always read along. Wider ones are, the narrowest first, up to `LONGEST_GAP_BYTES` each and
    `WASTE_SHARE` of the wanted bytes in all. No request grows beyond `REQUEST_BYTES` by joining.
    """
    wanted = sorted({place for place in places if place.size})
    gaps = [after.offset - before.end for before, after in pairwise(wanted)]
    budget = WASTE_SHARE * sum(place.size for place in wanted)
    joined = {number for number, gap in enumerate(gaps) if gap <= SIDE_BY_SIDE_BYTES}
    for gap, number in sorted((gap, number) for number, gap in enumerate(gaps) if number not in joined):
        if gap > min(budget, LONGEST_GAP_BYTES):
            break
        joined.add(number)
        budget -= gap
    requests: list[Place] = []
    for number, place in enumerate(wanted):
        if requests and number - 1 in joined and place.end - requests[-1].offset <= REQUEST_BYTES:
            start = requests[-1].offset
            requests[-1] = Place(start, max(requests[-1].end, place.end) - start)
        else:
            requests.append(place)
    return requests


def read_places(storage: Storage, name: str, places: Sequence[Place]) -> list[bytes]:
    """Read some places of a file; a place has fewer bytes where the file ends before it does.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the store does not answer.
    """
    requests = coalesce(places)
    found: dict[Place, bytes] = {}
    pending = sorted(set(places))
    number = 0
    for request in requests:
        span = memoryview(storage.read_range(name, request.offset, request.size))
        while number < len(pending) and (not pending[number].size or pending[number].end <= request.end):
            place = pending[number]
            begin = place.offset - request.offset
            found[place] = bytes(span[begin : begin + place.size]) if place.size else b""
            number += 1
    return [found.get(place, b"") for place in places]
