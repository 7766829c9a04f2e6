"""Duplicates go by name, whatever the number of workers and however often the run was stopped; leaks into a test split too."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from shards.errors import ConfigError
from shards.reader import open_dataset

pytest.importorskip("imagehash", reason="the extra `duplicates` is not installed")


def photo(seed: int, *, quality: int = 90, size: tuple[int, int] = (160, 120)) -> bytes:
    from PIL import Image

    rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.fixture
def world(tmp_path: Path) -> list[str]:
    """Ten pictures: 3 repeats 0 byte for byte, 7 is 2 in another size, 9 is 8 in another quality."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        data = {3: photo(0), 7: photo(2, size=(80, 60)), 9: photo(8, quality=40)}.get(number, photo(number))
        (folder / f"{number}.jpg").write_bytes(data)
    table = tmp_path / "captions.token"
    table.write_text("".join(f"{number}.jpg#0\tCaption {number}.\n" for number in range(10)))
    return [
        "source.kind=flickr_captions",
        f"source.annotations={table}",
        f"source.media={folder}",
        "records_per_shard=3",
    ]


def kept(path: Path) -> list[str]:
    return [record.origin.id.removesuffix(".jpg") for record in open_dataset(path).records(payload=False)]


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_equal_bytes_go_and_the_first_stays(world: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["shards", *world, "transforms=[drop_duplicates]", f"output={out}"]) == 0
    assert kept(out) == list("012456789")
    assert open_dataset(out).card.rejects == {"duplicate": 1}


def test_pictures_that_look_alike_go_too(world: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["shards", *world, "transforms=[{kind: drop_duplicates, by: perceptual}]", f"output={out}"]) == 0
    assert kept(out) == list("0124568")


@pytest.mark.ray
def test_any_number_of_workers_and_a_second_run_write_the_same_bytes(world: list[str], tmp_path: Path) -> None:
    words = ["shards", *world, "transforms=[{kind: drop_duplicates, by: perceptual}]"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert main([*words, f"output={one}"]) == 0
    assert main([*words, f"output={two}", "executor=ray", "workers=2"]) == 0
    assert tree(one) == tree(two)
    assert main([*words, f"output={one}"]) == 0
    assert tree(one) == tree(two)


def test_pictures_of_a_test_split_do_not_enter_the_training_split(world: list[str], tmp_path: Path) -> None:
    test, train = tmp_path / "test", tmp_path / "train"
    assert main(["shards", *world, "source.limit=2", f"output={test}"]) == 0
    rule = f"transforms=[{{kind: drop_duplicates, by: perceptual, against: [{test}]}}]"
    assert main(["shards", *world, rule, f"output={train}"]) == 0
    assert kept(train) == list("24568")


def test_two_surveys_in_one_chain_are_refused(convert: Any, tmp_path: Path, world: list[str]) -> None:
    source = {
        "kind": "flickr_captions",
        "annotations": str(tmp_path / "captions.token"),
        "media": str(tmp_path / "photos"),
    }
    with pytest.raises(ConfigError, match="at most one"):
        convert(source, transforms=["drop_duplicates", "drop_duplicates"])


def test_texts_without_media_are_compared_by_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one\ntwo\none\nthree\n")
    source = ["source.kind=text_lines", f"source.annotations={tmp_path / 'texts.txt'}"]
    assert main(["shards", *source, "transforms=[drop_duplicates]", f"output={tmp_path / 'out'}"]) == 0
    assert kept(tmp_path / "out") == ["1", "2", "4"]


def test_a_picture_that_cannot_be_decoded_is_compared_by_its_bytes_and_stops_no_run(
    world: list[str], tmp_path: Path
) -> None:
    broken = png_with_broken_samples()
    for number in (5, 6):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(broken)
    out = tmp_path / "out"
    assert main(["shards", *world, "transforms=[{kind: drop_duplicates, by: perceptual}]", f"output={out}"]) == 0
    assert {"5", "6"} & set(kept(out)) == {"5"}


def png_with_broken_samples() -> bytes:
    """Whole as a file, with right checksums; but its compressed samples are none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    samples = b"\x78\x9c" + b"garbage" * 40
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", samples) + chunk(b"IEND", b"")
