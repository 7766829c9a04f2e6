"""An evaluation: every picture and text once, scores beside chance, predictions that can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shards.errors import ConfigError, DamagedRecordError, DatasetError
from shards.reader import Dataset, open_dataset
from shards.sidecar import write_sidecar
from trainers.checkpoint import CheckpointError
from trainers.config import EvaluateConfig, TrainConfig
from trainers.evaluator import evaluate
from trainers.gallery import read_gallery
from trainers.trainer import train


@pytest.fixture
def trained(tmp_path: Path, tiny_training: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """A run of a few steps, as the plain values of an EvaluateConfig on the pictures it was trained on."""
    values = tiny_training()
    train(TrainConfig.model_validate(values), lines=False)
    dataset = values["streams"]["world"]["dataset"]
    return {"checkpoint": values["output"], "dataset": dataset, "output": str(tmp_path / "scores"), "k_test": 5}


def _evaluate(values: dict[str, Any], **changes: Any) -> Any:
    return evaluate(EvaluateConfig.model_validate({**values, **changes}))


def test_scores_and_predictions_agree_with_one_another(trained: dict[str, Any]) -> None:
    scores = _evaluate(trained)
    written = json.loads((Path(trained["output"]) / "scores.json").read_text())
    assert written == scores.to_json()
    assert (written["images"], written["texts"], written["k_test"], written["step"]) == (18, 36, 5, 6)
    assert written["chance"]["text_to_image_r1"] == pytest.approx(100 / 18)
    rows = [json.loads(line) for line in (Path(trained["output"]) / "predictions.jsonl").read_text().splitlines()]
    for direction, queries in (("text_to_image", 36), ("image_to_text", 18)):
        chosen = [row for row in rows if row["direction"] == direction]
        assert len(chosen) == queries
        for cutoff in (1, 5, 10):
            share = 100 * sum(row["rank"] < cutoff for row in chosen) / queries
            assert share == pytest.approx(written["metrics"][f"{direction}_r{cutoff}"])
        for row in chosen:
            ranked = [entry["score"] for entry in row["ranked"]]
            assert ranked == sorted(ranked, reverse=True)
            if row["rank"] < 10 and direction == "text_to_image":
                assert row["ranked"][row["rank"]]["key"] in row["truth"]


def test_the_batch_size_changes_no_score(trained: dict[str, Any]) -> None:
    large = _evaluate(trained)
    small = _evaluate(trained, batch_size=5, match_batch_size=3)
    assert small.metrics == pytest.approx(large.metrics)
    assert small.cosine == pytest.approx(large.cosine)


def test_the_room_for_states_changes_no_bit_of_what_is_found(trained: dict[str, Any], tmp_path: Path) -> None:
    ample = _evaluate(trained, batch_size=7)
    expected = (Path(trained["output"]) / "predictions.jsonl").read_bytes()
    for room in (0, 20_000, 60_000):  # of 58 kB for pictures and at most 115 kB for texts
        output = tmp_path / f"room for {room}"
        tight = _evaluate(trained, batch_size=7, output=str(output), state_bytes=room)
        assert tight.metrics == ample.metrics
        assert (output / "predictions.jsonl").read_bytes() == expected
        assert sorted(path.name for path in output.iterdir()) == ["predictions.jsonl", "scores.json"]


def test_without_re_ranking_the_metrics_are_those_of_the_cosine(trained: dict[str, Any]) -> None:
    scores = _evaluate(trained, k_test=0)
    assert scores.metrics == scores.cosine
    assert "re-ranked" not in scores.table()
    assert "chance" in scores.table()


def test_progress_is_told_for_every_stage(trained: dict[str, Any]) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(EvaluateConfig.model_validate(trained), on_progress=lambda *numbers: told.append(numbers))
    assert list(dict.fromkeys(stage for stage, *_ in told)) == ["images", "texts", "text states", "match"]
    assert ("images", 18, 18) in told
    assert ("texts", 36, 36) in told
    assert ("text states", 36, 36) in told
    assert ("match", 18, 18) in told


def test_a_damaged_picture_stops_an_evaluation_naming_it(trained: dict[str, Any]) -> None:
    shard = next(Path(trained["dataset"]).glob("shards/*.tar"))
    data = bytearray(shard.read_bytes())
    place = data.index(b"\xff\xd8\xff")
    data[place + 200] ^= 0xFF
    shard.write_bytes(bytes(data))
    with pytest.raises(DamagedRecordError, match="world-0"):
        _evaluate(trained)
    assert not (Path(trained["output"]) / "scores.json").exists()


def test_a_limit_takes_the_first_pictures_with_all_their_texts(world: Callable[..., Dataset]) -> None:
    dataset = world(captions=3)
    gallery = read_gallery(dataset, None, limit=4)
    assert gallery.keys == tuple(record.key for record in list(dataset.records(payload=False))[:4])
    assert gallery.relevant().sum(dim=1).tolist() == [3] * 4
    assert [text.image for text in gallery.texts] == [image for image in range(4) for _ in range(3)]


def test_a_run_trained_with_concepts_needs_them_to_be_there(
    trained: dict[str, Any], world: Callable[..., Dataset], tmp_path: Path
) -> None:
    bare = world("bare")
    sidecars = tmp_path / "bare" / "sidecars"
    sidecars.rename(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="concepts"):
        _evaluate(trained, dataset=str(open_dataset(bare.path).path))


def test_a_column_of_another_kind_is_not_taken_for_concepts(trained: dict[str, Any]) -> None:
    dataset = open_dataset(trained["dataset"])
    for number, entry in enumerate(dataset.manifest):
        keys = dataset.index(number).keys
        values = pa.table({"similarity": [0.5] * len(keys)})
        place = {"column": "similarity", "digest8": "0badcafe", "shard": entry.name}
        write_sidecar(dataset.storage, keys=keys, values=values, card={}, **place)
    with pytest.raises(DatasetError, match="has no field 'phrases'; it has similarity"):
        _evaluate(trained, concepts="similarity")


def test_an_output_that_cannot_be_written_is_told_of_before_the_work(trained: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    seen: list[str] = []
    with pytest.raises(ConfigError, match="file' cannot be written"):
        evaluate(
            EvaluateConfig.model_validate({**trained, "output": str(tmp_path / "file")}),
            on_progress=lambda stage, *_: seen.append(stage),
        )
    assert not seen


def test_a_folder_without_a_checkpoint_is_one_sentence(trained: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no complete checkpoint there"):
        _evaluate(trained, checkpoint=str(tmp_path / "nothing"))
