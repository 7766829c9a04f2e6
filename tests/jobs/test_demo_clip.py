from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from concepts.embed import ClipEmbedder, EmbedderConfig
from jobs.demo.clip import DemoClipConfig, clip_files, train_demo_clip
from shards.errors import DatasetError
from shards.reader import Dataset
from tests.concepts.worlds import captioned_dataset

__all__ = ["captioned_dataset"]

MakeDataset = Callable[..., Dataset]


def config(dataset: Dataset, output: Path, **changes: object) -> DemoClipConfig:
    values = {"dataset": dataset.path, "output": str(output), "steps": 12, "batch_size": 8, "phrase_share": 0.0}
    return DemoClipConfig.model_validate({**values, **changes})


def test_the_trained_files_load_as_a_released_clip_does(captioned_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = captioned_dataset()
    steps: list[tuple[int, int]] = []
    weights = train_demo_clip(
        config(dataset, tmp_path / "clip"), on_step=lambda done, total: steps.append((done, total))
    )
    model, expected = clip_files(tmp_path / "clip")
    assert weights == expected
    assert steps == [(step, 12) for step in range(1, 13)]
    loss = json.loads((tmp_path / "clip" / "training.json").read_text())["loss"]
    assert loss["last_tenth"] < loss["first"]
    embedder = ClipEmbedder(EmbedderConfig(model=str(model), pretrained=str(weights)))
    assert embedder.images([record.payload["jpg"] for record in dataset.records(0)]).shape == (7, 128)


def test_training_is_done_once_and_again_for_another_config(captioned_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = captioned_dataset()
    short = config(dataset, tmp_path / "clip", steps=1)
    calls: list[int] = []
    first = train_demo_clip(short).read_bytes()
    train_demo_clip(short, on_step=lambda done, total: calls.append(done))
    assert not calls
    other = train_demo_clip(
        short.model_copy(update={"seed": 1}), on_step=lambda done, total: calls.append(done)
    ).read_bytes()
    assert calls == [1]
    assert other != first
    assert train_demo_clip(config(dataset, tmp_path / "elsewhere", steps=1)).read_bytes() == first


def test_a_dataset_without_captions_is_refused(captioned_dataset: MakeDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="too few to train on"):
        train_demo_clip(config(captioned_dataset(shards=1, records=1), tmp_path / "clip"))
