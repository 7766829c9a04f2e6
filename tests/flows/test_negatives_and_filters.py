"""From a dataset to columns of wrong and of kept captions, and on into training: what the loss sees, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.cli import main
from model.families.vicha.batch import PairBatch
from model.families.vicha.model import Vicha
from shards.reader import Dataset
from shards.sidecar import open_sidecar
from tests.concepts.worlds import tiny_clip
from trainers.config import TrainConfig
from trainers.trainer import train

__all__ = ["tiny_clip"]


def test_training_sees_the_wrong_captions_of_a_column_and_no_caption_that_was_filtered_out(
    world: Callable[..., Dataset],
    tiny_clip: Callable[..., dict[str, Any]],
    tiny_training: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, clip = world(), tiny_clip()
    embedder = [f"embedder.model={clip['model']}", f"embedder.pretrained={clip['pretrained']}"]
    assert (
        main(["negatives", f"dataset={dataset.path}", *embedder, "guard_cosine=1", "guard_picture=1", "top_k=3"]) == 0
    )
    assert main(["filter", f"dataset={dataset.path}", *embedder, "keep=0.5", "last_caption=drop"]) == 0
    seen: list[PairBatch] = []
    step = Vicha.step

    def watched(self: Vicha, batch: PairBatch, *, soften: float) -> Any:
        seen.append(batch)
        return step(self, batch, soften=soften)

    monkeypatch.setattr(Vicha, "step", watched)
    values = tiny_training(task={"kind": "pretraining", "wrong_share": 1.0})
    values["streams"]["world"] |= {"negatives": "negatives", "select": "selection"}
    train(TrainConfig.model_validate(values), lines=False)
    assert seen
    assert all(batch.is_wrong is not None and batch.is_wrong.all() for batch in seen)
    kept = {
        f"{row['key']}#{number}"
        for shard in range(len(dataset.manifest))
        for row in open_sidecar(dataset, "selection").table(shard).to_pylist()
        for number, keep in enumerate(row["keep"])
        if keep
    }
    assert {key for batch in seen for key in batch.keys} <= kept
