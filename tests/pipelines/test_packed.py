"""Packed annotation files: the same bytes as unpacked ones, whoever reads them, and one sentence for each that is not whole."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
import random
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import unpacking
from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from pipelines.json_lines import read_json_lines
from pipelines.json_stream import stream_json
from pipelines.object_arrays import read_objects
from pipelines.packed import matching, open_seekable, plain_name, read_slice, size_of
from pipelines.plain_pickle import read_plain_pickle
from pipelines.raw_text import check_file, read_json, read_rows
from pipelines.text_items import read_lines
from shards.errors import InputError
from shards.reader import open_dataset


def zipped(data: bytes, *, name: str = "inside.json", others: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for other in others:
            archive.writestr(other, b"nothing")
        archive.writestr(name, data)
    return buffer.getvalue()


PACKS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "zip": zipped,
}
READERS: dict[str, Callable[[str], Any]] = {
    "whole": lambda path: read_json(path, key="k"),
    "stream": lambda path: list(stream_json(path, key="k")),
    "lines": lambda path: list(read_json_lines(path, key="k", must_have="text", what="the right file")),
    "rows": lambda path: list(read_rows(path, key="k", delimiter="\t")),
    "text": lambda path: list(read_lines(path, key="k")),
}
ONE_LINE = json.dumps({"text": "Ein Hund läuft.", "words": [1, 2]}, ensure_ascii=False).encode()


def noise(size: int) -> bytes:
    """JSON that packs badly, so that a cut or flipped byte lies in the middle of it."""
    generator = random.Random(size)
    return json.dumps({"text": base64.b64encode(generator.randbytes(size)).decode()}).encode()


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte_order_mark"])
def test_every_reader_finds_in_a_packed_file_what_it_finds_in_the_file(
    reader: str, pack: str, mark: bytes, tmp_path: Path
) -> None:
    plain, packed = tmp_path / "captions.json", tmp_path / f"captions.json.{pack}"
    plain.write_bytes(mark + ONE_LINE)
    packed.write_bytes(PACKS[pack](mark + ONE_LINE))
    assert READERS[reader](str(packed)) == READERS[reader](str(plain)) != []


@pytest.mark.parametrize("pack", ["gz", "bz2", "xz", "zst"])
def test_parts_that_were_packed_one_after_another_are_one_file(pack: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes(PACKS[pack](b"one\n") + PACKS[pack](b"two\n"))
    assert list(read_lines(str(path), key="k")) == ["one", "two"]


def test_how_a_file_is_packed_is_told_by_its_bytes_and_not_by_its_name(tmp_path: Path) -> None:
    lying, plain = tmp_path / "captions.json", tmp_path / "captions.gz"
    lying.write_bytes(gzip.compress(ONE_LINE))
    plain.write_bytes(ONE_LINE)
    assert read_json(str(lying), key="k") == read_json(str(plain), key="k")


@pytest.mark.parametrize("start", [b"BZh, said the ant.", b"PK is a band.", b"\x1fodd"])
def test_a_text_that_begins_as_a_packed_file_almost_does_is_a_text(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes(start)
    assert list(read_lines(str(tmp_path / "texts.txt"), key="k")) == [start.decode()]


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999], ids=["near_its_start", "inside", "near_its_end"])
def test_a_packed_file_that_is_cut_stops_the_run(reader: str, pack: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"captions.json.{pack}"
    data = PACKS[pack](noise(20_000))
    path.write_bytes(data[: max(12, int(len(data) * share))])
    with pytest.raises(InputError, match=rf"k: {path} is cut or damaged, .*; download it again"):
        READERS[reader](str(path))


@pytest.mark.parametrize("pack", ["gz", "bz2", "xz", "zip"])  # Arrow writes zstd without a checksum
def test_a_wrong_checksum_stops_the_run(pack: str, tmp_path: Path) -> None:
    path = tmp_path / f"captions.json.{pack}"
    data = bytearray(PACKS[pack](noise(20_000)))
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="is cut or damaged"):
        read_json(str(path), key="k")


@pytest.mark.parametrize("pack", PACKS)
def test_a_small_file_that_unpacks_to_a_huge_one_is_refused_before_it_fills_anything(
    pack: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_FREE", 1 << 20)
    path = tmp_path / f"captions.json.{pack}"
    path.write_bytes(PACKS[pack](b'{"text": "' + bytes(24 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
            read_json(str(path), key="k")
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("head", [b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07\x01\x00", b"\x04\x22\x4d\x18"])
def test_what_is_packed_in_another_way_is_named(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "captions").write_bytes(head + bytes(100))
    with pytest.raises(InputError, match=r"is compressed \((7z|rar|lz4)\), which is not read here; unpack it"):
        read_json(str(tmp_path / "captions"), key="k")


def test_an_archive_in_a_packed_file_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("captions.json"))
    (tmp_path / "captions.tar.gz").write_bytes(gzip.compress(buffer.getvalue()))
    (tmp_path / "twice.gz").write_bytes(gzip.compress(bz2.compress(ONE_LINE)))
    with pytest.raises(InputError, match=r"holds another archive \(tar\)"):
        check_file(str(tmp_path / "captions.tar.gz"), key="k")
    with pytest.raises(InputError, match=r"holds another archive \(bzip2\)"):
        check_file(str(tmp_path / "twice.gz"), key="k")


def test_an_empty_file_is_empty_however_it_is_packed(tmp_path: Path) -> None:
    for name, pack in PACKS.items():
        (tmp_path / name).write_bytes(pack(b""))
        with pytest.raises(InputError, match="is empty"):
            check_file(str(tmp_path / name), key="k")


class TestZip:
    def test_a_path_goes_on_into_a_zip_of_several_files(self, tmp_path: Path) -> None:
        path = tmp_path / "annotations.zip"
        path.write_bytes(zipped(ONE_LINE, name="deep/captions.json", others=("deep/other.json",)))
        assert read_json(f"{path}/deep/captions.json", key="k") == json.loads(ONE_LINE)

    def test_a_zip_of_several_files_says_how_to_name_one(self, tmp_path: Path) -> None:
        path = tmp_path / "annotations.zip"
        path.write_bytes(zipped(ONE_LINE, name="a.json", others=("b.json",)))
        with pytest.raises(InputError, match=rf"has 2 files in it .*b\.json, a\.json.*; name one as {path}/b\.json"):
            read_json(str(path), key="k")

    def test_a_file_that_is_not_in_it_is_missed(self, tmp_path: Path) -> None:
        path = tmp_path / "annotations.zip"
        path.write_bytes(zipped(ONE_LINE, name="a.json"))
        with pytest.raises(InputError, match=r"has no b\.json in it \(it holds: a\.json\)"):
            read_json(f"{path}/b.json", key="k")

    def test_what_macos_packs_beside_a_file_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / "captions.zip"
        path.write_bytes(zipped(ONE_LINE, others=("__MACOSX/._inside.json", ".DS_Store")))
        assert read_json(str(path), key="k") == json.loads(ONE_LINE)

    def test_a_file_behind_a_password_is_said_to_need_unpacking(self, tmp_path: Path) -> None:
        data = bytearray(zipped(ONE_LINE))
        data[6] |= 1  # the flag of an encrypted member, in its header
        data[data.index(b"PK\1\2") + 8] |= 1  # and in the directory
        (tmp_path / "captions.zip").write_bytes(data)
        with pytest.raises(InputError, match=r"cannot be unpacked here \(.*password.*\); unpack it"):
            read_json(str(tmp_path / "captions.zip"), key="k")

    def test_a_path_into_a_file_that_is_no_zip_names_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "captions.json").write_bytes(ONE_LINE)
        with pytest.raises(InputError, match=r"captions\.json is no zip"):
            read_json(f"{tmp_path}/captions.json/inside.json", key="k")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/captions.json.gz", "captions.json"),
        ("a.zip/deep/val.csv", "val.csv"),
        ("TRAIN.TSV.ZST", "TRAIN.TSV"),
        ("captions.json", "captions.json"),
        ("photos", "photos"),
    ],
)
def test_a_packed_file_has_the_name_of_what_is_in_it(path: str, name: str) -> None:
    assert plain_name(path) == name


@pytest.mark.parametrize("pack", PACKS)
def test_places_in_the_middle_of_a_packed_file_are_read_by_several_in_turns(pack: str, tmp_path: Path) -> None:
    data = noise(600_000)
    path = tmp_path / "rows.tsv"
    path.write_bytes(PACKS[pack](data))
    with open_seekable(str(path), key="k") as one, open_seekable(str(path), key="k") as other:
        one.seek(500_000)
        assert other.read(10) == data[:10]
        assert one.read(300_000) == data[500_000:800_000]
        assert other.read(10) == data[10:20]
    assert read_slice(str(path), offset=700_000, size=50, key="k") == data[700_000:700_050]
    assert size_of(str(path), key="k") == len(data)


def test_a_file_that_is_packed_anew_is_unpacked_anew(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    for content in (b"first", b"second"):
        path.write_bytes(gzip.compress(content))
        assert read_slice(str(path), offset=0, size=9, key="k") == content


def test_objects_and_pickles_are_unpacked(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"question_id": 1}, {"question_id": 2}], dtype=object), allow_pickle=True)
    (tmp_path / "imdb.npy.gz").write_bytes(gzip.compress(buffer.getvalue()))
    (tmp_path / "refs.p.xz").write_bytes(lzma.compress(pickle.dumps([{"ref_id": 7}], protocol=2)))
    assert read_objects(str(tmp_path / "imdb.npy.gz"), key="k") == [{"question_id": 1}, {"question_id": 2}]
    assert read_plain_pickle(str(tmp_path / "refs.p.xz"), key="k") == [{"ref_id": 7}]


@pytest.fixture
def raw(tmp_path: Path, photos: Path) -> Callable[[str], tuple[dict[str, Any], Path]]:
    """Gives a source spec and its annotation file, by name."""
    files = [photos / f"{name}.jpg" for name in "abcd"]
    encoded = [base64.b64encode(file.read_bytes()).decode() for file in files]

    def make(kind: str) -> tuple[dict[str, Any], Path]:
        if kind == "coco_captions":
            path = tmp_path / "captions_val2017.json"
            images = [{"id": number, "file_name": file.name} for number, file in enumerate(files)]
            captions = [{"id": number, "image_id": number, "caption": f"photo {number}"} for number in range(4)]
            path.write_text(json.dumps({"images": images, "annotations": captions}))
            return {"kind": "coco_captions", "media": str(photos)}, path
        rows = [{"pic": text, "text": f"words {number}"} for number, text in enumerate(encoded)]
        spec: dict[str, Any] = {"kind": "table", "columns": {"image": "pic", "caption": "text"}}
        path = tmp_path / f"t.{kind}"
        if kind == "csv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=["pic", "text"])
                writer.writeheader()
                writer.writerows(rows)
        elif kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif kind == "json":
            path.write_text(json.dumps(rows))
        elif kind == "parquet":
            blobs = [{"pic": file.read_bytes(), "text": file.name} for file in files]
            pq.write_table(pa.Table.from_pylist(blobs), path, row_group_size=2)
        else:
            path = tmp_path / "caption_train.tsv"
            path.write_text("".join(f"{n}\t{n}\ta photo of {n}\t\t{text}\n" for n, text in enumerate(encoded)))
            spec = {"kind": "ofa_tsv", "columns": {"id": 0, "image_id": 1, "caption": 2, "image": 4}}
        return spec, path

    return make


def stored(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("kind", ["coco_captions", "csv", "jsonl", "json", "parquet", "ofa_tsv"])
def test_a_packed_file_becomes_the_very_dataset_of_the_file(
    kind: str, pack: str, raw: Callable[[str], tuple[dict[str, Any], Path]], tmp_path: Path
) -> None:
    spec, path = raw(kind)
    data = path.read_bytes()
    packed = path.with_name(f"{path.name}.{pack}")
    packed.write_bytes(zipped(data, name=path.name) if pack == "zip" else PACKS[pack](data))
    made = []
    for file, output in ((path, tmp_path / "one"), (packed, tmp_path / "other")):
        source = {**spec, "annotations": str(file)}
        config = ConvertConfig(source=source, output=str(output), records_per_shard=3).absolute()
        units = plan_units(config)
        for unit in units:
            convert_unit(config, unit)
        assert finish(config, units).records == 4
        made.append(dict(stored(output)))
        path.unlink(missing_ok=True)  # nothing of the file itself may be needed for the packed one
    assert made[0] == made[1]
    assert len(open_dataset(str(tmp_path / "other"))) == 4


def test_a_pattern_that_matches_a_table_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"file,text\na.jpg,words\n")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"file,text\na.jpg,words\n"))
    source = {"kind": "table", "annotations": f"{tmp_path}/t.*", "columns": {"image": "file", "caption": "text"}}
    with pytest.raises(InputError, match=r"t\.csv packed and unpacked"):
        plan_units(ConvertConfig(source=source, output=str(tmp_path / "out")))


def test_a_folder_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    for name in ("a [1]/t-0.csv", "a [1]/b*/t-1.csv", "a 1/t-2.csv"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert matching(f"{tmp_path}/a [1]/t-*.csv") == [f"{tmp_path}/a [1]/t-0.csv"]
    assert sorted(matching(f"{tmp_path}/a [1]/**/t-?.csv")) == [
        f"{tmp_path}/a [1]/{name}" for name in ("b*/t-1.csv", "t-0.csv")
    ]
    assert matching(f"{tmp_path}/a [12]/t-*.csv") == [f"{tmp_path}/a 1/t-2.csv"]
    assert matching(f"{tmp_path}/a ?/t-*.csv") == [f"{tmp_path}/a 1/t-2.csv"]
