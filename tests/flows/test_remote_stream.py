"""Training from an object store: the batches, losses and weights of training from a disk, however the store is read or fails."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.checkpoints import read_tensors
from shards.cache import FOLDER
from shards.errors import StoreError
from shards.local_storage import LocalStorage
from shards.reader import Dataset, open_dataset
from shards.stores import open_storage
from tests.faulty_store import Faults, faults
from trainers.checkpoint import find_checkpoint
from trainers.config import TrainConfig
from trainers.loader import LoaderError
from trainers.trainer import TrainSummary, train

__all__ = ["faults"]

Values = Callable[..., dict[str, Any]]
Outcome = tuple[str, list[Any], dict[str, bytes]]  # batches by key, losses, weights to the bit


def trained(values: dict[str, Any], **options: Any) -> TrainSummary:
    return train(TrainConfig.model_validate(values), lines=False, **options)


def from_store(values: dict[str, Any], address: str) -> dict[str, Any]:
    return {**values, "streams": {"world": {**values["streams"]["world"], "dataset": address}}}


def outcome(run: Path) -> Outcome:
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row for row in metrics if row["name"].startswith("loss")]
    assert losses
    weights = {name: each.numpy().tobytes() for name, each in read_tensors(find_checkpoint(run).weights).items()}
    return (run / "order.jsonl").read_text(), losses, weights


@pytest.fixture(scope="module")
def remembered() -> list[Outcome]:
    """The outcome of the run that all others are compared with: the world is the same for every test."""
    return []


@pytest.fixture
def from_disk(tiny_training: Values, tmp_path: Path, remembered: list[Outcome]) -> Outcome:
    values = tiny_training(output=str(tmp_path / "from_disk"))  # makes the world
    if not remembered:
        trained(values)
        remembered.append(outcome(tmp_path / "from_disk"))
    return remembered[0]


@pytest.mark.parametrize(
    "settings",
    [{"cache": {"mode": "ranges", "ahead": 2}}, {"cache": {"mode": "shards"}, "loader_workers": 2}],
    ids=["ranges", "shards"],
)
def test_a_store_that_fails_every_twentieth_request_changes_no_batch_no_loss_and_no_weight(
    from_disk: Outcome, tiny_training: Values, tmp_path: Path, faults: Faults, settings: dict[str, Any]
) -> None:
    faults.failing_share = 0.05
    if settings["cache"]["mode"] == "shards":
        settings = {**settings, "cache": {**settings["cache"], "folder": str(tmp_path / "cache")}}
    values = tiny_training(output=str(tmp_path / "run"), **settings)
    trained(from_store(values, f"faulty://{tmp_path / 'world'}"))
    assert faults.failed > 0  # in this process alone, which reads manifest, indices and captions
    assert outcome(tmp_path / "run") == from_disk


def test_a_run_goes_on_from_another_place_that_is_read_in_another_way(
    from_disk: Outcome, tiny_training: Values, tmp_path: Path, faults: Faults
) -> None:
    class Interrupted(Exception):
        """As if the machine had been taken away."""

    def interrupt(done: int, steps: int, interval: object) -> None:
        if done == 4:
            raise Interrupted

    values = tiny_training(output=str(tmp_path / "run"))
    with pytest.raises(Interrupted):
        trained(values, on_step=interrupt)
    moved = from_store(values, f"faulty://{tmp_path / 'world'}")
    summary = trained({**moved, "cache": {"mode": "shards", "folder": str(tmp_path / "cache")}})
    assert summary.resumed_from == 4
    assert len(list((tmp_path / "cache" / FOLDER).glob("*.tar"))) == 2
    assert outcome(tmp_path / "run") == from_disk


@pytest.mark.parametrize("workers", [0, 1])
def test_a_store_that_goes_away_ends_the_run_with_a_sentence(
    tiny_training: Values, world: Callable[..., Dataset], tmp_path: Path, faults: Faults, workers: int
) -> None:
    world()
    shards = tmp_path / "world" / "shards"

    def goes_away(path: str, start: int | None = None, end: int | None = None) -> None:
        if start is not None and str(shards) in path and "tokenizer" in " ".join(each.name for each in run.iterdir()):
            raise ConnectionResetError(104, "gone")

    run = tmp_path / "run"
    faults.request = goes_away  # type: ignore[method-assign]
    values = tiny_training(output=str(run), cache={"attempts": 2}, loader_workers=workers)
    with pytest.raises(StoreError, match=r"did not answer 2 requests") as problem:
        trained(from_store(values, f"faulty://{tmp_path / 'world'}"))
    assert not isinstance(problem.value, LoaderError)


def test_spawned_workers_read_one_cache_of_a_real_protocol(
    from_disk: Outcome, tiny_training: Values, tmp_path: Path, s3: str
) -> None:
    here, there = LocalStorage(str(tmp_path / "world")), open_storage(f"{s3}/{uuid.uuid4().hex}/world")
    for path in sorted((tmp_path / "world").rglob("*")):
        if path.is_file():
            name = str(path.relative_to(tmp_path / "world"))
            there.replace(name, here.read(name))
    assert list(open_dataset(there.url).records()) == list(open_dataset(here.url).records())
    values = tiny_training(
        output=str(tmp_path / "run"),
        cache={"mode": "shards", "folder": str(tmp_path / "cache")},
        loader_workers=2,
        loader_start="spawn",
    )
    trained(from_store(values, there.url))
    assert outcome(tmp_path / "run") == from_disk
    assert len(list((tmp_path / "cache" / FOLDER).glob("*.tar"))) == 2
