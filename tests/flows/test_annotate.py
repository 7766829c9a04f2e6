"""Pixels once: pictures stored by one dataset, questions or captions of another, from the command line to a training step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import main
from shards.reader import Dataset, open_dataset
from shards.records import Question
from tests.worlds import COLOURS
from trainers.assembly import open_streams
from trainers.config import TrainConfig
from trainers.trainer import train


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def captions(tmp_path: Path) -> list[str]:
    """The words of an `annotate` command: new captions for the even pictures of the small world, by id."""
    even = range(0, 18, 2)
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in even]
    words = [{"id": n, "image_id": n, "caption": f"new words {n} {COLOURS[n % 6]}"} for n in even]
    path = tmp_path / "captions_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": words}))
    return [
        "annotate",
        f"dataset={tmp_path / 'world'}",
        "source.kind=coco_captions",
        f"source.annotations={path}",
        "match=id",
        "column=again",
    ]


def test_a_model_trains_on_the_column_in_place_of_the_captions_in_the_tar(
    tmp_path: Path, world: Callable[..., Dataset], captions: list[str], tiny_training: Callable[..., dict[str, Any]]
) -> None:
    world()
    before = tree(tmp_path / "world" / "shards")
    assert main(captions) == 0
    assert main(["verify", f"dataset={tmp_path / 'world'}"]) == 0
    assert tree(tmp_path / "world" / "shards") == before
    stream = {"dataset": str(tmp_path / "world"), "annotations": "again", "concepts": "concepts"}
    values = tiny_training(streams={"world": stream}, steps=2, batch_size=4)
    dataset = open_streams(TrainConfig.model_validate(values)).datasets["world"]
    assert [record.origin.id for record in dataset.records(payload=False)] == [str(n) for n in range(0, 18, 2)]
    assert train(TrainConfig.model_validate(values)).step == 2
    assert "new" in (tmp_path / "run" / "tokenizer" / "vocab.txt").read_text()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_two_ray_workers_write_the_column_that_one_process_writes(
    tmp_path: Path, world: Callable[..., Dataset], captions: list[str]
) -> None:
    world()
    assert main(captions) == 0
    inline = tree(tmp_path / "world" / "sidecars")
    (folder,) = (tmp_path / "world" / "sidecars").glob("again-*")
    for path in folder.iterdir():
        path.unlink()
    assert main([*captions, "executor=ray", "workers=2"]) == 0
    assert tree(tmp_path / "world" / "sidecars") == inline


def test_vqa_goes_on_pictures_that_captions_were_stored_with(tmp_path: Path) -> None:
    from PIL import Image

    media = tmp_path / "val2017"
    media.mkdir()
    images, annotations = [], []
    for number in range(1, 5):
        Image.new("RGB", (24, 16), (number * 50, 0, 0)).save(media / f"{number:012d}.jpg")
        images.append({"id": number, "file_name": f"{number:012d}.jpg"})
        annotations.append({"id": number, "image_id": number, "caption": f"caption {number}"})
    (tmp_path / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    questions = [
        {"question_id": n * 10 + k, "image_id": n, "question": f"what {n} {k}?"} for n in (2, 3, 9) for k in (0, 1)
    ]
    answers = [
        {
            "question_id": row["question_id"],
            "image_id": row["image_id"],
            "question_type": "what",
            "answer_type": "other",
            "multiple_choice_answer": "red",
            "answers": [{"answer": "red" if n < 9 else "blue", "answer_id": n + 1} for n in range(10)],
        }
        for row in questions
    ]
    subset = {"data_subtype": "train2014"}
    (tmp_path / "v2_questions.json").write_text(json.dumps({"questions": questions, **subset}))
    (tmp_path / "v2_annotations.json").write_text(json.dumps({"annotations": answers, **subset}))
    source = [f"source.annotations={tmp_path / 'captions_val2017.json'}", f"source.media={media}"]
    assert (
        main(["shards", "source.kind=coco_captions", *source, f"output={tmp_path / 'coco'}", "records_per_shard=2"])
        == 0
    )
    words = [
        "annotate",
        f"dataset={tmp_path / 'coco'}",
        "source.kind=vqa_v2",
        f"source.annotations={tmp_path / 'v2_questions.json'}",
        f"source.answers={tmp_path / 'v2_annotations.json'}",
    ]
    assert main(words) == 0
    records = list(open_dataset(tmp_path / "coco", annotations="vqa_v2").records())
    assert [record.origin.id for record in records] == ["2", "3"]
    first = records[0].annotations[0]
    assert isinstance(first, Question)
    assert (first.question, [(answer.text, answer.weight) for answer in first.answers]) == (
        "what 2 0?",
        [("red", 0.9), ("blue", 0.1)],
    )
    assert main(["verify", f"dataset={tmp_path / 'coco'}"]) == 0


def test_usage_errors_name_what_to_do(tmp_path: Path, captions: list[str], world: Callable[..., Dataset]) -> None:
    world()
    assert main([*captions, "match=file"]) == 2  # the world's records have no file
    assert main([word for word in captions if "kind" not in word]) == 2
    assert main([*captions, f"dataset={tmp_path}"]) == 1
