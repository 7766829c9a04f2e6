"""Other people's tars, indexed in place."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import wave
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.index_tars import IndexConfig, expand, finish_index, index_tar, plan_tars
from shards.codec import encode_record
from shards.errors import BudgetError, DamagedRecordError, DatasetError, InputError, StoreError
from shards.foreign import check_foreign
from shards.manifest import Card
from shards.media import probe_media
from shards.patience import Patience
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Answer, Caption, Detection, Label, MediaKind, Origin, Question, Record, Text
from shards.regions import regions_bytes
from shards.stores import open_storage
from shards.stream import RecordStream, Stream, source_of
from shards.writer import ShardWriter

Members = Sequence[tuple[str, bytes]]


def picture(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (20 + number, 10), (number * 20 % 256, 90, 30)).save(data, "JPEG")
    return data.getvalue()


def write_tar(path: Path, members: Members, *, form: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def captioned(*numbers: int) -> list[tuple[str, bytes]]:
    return [
        member
        for number in numbers
        for member in ((f"{number:04d}.jpg", picture(number)), (f"{number:04d}.txt", f"picture {number}".encode()))
    ]


@pytest.fixture
def index(tmp_path: Path) -> Callable[..., Card]:
    """Index tars into `tmp_path/indexed`, with a budget that lets everything through."""

    def run(*shards: str | Path, **keys: Any) -> Card:
        keys = {
            "shards": [str(path) for path in shards],
            "output": str(tmp_path / "indexed"),
            "reject_share": 1,
            **keys,
        }
        config = IndexConfig(**keys)
        units = plan_tars(config)
        for unit in units:
            index_tar(config, unit)
        return finish_index(config, units)

    return run


@pytest.fixture
def indexed(tmp_path: Path) -> Callable[[], Dataset]:
    """Open what `index` has made."""
    return lambda: open_dataset(tmp_path / "indexed")


def rejects(tmp_path: Path) -> dict[str, str]:
    rows = pq.read_table(tmp_path / "indexed" / "rejects.parquet").to_pylist()
    return {row["id"]: row["reason"] for row in rows}


def test_a_webdataset_is_read_where_it_lies(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    tar = write_tar(tmp_path / "raw" / "a.tar", captioned(1, 2, 3))
    before = tar.read_bytes()
    card = index(tar, name="mine", split="train")
    dataset = indexed()
    records = list(dataset.records())
    assert [record.key for record in records] == ["mine-train-a_0001", "mine-train-a_0002", "mine-train-a_0003"] or all(
        record.key.startswith("mine-train-") for record in records
    )
    assert [record.payload["jpg"] for record in records] == [picture(number) for number in (1, 2, 3)]
    assert [record.annotations for record in records] == [(Caption(text=f"picture {n}"),) for n in (1, 2, 3)]
    assert [record.media[0].width for record in records] == [21, 22, 23]
    assert (card.records, card.annotations, card.raw_items) == (3, 3, 3)
    stored = sum(path.stat().st_size for path in (tmp_path / "indexed" / "shards").iterdir())
    assert stored < len(before) + 10240  # headers, no media
    assert all(picture(1) not in path.read_bytes() for path in (tmp_path / "indexed").rglob("*") if path.is_file())
    assert tar.read_bytes() == before


def test_an_img2dataset_tar_brings_its_captions_sizes_and_licences_out_of_the_json(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    def sample(number: int, **note: Any) -> Members:
        stem = f"00007{number:04d}"
        said = {
            "caption": f"photo {number}",
            "url": "https://example.org/x",
            "status": "success",
            "width": 25,
            "height": 10,
        }
        return [(f"{stem}.jpg", picture(number)), (f"{stem}.json", json.dumps({**said, **note}).encode())]

    members = [
        *sample(5),
        *sample(6, caption=None),
        ("000070008.json", b'{"status": "failed", "error_message": "404"}'),
    ]
    card = index(write_tar(tmp_path / "00007.tar", members), checksums=False)
    (record,) = indexed().records()
    assert record.origin.id == "000070005"  # the number of the shard is in it already
    assert record.annotations == (Caption(text="photo 5"),)
    assert (record.media[0].width, record.payload["jpg"]) == (25, picture(5))
    assert rejects(tmp_path) == {"000070006": "no_annotations", "000070008": "missing_media"}
    assert card.raw_items == card.records + len(rejects(tmp_path))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, Caption(text="a text")),
        ({"caption": "json:title"}, Caption(text="a title")),
        ({"label": "cls"}, Label(name="7", index=7)),
        ({"label": "json:kind"}, Label(name="cat")),
    ],
)
def test_columns_say_where_annotations_are(
    tmp_path: Path,
    index: Callable[..., Card],
    indexed: Callable[[], Dataset],
    columns: dict[str, str],
    expected: Caption | Label,
) -> None:
    note = json.dumps({"title": "a title", "kind": "cat"}).encode()
    members = [("x.png", _png()), ("x.txt", b"a text"), ("x.cls", b"7\n"), ("x.json", note)]
    index(write_tar(tmp_path / "a.tar", members), columns=columns)
    (record,) = indexed().records()
    assert record.annotations == (expected,)


def _png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    return data.getvalue()


def test_names_that_two_tars_share_become_two_keys(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    write_tar(tmp_path / "raw" / "a.tar", captioned(1, 2))
    write_tar(tmp_path / "raw" / "b.tar", captioned(2, 3))
    index(tmp_path / "raw" / "{a,b}.tar")
    keys = [record.key for record in indexed().records(payload=False)]
    assert len(set(keys)) == 4
    assert all(("a" in key) or ("b" in key) for key in keys)
    with pytest.raises(DatasetError, match="occurs in"):
        index(tmp_path / "raw" / "*.tar", keys="stem", output=str(tmp_path / "other"))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset], form: int
) -> None:
    long, odd = "d" * 90 + "/" + "n" * 150, "фото/день 1"
    members = [
        (f"{stem}.{ending}", data) for stem in (long, odd) for ending, data in (("jpg", picture(1)), ("txt", b"t"))
    ]
    index(write_tar(tmp_path / "a.tar", members, form=form))
    records = list(indexed().records())
    assert [record.origin.file for record in records] == [f"{long}.jpg", f"{odd}.jpg"]
    assert len({record.key for record in records}) == 2
    assert all(record.payload["jpg"] == picture(1) for record in records)


def test_what_is_no_sound_sample_is_a_reject_by_name(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    members = [
        *captioned(1),
        ("mute.jpg", picture(2)),
        ("blank.jpg", picture(2)),
        ("blank.txt", b" \n"),
        ("latin.jpg", picture(2)),
        ("latin.txt", b"caf\xe9"),
        ("torn.jpg", picture(3)[:300]),
        ("torn.txt", b"torn"),
        ("../up.jpg", picture(4)),
        ("/etc/down.jpg", picture(4)),
        ("noext", b"?"),
        ("__meta__.json", b"{}"),
        *captioned(5),
        *captioned(1),
    ]
    card = index(write_tar(tmp_path / "a.tar", members))
    assert [record.annotations[0].text for record in indexed().records()] == ["picture 1", "picture 5"]  # type: ignore[union-attr]
    found = rejects(tmp_path)
    assert found == {
        "a/mute": "no_annotations",
        "a/blank#0": "empty_text",
        "a/blank": "no_annotations",
        "a/latin#0": "broken_utf8",
        "a/latin": "no_annotations",
        "a/torn": "truncated_media",
        "a/../up": "outside_media",
        "a//etc/down": "outside_media",
        "a/noext": "unsupported",
        "a/0001": "duplicate_id",
    }
    assert card.raw_items == 10


def test_links_in_a_tar_are_never_followed(tmp_path: Path, index: Callable[..., Card]) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(1))
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("0009.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    index(path)
    assert rejects(tmp_path) == {"a/0009": "outside_media"}


def test_a_tar_that_was_cut_is_refused_or_its_loss_is_named(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(1, 2, 3))
    with tarfile.open(path) as tar:
        third = tar.getmembers()[4]
    path.write_bytes(path.read_bytes()[: third.offset_data + 100])
    with pytest.raises(DatasetError, match=r"ends inside '0003\.jpg'"):
        index(path)
    card = index(path, cut="keep")
    assert [record.origin.id for record in indexed().records()] == ["a/0001", "a/0002"]
    assert list(rejects(tmp_path).values()) == ["truncated_media"]
    assert card.raw_items == 3


def test_a_tar_cut_between_members_is_told_from_one_that_ended(tmp_path: Path, index: Callable[..., Card]) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(1, 2))
    with tarfile.open(path) as tar:
        second = tar.getmembers()[2]
    path.write_bytes(path.read_bytes()[: second.offset])
    with pytest.raises(DatasetError, match="was cut off"):
        index(path)


def test_a_damaged_header_costs_its_own_sample_and_not_the_rest_of_the_tar(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(*range(1, 9)))
    with tarfile.open(path) as tar:
        hit = tar.getmembers()[4]
    data = bytearray(path.read_bytes())
    data[hit.offset + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"damaged header.*{hit.offset:,}"):
        index(path)
    index(path, cut="keep")
    assert [record.origin.id for record in indexed().records()] == [f"a/{n:04d}" for n in (1, 2, 4, 5, 6, 7, 8)]
    assert sorted(rejects(tmp_path).values()) == ["missing_media", "truncated_media"]


def test_a_flipped_byte_is_found_by_its_checksum(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(1, 2))
    index(path)
    dataset = indexed()
    foreign = dataset.manifest[0].foreign
    assert foreign is not None
    assert not list(check_foreign(foreign, dataset.index(0)))
    stamp = path.stat()
    with tarfile.open(path) as tar:
        place = tar.getmembers()[2].offset_data + 50
    with path.open("r+b") as handle:
        handle.seek(place)
        byte = handle.read(1)[0]
        handle.seek(place)
        handle.write(bytes([byte ^ 4]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    dataset = indexed()
    dataset.record(0, 0)
    with pytest.raises(DamagedRecordError, match=r"0002.*does not match its checksum"):
        dataset.record(0, 1)
    damages = list(check_foreign(foreign, dataset.index(0)))
    assert [key for key, _ in damages] == [dataset.index(0).keys[1]] + [None] * (len(damages) - 1)
    os.utime(path)
    with pytest.raises(DatasetError, match="written again after it was indexed"):
        indexed().record(0, 1)


@pytest.mark.parametrize("checksums", [True, False])
def test_a_tar_that_changed_after_indexing_is_a_clear_error(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset], checksums: bool
) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(1, 2))
    index(path, checksums=checksums)
    assert indexed().record(0, 0).payload["jpg"] == picture(1)
    write_tar(path, captioned(1, 2, *range(3, 40)))
    with pytest.raises(DatasetError, match=r"a\.tar changed: it has .* bytes"):
        indexed().record(0, 0)
    path.unlink()
    with pytest.raises(DatasetError, match="missing"):
        indexed().record(0, 0)


def test_a_copy_without_checksums_is_refused_and_with_them_is_read(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    path = write_tar(tmp_path / "a.tar", captioned(1, 2))
    index(path, checksums=False)
    os.utime(path)
    with pytest.raises(DatasetError, match="without checksums"):
        indexed().record(0, 0)
    index(path, output=str(tmp_path / "checked"))
    os.utime(path)
    assert open_dataset(tmp_path / "checked").record(0, 1).payload["jpg"] == picture(2)


def test_indexing_again_or_half_way_leaves_the_same_bytes(tmp_path: Path, index: Callable[..., Card]) -> None:
    for name in "abc":
        write_tar(tmp_path / "raw" / f"{name}.tar", captioned(1, 2, 3))
    pattern = str(tmp_path / "raw" / "*.tar")
    index(pattern)
    once = _content(tmp_path / "indexed")
    index(pattern)
    assert _content(tmp_path / "indexed") == once
    config = IndexConfig(shards=(pattern,), output=str(tmp_path / "halved"), reject_share=1)
    units = plan_tars(config)
    index_tar(config, units[2])
    with pytest.raises(DatasetError, match="not committed"):
        finish_index(config, units)
    index(pattern, output=config.output)
    assert _content(tmp_path / "halved") == once


def _content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_stream_visits_every_sample_of_foreign_tars_once(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    write_tar(tmp_path / "raw" / "a.tar", captioned(1, 2, 3))
    write_tar(tmp_path / "raw" / "b.tar", captioned(4, 5, 6))
    index(tmp_path / "raw" / "*.tar")
    dataset = indexed()
    order = Stream({"x": source_of(dataset, "annotations")}, batch_size=2, seed=5)
    records = RecordStream(order, {"x": dataset}, count="annotations")
    seen = [records.fetch(address).record for step in range(3) for address in order.batch(step)]
    assert sorted(record.payload["jpg"] for record in seen) == sorted(picture(number) for number in range(1, 7))


def test_patterns_expand_braces_lists_and_stars(tmp_path: Path) -> None:
    for name in ("x-08", "x-09", "x-10"):
        write_tar(tmp_path / f"{name}.tar", captioned(1))
    assert list(expand(f"{tmp_path}/x-{{08..10}}.tar")) == [f"{tmp_path}/x-{n}.tar" for n in ("08", "09", "10")]
    assert list(expand(f"{tmp_path}/*.tar")) == list(expand(f"{tmp_path}/x-{{08,09,10}}.tar"))
    assert list(expand("s3://bucket/{a,b}/{0..1}.tar")) == [f"s3://bucket/{a}/{n}.tar" for a in "ab" for n in "01"]
    for pattern, words in (
        ("{a", "do not close"),
        ("{9..1}.tar", "backwards"),
        (f"{tmp_path}/y*.tar", "nothing matches"),
        (f"{tmp_path}/", r"is a folder; name the tars in it: .*/\*\.tar"),
    ):
        with pytest.raises(InputError, match=words):
            list(expand(pattern))
    with pytest.raises(InputError, match="named twice"):
        plan_tars(IndexConfig(shards=(f"{tmp_path}/x-08.tar", f"{tmp_path}/*.tar"), output="o"))
    with pytest.raises(InputError, match="is not there"):
        plan_tars(IndexConfig(shards=(f"{tmp_path}/x-{{10..11}}.tar",), output="o"))


def test_a_store_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionResetError("no route")

    monkeypatch.setattr("pipelines.index_tars.Patience", lambda: Patience(attempts=2, first_pause_s=0.01))
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "glob", unreachable)
    with pytest.raises(StoreError, match=r"memory://tars/\*\.tar: the store did not answer"):
        list(expand("memory://tars/*.tar"))


def test_tars_without_one_usable_sample_stop_with_the_reason(tmp_path: Path, index: Callable[..., Card]) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", picture(1)), ("2.jpg", picture(2))])
    with pytest.raises(BudgetError, match=r"2 of 2 samples.*no_annotations.*columns\.caption"):
        index(path)


def test_tars_of_an_object_store_are_indexed_and_read_by_address(tmp_path: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for name, numbers in (("a", (1, 2)), ("b", (3,))):
        local = write_tar(tmp_path / f"{name}.tar", captioned(*numbers))
        store.pipe_file(f"/bucket/{name}.tar", local.read_bytes())
    for number, pattern in enumerate(("memory://bucket/{a,b}.tar", "memory://bucket/*.tar")):
        keys: dict[str, Any] = {"shards": pattern, "output": f"memory://bucket/indexed-{number}"}
        config = IndexConfig(**keys)
        units = plan_tars(config)
        for unit in units:
            index_tar(config, unit)
        finish_index(config, units)
        records = open_dataset(config.output).records()
        assert [record.payload["jpg"] for record in records] == [picture(shade) for shade in (1, 2, 3)]
    store.rm("/bucket", recursive=True)


def _tone(seconds: float) -> bytes:
    data = io.BytesIO()
    with wave.open(data, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\x10\x00" * int(8000 * seconds))
    return data.getvalue()


def test_sounds_and_several_pictures_are_media_like_any_other(
    tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
) -> None:
    pytest.importorskip("soundfile", reason="soundfile is not installed")
    members = [
        ("beep.wav", _tone(0.5)),
        ("beep.txt", b"a beep"),
        ("two.left.jpg", picture(1)),
        ("two.right.png", _png()),
        ("two.txt", b"left and right"),
    ]
    card = index(write_tar(tmp_path / "a.tar", members))
    sound, pair = indexed().records()
    assert dict(card.media_kinds) == {"audio": 1, "image": 2}
    assert (sound.media[0].kind, sound.media[0].sample_rate, sound.payload["wav"]) == ("audio", 8000, _tone(0.5))
    assert indexed().index(0).duration_s[0] == pytest.approx(0.5)
    assert dict(pair.payload) == {"0.jpg": picture(1), "1.png": _png()}


@pytest.mark.parametrize("cut", ["refuse", "keep"])
def test_a_tar_that_was_compressed_is_said_to_be(cut: str, tmp_path: Path, index: Callable[..., Card]) -> None:
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", captioned(1)).read_bytes()))
    with pytest.raises(InputError, match=r"a\.tar\.gz is compressed \(gzip\).*; unpack it"):
        index(packed, cut=cut)


def own_tar(folder: Path, *records: Record) -> Path:
    """A tar as this project writes it, taken out of its dataset."""
    storage = open_storage(str(folder / "made"))
    with ShardWriter(storage, dataset="made", split="train", unit="u", unit_index=0, config_digest="c") as writer:
        for record in records:
            writer.add(record)
        writer.commit(raw_items=len(records), raw_annotations=sum(len(record.annotations) for record in records))
    return (folder / "made" / "shards" / "made-train-00000.tar").rename(folder / "left.tar")


def made(stem: str, *annotations: Annotation, **media: tuple[MediaKind, bytes]) -> Record:
    described = {member: replace(probe_media(data, kind=kind), member=member) for member, (kind, data) in media.items()}
    return Record(
        key=f"made-train-{stem}",
        origin=Origin(dataset="made", split="train", id=stem, file=f"{stem}.jpg", licence="CC0"),
        media=tuple(described.values()),
        annotations=annotations,
        payload={member: data for member, (_, data) in media.items()},
    )


class TestOwnTars:
    """Tars of this project whose dataset is lost."""

    QUESTIONS = (
        Question(id="1", question="what colour?", answers=(Answer(text="red", weight=0.3), Answer(text="blue"))),
        Question(id="2", question="how many?"),
    )

    @pytest.mark.parametrize("checksums", [True, False])
    def test_they_keep_all_that_their_records_said(
        self, checksums: bool, tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
    ) -> None:
        regions = regions_bytes(
            features=np.ones((2, 4), np.float32), classes=np.ones((2, 3), np.float32), boxes=np.ones((2, 6), np.float32)
        )
        records = [
            made("a", Caption(id="7", text="one"), Caption(id="8", text="two"), jpg=("image", picture(1))),
            made("b", *self.QUESTIONS, jpg=("image", picture(2))),
            made("c", Detection(box=(0.0, 1.0, 5.0, 6.0), label="dog"), jpg=("image", picture(3))),
            made("d", Caption(text="regions"), npz=("regions", regions)),
            made("e", Text(source="only words")),
        ]
        card = index(own_tar(tmp_path, *records), checksums=checksums)
        found = list(indexed().records())
        assert [record.annotations for record in found] == [record.annotations for record in records]
        assert [record.media for record in found] == [record.media for record in records]
        assert [record.payload for record in found] == [record.payload for record in records]
        assert [record.origin.id for record in found] == ["a", "b", "c", "d", "e"]
        assert (card.annotations, card.records, card.licences) == (7, 5, {"CC0": 5})

    def test_columns_that_are_told_are_taken_instead(
        self, tmp_path: Path, index: Callable[..., Card], indexed: Callable[[], Dataset]
    ) -> None:
        tar = own_tar(tmp_path, made("a", Caption(text="one"), Caption(text="two"), jpg=("image", picture(1))))
        index(tar, columns={"caption": "txt"})
        assert [record.annotations for record in indexed().records()] == [(Caption(text="one"),)]

    def test_a_picture_that_is_gone_and_a_header_of_another_version_are_rejects(
        self, tmp_path: Path, index: Callable[..., Card]
    ) -> None:
        encoded = dict(encode_record(made("a", *self.QUESTIONS, jpg=("image", picture(1)))))
        other = encoded["json"].replace(b'"schema": 1', b'"schema": 9')
        members = [
            ("made-train-a.json", encoded["json"]),
            ("made-train-b.jpg", picture(2)),
            ("made-train-b.json", other.replace(b"made-train-a", b"made-train-b")),
            ("made-train-c.jpg", picture(3)),
            ("made-train-c.txt", b"sound"),
        ]
        card = index(write_tar(tmp_path / "left.tar", members), keys="stem")
        assert rejects(tmp_path) == {"made-train-a": "missing_media", "made-train-b": "missing_field"}
        assert (card.raw_items, card.records) == (3, 1)
