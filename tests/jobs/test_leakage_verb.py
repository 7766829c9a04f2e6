"""Train against test: the pictures they share are named, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.cli import main

pytest.importorskip("imagehash", reason="the extra `duplicates` is not installed")


def dataset(folder: Path, name: str, seeds: list[int], *, size: tuple[int, int]) -> Path:
    from PIL import Image

    photos = folder / f"{name}-photos"
    photos.mkdir()
    for seed in seeds:
        rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC).save(photos / f"{seed}.jpg", quality=85)
    table = folder / f"{name}.token"
    table.write_text("".join(f"{seed}.jpg#0\tA picture.\n" for seed in seeds))
    words = [
        "source.kind=flickr_captions",
        f"source.annotations={table}",
        f"source.media={photos}",
        "records_per_shard=2",
    ]
    assert main(["shards", *words, f"name={name}", f"output={folder / name}"]) == 0
    return folder / name


def test_shared_pictures_are_named_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = dataset(tmp_path, "train", [1, 2, 3, 4, 5], size=(160, 120))
    test = dataset(tmp_path, "test", [9, 4, 2], size=(96, 72))
    pairs = tmp_path / "leaks.parquet"
    capsys.readouterr()
    assert main(["leakage", f"dataset={train}", f"against={test}", f"output={pairs}"]) == 1
    said = capsys.readouterr().out
    assert "train-all-2 is test-all-2\n" in said
    assert f"2 of 5 records are also in {test}" in said
    assert pq.read_table(pairs).to_pylist() == [
        {"key": "train-all-2", "against": "test-all-2"},
        {"key": "train-all-4", "against": "test-all-4"},
    ]


def test_no_leak_is_said_and_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = dataset(tmp_path, "train", [1, 2], size=(160, 120))
    test = dataset(tmp_path, "test", [9, 2], size=(96, 72))
    assert main(["leakage", f"dataset={train}", f"against={test}", "by=content"]) == 0
    assert "0 of 2 records" in capsys.readouterr().out
