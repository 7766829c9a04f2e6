from __future__ import annotations

import json

import pytest

from shards.errors import InputError
from shards.pools import ANSWERS_FILE, CAPTIONS_FILE, OBJECTS_FILE, Pools, decode_pools, encode_pools

POOLS = Pools(
    captions=("A dog 🐕.", "Ein Boot."),
    objects=("dog", "fire truck"),
    answers={"how many": ("1", "2"), "other": ("red", "été")},
)


def test_pools_come_back_from_their_files() -> None:
    files = encode_pools(POOLS)
    assert decode_pools(files.__getitem__, where="here") == POOLS
    assert files[OBJECTS_FILE].decode().splitlines() == ["dog", "fire truck"]
    assert json.loads(files[ANSWERS_FILE])["how many"] == ["1", "2"]


def test_a_caption_of_several_lines_stays_one_entry() -> None:
    files = encode_pools(Pools(captions=("two\nlines", "one")))
    assert decode_pools(files.__getitem__, where="here").captions == ("two lines", "one")


def test_files_that_are_not_there_leave_their_pool_empty() -> None:
    def read(name: str) -> bytes:
        if name != OBJECTS_FILE:
            raise FileNotFoundError(name)
        return b"\xef\xbb\xbfdog\r\n\ncat"

    assert decode_pools(read, where="here") == Pools(objects=("dog", "cat"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (CAPTIONS_FILE, b"\xff", "not UTF-8"),
        (ANSWERS_FILE, b"{", "broken JSON"),
        (ANSWERS_FILE, b'["red"]', "answers by question type"),
    ],
)
def test_a_file_that_is_something_else_is_refused_by_name(name: str, data: bytes, message: str) -> None:
    files = encode_pools(POOLS) | {name: data}
    with pytest.raises(InputError, match=message) as caught:
        decode_pools(files.__getitem__, where="here")
    assert f"here/{name}" in str(caught.value)


def test_an_answer_of_several_types_has_the_first() -> None:
    assert Pools(answers={"color": ("red",), "other": ("red", "dog")}).types == {"red": "color", "dog": "other"}


def test_the_digest_tells_pools_apart() -> None:
    assert Pools(captions=("a", "b")).digest != Pools(captions=("a",), objects=("b",)).digest
    assert POOLS.digest == Pools(captions=POOLS.captions, objects=POOLS.objects, answers=POOLS.answers).digest
