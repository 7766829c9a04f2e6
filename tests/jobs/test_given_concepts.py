"""The concepts of a photo that lies in no dataset are those that a dataset with the same photo had chosen for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from concepts.embed import EmbedderConfig
from jobs.cli import DONE, WRONG_USAGE, main
from jobs.given_concepts import GivenConcepts
from shards.errors import ConfigError
from shards.reader import Dataset
from shards.sidecar import open_sidecar
from tests.concepts.worlds import captioned_dataset, tiny_clip
from trainers.config import StreamConfig

__all__ = ["captioned_dataset", "tiny_clip"]

SMALL: dict[str, Any] = {
    "family.image_size": 32,
    "family.vision": "{width: 16, depth: 2, heads: 2}",
    "family.text": "{width: 16, layers: 2, fusion_layer: 1, heads: 2, mlp_width: 32, max_positions: 64}",
    "family.projection": 8,
    "family.hierarchy": "{layers: 1}",
    "family.contrast": "{queue_size: 8}",
    "tokenizer.train_size": 200,
    "batch_size": 8,
    "steps": 1,
    "tensorboard": "false",
}


@pytest.fixture
def conceived(
    captioned_dataset: Callable[..., Dataset], tiny_clip: Callable[..., dict[str, Any]]
) -> tuple[Dataset, dict[str, Any]]:
    """A dataset whose pictures have concepts, and the CLIP that chose them."""
    dataset, clip = captioned_dataset(), tiny_clip()
    words = [f"embedder.{key}={clip[key]}" for key in ("model", "pretrained")]
    assert main(["concepts", f"dataset={dataset.path}", *words, "phrases.tagger=rules", "top_k=3"]) == DONE
    return dataset, clip


def run_on(dataset: Dataset) -> Any:
    """What a trained run says of its data."""
    stream = StreamConfig(dataset=dataset.path, concepts="concepts")
    return SimpleNamespace(config=SimpleNamespace(streams={"made": stream}, cache=None))


def test_a_photos_concepts_are_those_of_its_record(conceived: tuple[Dataset, dict[str, Any]]) -> None:
    dataset, clip = conceived
    choose = GivenConcepts(EmbedderConfig(model=clip["model"], pretrained=clip["pretrained"]))
    records = list(dataset.records(0))
    column = open_sidecar(dataset, "concepts")
    chosen = choose(run_on(dataset), [record.payload["jpg"] for record in records])
    assert chosen == [tuple(column.row(0, record.key)["phrases"]) for record in records]
    assert len(chosen[0]) == 3


def test_another_clip_is_refused_and_none_is_said(
    conceived: tuple[Dataset, dict[str, Any]],
    tiny_clip: Callable[..., dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    dataset, _ = conceived
    other = tiny_clip("other", seed=1)
    with pytest.raises(ConfigError, match="is not the CLIP that chose the concepts"):
        GivenConcepts(EmbedderConfig(model=other["model"], pretrained=other["pretrained"]))(run_on(dataset), [b""])
    with caplog.at_level(logging.WARNING, logger="jobs.given_concepts"):
        assert GivenConcepts(None)(run_on(dataset), [b"", b""]) == [(), ()]
    assert "without any" in caplog.text


def test_a_photo_is_compared_as_its_record_is_once_its_concepts_are_chosen(
    conceived: tuple[Dataset, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, clip = conceived
    run = tmp_path / "run"
    keys = [f"{key}={value}" for key, value in SMALL.items()]
    stream = [f"streams.data.dataset={dataset.path}", "streams.data.concepts=concepts"]
    assert main(["train", "vicha_small", *stream, *keys, f"output={run}"]) == DONE
    record = next(iter(dataset.records()))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(record.payload["jpg"])
    words = ["predict", f"checkpoint={run}", f"picture={photo}", "text=A small dog.", "device=cpu"]
    named = [f"embedder.{key}={clip[key]}" for key in ("model", "pretrained")]
    phrases = open_sidecar(dataset, "concepts").row(0, record.key)["phrases"]
    capsys.readouterr()
    said = []
    for more in (named, [f"phrases=[{', '.join(phrases)}]"], ["phrases=[boat]"]):
        assert main([*words, *more]) == DONE
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
    assert main([*words, "embedder.model=nowhere.json", "embedder.pretrained=nowhere.bin"]) == WRONG_USAGE
