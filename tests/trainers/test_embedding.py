"""Both towers over a gallery: what waits to be matched stays within its room, and cosines are exact."""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.families.vicha.model import Vicha
from shards.errors import OstrakaError
from trainers.config import EvaluateConfig, TrainConfig
from trainers.embedding import Features
from trainers.evaluator import evaluate
from trainers.trainer import train

BATCH = 4
PICTURES, TEXTS = 18, 36
# 16 patches, the class token and 8 tokens of concepts; 25 tokens of a text; 32 wide, in fp32.
OF_PICTURES, OF_TEXTS = 25 * 32 * 4, 25 * 32 * 4


@pytest.fixture
def exam(tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A run of two steps, and how it is evaluated."""
    values = tiny_training(steps=2)
    train(TrainConfig.model_validate(values), lines=False)
    dataset = values["streams"]["world"]["dataset"]
    output = str(tmp_path / "scores")
    return {"checkpoint": values["output"], "dataset": dataset, "output": output, "k_test": 3, "batch_size": BATCH}


def _most_bytes(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many bytes of the towers' states lie in memory at the most while a run is evaluated."""
    alive: dict[int, int] = {}
    most = 0
    predict = Vicha.predict

    def watched(self: Vicha, *args: Any) -> Any:
        nonlocal most
        found = predict(self, *args)
        for states in (found.image_states, found.text_states):
            if states is not None:
                alive[id(states)] = states.nbytes
                weakref.finalize(states, alive.pop, id(states))
        most = max(most, sum(alive.values()))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Vicha, "predict", watched)
        evaluate(EvaluateConfig.model_validate(values))
    assert not alive
    return most


def test_states_take_no_more_than_their_room_and_the_batch_at_work(
    exam: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = BATCH * max(OF_PICTURES, OF_TEXTS)
    every = PICTURES * OF_PICTURES + TEXTS * OF_TEXTS
    assert _most_bytes(exam, monkeypatch) == every  # there is room for all
    for room in (0, 3 * batch):
        assert _most_bytes({**exam, "state_bytes": room}, monkeypatch) <= room + 2 * batch < every
    assert _most_bytes({**exam, "k_test": 0}, monkeypatch) <= 2 * batch


def test_a_full_disk_stops_an_evaluation_with_one_sentence_and_leaves_nothing(
    exam: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OstrakaError, match=r"scores: cannot hold .* of text states .*No space left on device"):
        evaluate(EvaluateConfig.model_validate({**exam, "state_bytes": 0}))
    assert list(Path(exam["output"]).iterdir()) == []


def test_cosines_are_exact_where_the_towers_compute_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(9, 16, generator=generator), dim=1) for _ in range(2))
    features = Features(images=images, texts=texts, lengths=torch.ones(9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = features.similarity()
    assert torch.equal(found, images @ texts.T)
