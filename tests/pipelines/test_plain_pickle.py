"""Pickles of plain data are read whatever wrote them; everything else a pickle can ask for is refused, and never happens."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.plain_pickle import read_plain_pickle
from shards.errors import InputError

PLAIN = [
    {
        "texts": ["the lady", "", 'it\'s "x"\n\\', "naïve — 犬 🐕"],
        "numbers": [0, 1, 255, 256, 65536, -1, 2**40, -(2**40), 2.5, -0.25],
        "constants": (None, True, False),
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        7: {"deeper": {"still": []}},
    },
    {},
]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Any]:
    def reading(data: bytes) -> Any:
        path = tmp_path / "refs(unc).p"
        path.write_bytes(data)
        return read_plain_pickle(str(path), key="source.annotations")

    return reading


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol_is_read_as_pythons_own_reader_reads_it(read: Any, protocol: int) -> None:
    again = read(pickle.dumps(PLAIN, protocol))
    assert again == PLAIN
    assert [type(value) for value in again[0]["constants"]] == [type(None), bool, bool]


def test_what_is_shared_in_the_file_is_shared_in_memory(read: Any) -> None:
    token = ["blue", "shirt"]
    first, second = read(pickle.dumps([token, token], 2))
    assert first is second


@pytest.mark.parametrize(
    "data",
    [
        b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xc3\\xa9'\np3\nsa.",  # protocol 0
        b"\x80\x02]q\x00}q\x01U\x04sentq\x02U\x05caf\xc3\xa9q\x03sa.",  # protocol 2, short strings of Python 2
        b"\x80\x02]q\x00}q\x01T\x04\x00\x00\x00sentq\x02U\x04caf\xe9q\x03sa.",  # ... that were no UTF-8
    ],
)
def test_byte_strings_of_python_2_are_texts(read: Any, data: bytes) -> None:
    assert read(data) == [{"sent": "café"}]


class Harmful:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


class Plain:
    pass


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_in_the_file_is_refused_and_does_not_happen(read: Any, tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    data = pickle.dumps([Harmful(mark)], protocol)
    with pytest.raises(InputError, match="nothing of it was run"):
        read(data)
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists()  # so the file does what it was made for, when it is let


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "GLOBAL"),
        (b"(S'true'\nios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nS'true'\no.", "GLOBAL"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "STACK_GLOBAL"),
        (b"\x80\x02]}b.", "BUILD"),
        (b"\x80\x02])\x81.", "NEWOBJ"),
        (b"\x80\x02])R.", "REDUCE"),
        (b"\x80\x02U\x04hereQ.", "BINPERSID"),
        (b"Phere\n.", "PERSID"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (pickle.dumps(OrderedDict(a=1), 2), "GLOBAL"),
        (pickle.dumps(Plain, 4), "STACK_GLOBAL"),
    ],
)
def test_every_instruction_beyond_plain_data_is_refused_by_its_name(read: Any, data: bytes, name: str) -> None:
    with pytest.raises(InputError, match=rf"beyond plain data \({name} "):
        read(data)


def bomb(levels: int, width: int) -> bytes:
    """A list of references to a list of references to …: `width ** levels` values in a few bytes."""
    data = b"\x80\x02](K\x01eq\x00"
    for level in range(levels):
        data += b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * (width - 1) + b"eq" + bytes([level + 1])
    return data + b"."


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bomb(9, 10), "pickle bomb"),
        (b"\x80\x02]q\x00h\x00a.", "hold themselves"),
        (b"]" * 1000 + b"a" * 999 + b".", "nested more than"),
        (b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b".", "an integer of"),
        (b"I" + b"9" * 3000 + b"\n.", "an integer of"),
        (b"\x80\x02})K\x01s.", "neither text nor a number"),
        (b"\x80\x02)K\x01a.", "no list"),
        (b"\x80\x02]U\x01aK\x01s.", "no dict"),
    ],
)
def test_a_small_file_that_describes_too_much_is_refused(read: Any, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read(data)


def test_a_huge_memo_index_reserves_nothing(read: Any) -> None:
    assert read(b"\x80\x02]r\xff\xff\xff\x7f.") == []


@pytest.mark.parametrize("end", range(0, len(pickle.dumps(PLAIN, 2)) - 1, 7))
def test_a_cut_file_is_one_sentence(read: Any, end: int) -> None:
    with pytest.raises(InputError, match="no pickle or breaks off"):
        read(pickle.dumps(PLAIN, 2)[:end])


@pytest.mark.parametrize(
    "data",
    [
        b'[{"sent_id": 1}]',
        b"\x80\x02X\xff\xff\xff\xff.",
        b"a.",
        b"(.",
        b"\x80\x02h\x05.",
        b"S'a\n.",
        b"S'a' + 'b'\n.",
        b"S'\\x41' + 'b'\n.",
        b"(",
    ],
)
def test_what_is_no_pickle_is_one_sentence(read: Any, data: bytes) -> None:
    with pytest.raises(InputError, match=r"refs\(unc\)\.p is no pickle or breaks off"):
        read(data)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "no.p", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=f"source.annotations: .*{says}"):
            read_plain_pickle(str(path), key="source.annotations")
