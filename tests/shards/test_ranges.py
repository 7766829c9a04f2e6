from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.local_storage import LocalStorage
from shards.ranges import (
    LONGEST_GAP_BYTES,
    REQUEST_BYTES,
    SIDE_BY_SIDE_BYTES,
    WASTE_SHARE,
    Place,
    coalesce,
    read_places,
)


@st.composite
def layouts(draw: st.DrawFn) -> list[Place]:
    """Members of a tar with gaps of every width between them, in any order, some of them twice."""
    places, offset = [], 0
    for _ in range(draw(st.integers(0, 30))):
        offset += draw(st.sampled_from([0, 512, 1500, SIDE_BY_SIDE_BYTES, 9_000, 80_000, LONGEST_GAP_BYTES + 1]))
        size = draw(st.sampled_from([0, 1, 300, 40_000, 500_000, REQUEST_BYTES + 5]))
        places.append(Place(offset, size))
        offset += size
    return draw(st.permutations(places + places[:2]))


@given(layouts())
def test_requests_cover_what_is_wanted_once_and_waste_little(places: list[Place]) -> None:
    requests = coalesce(places)
    wanted = {place for place in places if place.size}
    for place in wanted:
        assert sum(request.offset <= place.offset and place.end <= request.end for request in requests) == 1
    assert all(one.end <= other.offset for one, other in pairwise(requests))
    read, needed = sum(request.size for request in requests), sum(place.size for place in wanted)
    assert read <= needed * (1 + WASTE_SHARE) + SIDE_BY_SIDE_BYTES * max(0, len(wanted) - 1)
    longest = max((place.size for place in wanted), default=0)
    assert all(request.size <= max(REQUEST_BYTES, longest) for request in requests)


def test_neighbouring_records_share_a_request_and_distant_ones_do_not() -> None:
    neighbours = [Place(number * 101_500, 100_000) for number in range(20)]
    assert coalesce(neighbours) == [Place(0, 19 * 101_500 + 100_000)]
    distant = [Place(number * 5_000_000, 100_000) for number in range(20)]
    assert coalesce(distant) == distant


@pytest.mark.parametrize("bytes_there", [60_000, 20_000, 100, 0])
def test_places_come_back_in_the_order_asked_for_and_end_with_the_file(tmp_path: Path, bytes_there: int) -> None:
    data = bytes(number % 251 for number in range(bytes_there))
    (tmp_path / "f").write_bytes(data)
    places = [Place(30_000, 500), Place(10, 0), Place(0, 90), Place(19_900, 300), Place(0, 90), Place(100, 7)]
    found = read_places(LocalStorage(str(tmp_path)), "f", places)
    assert found == [data[place.offset : place.end] for place in places]
