from __future__ import annotations

import io
import json
import tarfile
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.codec import BLOCK, TAR_END, decode_record, encode_record, tar_header
from shards.errors import DamagedRecordError, DatasetError
from shards.records import Annotation, Answer, Caption, Label, Media, Origin, Record, Text

_numbers = st.floats(allow_nan=False, allow_infinity=False)
_texts = st.text(st.characters(codec="utf-8"), max_size=40)
_ANNOTATION_KINDS = typing.get_args(Annotation)

st.register_type_strategy(str, _texts)
st.register_type_strategy(float, _numbers)
st.register_type_strategy(Answer, st.builds(Answer, text=_texts, weight=_numbers))


@st.composite
def _records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(_ANNOTATION_KINDS))
    members = draw(st.lists(st.sampled_from(["jpg", "0.jpg", "1.jpg", "mp4", "npz"]), unique=True, max_size=3))
    media = tuple(draw(st.builds(Media, member=st.just(member))) for member in members)
    return Record(
        key=draw(st.from_regex(r"[A-Za-z0-9_-]{1,150}", fullmatch=True)),
        origin=draw(st.builds(Origin)),
        media=media,
        annotations=tuple(draw(st.lists(st.builds(kind), max_size=4))),
        payload={member: draw(st.binary(max_size=600)) for member in members},
    )


@given(_records())
def test_a_record_of_any_annotation_type_comes_back_as_it_was_written(record: Record) -> None:
    members = encode_record(record)
    assert members == sorted(members)
    assert decode_record(record.key, dict(members)) == record


def test_every_annotation_type_of_the_format_is_among_those_tested() -> None:
    names = {kind.type for kind in _ANNOTATION_KINDS}
    wanted = "caption question grounding detection entailment statement label text image_code"
    assert names == set(wanted.split())


@given(_records())
def test_members_laid_out_with_our_headers_are_a_tar_for_everyone(record: Record) -> None:
    members = encode_record(record)
    data = b"".join(
        tar_header(f"{record.key}.{name}", len(body)) + body + bytes(-len(body) % BLOCK) for name, body in members
    )
    with tarfile.open(fileobj=io.BytesIO(data + TAR_END)) as archive:
        found = [(info.name, info.uid, info.mtime, info.mode, _body(archive, info)) for info in archive]
    assert found == [(f"{record.key}.{name}", 0, 0, 0o644, body) for name, body in members]


def _body(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    handle = archive.extractfile(info)
    assert handle is not None
    return handle.read()


def test_a_member_too_large_for_plain_tar_gets_an_extended_header() -> None:
    size = 9 << 30
    header = tar_header("k.mp4", size)
    assert len(header) % BLOCK == 0
    assert len(header) > BLOCK
    with tarfile.open(fileobj=io.BytesIO(header + TAR_END)) as archive:
        first = archive.next()
    assert first is not None
    assert (first.name, first.size) == ("k.mp4", size)


def _captioned(**changes: typing.Any) -> Record:
    fields: dict[str, typing.Any] = {
        "key": "a-1",
        "origin": Origin(dataset="d", split="s", id="1"),
        "media": (Media(member="jpg", kind="image"),),
        "annotations": (Caption(text="first"), Caption(text="second")),
        "payload": {"jpg": b"bytes"},
    }
    return Record(**(fields | changes))


def test_a_captioned_picture_carries_its_first_caption_as_plain_text() -> None:
    assert dict(encode_record(_captioned()))["txt"] == b"first"


def test_a_record_without_pictures_has_no_plain_text() -> None:
    record = _captioned(media=(), payload={}, annotations=(Text(source="a"),))
    assert [name for name, _ in encode_record(record)] == ["json"]


class _Named:
    """What the format knows no annotation of, although it says a type."""

    type = "caption"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "a.b"}, "first dot"),
        ({"key": ""}, "keys are made of"),
        ({"media": (Media(member="json", kind="image"),), "payload": {"json": b""}}, "distinct extensions"),
        ({"media": (Media(member="JPG", kind="image"),), "payload": {"JPG": b""}}, "distinct extensions"),
        ({"payload": {}}, "it carries \\[\\]"),
        ({"annotations": (Caption(text="a"), Label(name="b"))}, "mixes the annotation types"),
        (
            {"annotations": (typing.cast(Caption, _Named()),)},
            r"\.annotations\[0\] is of type _Named, not one of Caption",
        ),
        ({"annotations": (Caption(text=typing.cast(str, 5)),)}, r"\.annotations\[0\]\.text is 5"),
        ({"annotations": (Caption(text="\ud800"),)}, "surrogates"),
        ({"media": (Media(member="jpg", kind="image", fps=float("nan")),)}, "finite"),
    ],
)
def test_a_record_that_could_not_be_read_back_is_refused_when_written(
    changes: dict[str, typing.Any], words: str
) -> None:
    with pytest.raises(DatasetError, match=words):
        encode_record(_captioned(**changes))


def _with_header(change: typing.Callable[[dict[str, typing.Any]], object]) -> dict[str, bytes]:
    members = dict(encode_record(_captioned()))
    header = json.loads(members["json"])
    change(header)
    return members | {"json": json.dumps(header).encode()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header.update(schema=2), "schema 2"),
        (lambda header: header.update(key="b"), "belongs to 'b'"),
        (lambda header: header.pop("origin"), "lacks the field 'origin'"),
        (lambda header: header.update(colour="red"), "unknown field 'colour'"),
        (lambda header: header["annotations"][1].update(type="smell"), r"annotations\[1\] has no known type"),
        (lambda header: header["annotations"][0].pop("text"), r"annotations\[0\] lacks the field 'text'"),
        (lambda header: header["media"][0].update(width="wide"), r"\.media\[0\]\.width is 'wide'"),
        (lambda header: header["media"][0].update(kind="smell"), r"\.kind is 'smell'"),
    ],
)
def test_a_broken_header_is_damage_with_the_place_named(
    change: typing.Callable[[typing.Any], object], words: str
) -> None:
    with pytest.raises(DamagedRecordError, match=words):
        decode_record("a-1", _with_header(change))


@pytest.mark.parametrize("header", [b"", b"\xff", b"[]", b"{", b"[" * 100_000])
def test_bytes_that_are_no_header_are_damage(header: bytes) -> None:
    with pytest.raises(DamagedRecordError, match="'a-1'"):
        decode_record("a-1", {"json": header})


def test_one_of_two_pictures_missing_is_damage() -> None:
    pair = (Media(member="0.jpg", kind="image"), Media(member="1.jpg", kind="image"))
    members = dict(encode_record(_captioned(media=pair, payload={"0.jpg": b"x", "1.jpg": b"y"})))
    del members["1.jpg"]
    with pytest.raises(DamagedRecordError, match=r"no '\.1\.jpg' member"):
        decode_record("a-1", members)
