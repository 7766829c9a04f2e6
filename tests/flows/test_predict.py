"""Predictions without truth: over datasets, resumed and shared among processes, and of pictures straight from files."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import DONE, WRONG_USAGE, main
from shards.errors import ConfigError, DamagedRecordError, DatasetError, InputError
from shards.reader import Dataset, open_dataset
from shards.records import Grounding, Label
from tests.askable import COLOURS, SHAPES, SIZES, annotated, captions, hypotheses, picture, questions, statements
from trainers import prediction
from trainers.config import EvaluateConfig, PredictConfig, TrainConfig
from trainers.evaluation import evaluate
from trainers.prediction import predict
from trainers.trainer import train

__all__ = ["annotated"]

PAIRS = {
    "contrast": {"queue_size": 16, "targets": "identity", "temperature_range": None},
    "hierarchy": None,
    "masked_text": None,
    "masked_image": None,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "retrieval": PAIRS,
    "grounding": PAIRS,
    "vqa": {"head": {"kind": "answers"}},
    "entailment": {"head": {"kind": "classes"}},
    "statement": {"head": {"kind": "compare"}},
}


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Path]:
    """A run of two steps."""

    def run(data: Dataset, task: str) -> Path:
        config = {
            "output": str(tmp_path / f"run-{task}"),
            "streams": {"data": {"dataset": data.path}},
            "task": {"kind": task},
            "family": SIZES | FAMILIES[task],
            "tokenizer": {"train_size": 200},
            "batch_size": 8,
            "steps": 2,
            "tensorboard": False,
        }
        train(TrainConfig.model_validate(config), lines=False)
        return Path(str(config["output"]))

    return run


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    """Four picture files that no dataset holds."""
    paths = []
    for colour, shape in itertools.islice(itertools.product(COLOURS, SHAPES), 4):
        path = tmp_path / f"{colour} {shape}.jpg"
        path.write_bytes(picture(colour, shape))
        paths.append(str(path))
    return paths


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("task", "ask"), [("vqa", questions), ("entailment", hypotheses), ("statement", statements)])
def test_predictions_without_truth_are_those_that_an_evaluation_makes(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path], task: str, ask: Callable[..., Any]
) -> None:
    data = annotated("told", ask())
    run, hidden = trained(data, task), annotated("untold", ask(told=False))
    common: dict[str, Any] = {"checkpoint": str(run), "batch_size": 5}
    evaluate(EvaluateConfig(dataset=data.path, output=str(tmp_path / "scores"), **common))
    found = predict(PredictConfig(dataset=hidden.path, output=str(tmp_path / "out"), **common))
    evaluated, predicted = rows(tmp_path / "scores" / "predictions.jsonl"), rows(tmp_path / "out" / "predictions.jsonl")
    assert [row["ranked"] for row in predicted] == [row["ranked"] for row in evaluated]
    assert [(row["key"], row["annotation"]) for row in predicted] == [
        (record.key, number) for record in hidden.records(payload=False) for number in range(len(record.annotations))
    ]
    assert found.count == len(predicted)
    card = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert (card["rows"], card["task"]["kind"], card["checkpoint"]["step"]) == (len(predicted), task, 2)


def test_a_job_that_was_cut_off_goes_on_and_ends_in_the_same_bytes(
    tmp_path: Path,
    annotated: Callable[..., Dataset],
    trained: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = annotated("questions", questions())
    config = PredictConfig(
        checkpoint=str(trained(data, "vqa")), dataset=data.path, output=str(tmp_path / "cut"), batch_size=3
    )
    whole = predict(config.model_copy(update={"output": str(tmp_path / "whole")}))
    monkeypatch.setattr(prediction, "BATCHES_PER_PART", 2)
    looked: list[int] = []

    def interrupting(stage: str, done: int, total: int) -> None:
        looked.append(done)
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(config, on_progress=interrupting)
    assert not (tmp_path / "cut" / "predictions.jsonl").exists()
    looked.clear()
    again = predict(config, on_progress=lambda stage, done, total: looked.append(done))
    assert min(looked) == 6  # the first part was kept
    assert again.file is not None
    assert whole.file is not None
    assert again.file.read_bytes() == whole.file.read_bytes()
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == ["prediction.json", "predictions.jsonl"]
    looked.clear()
    assert predict(config, on_progress=lambda stage, done, total: looked.append(done)).was_done
    assert not looked
    with pytest.raises(ConfigError, match=r"differ in asked\.named"):
        predict(config.model_copy(update={"named": 2}))


def test_another_training_in_the_same_folder_is_not_taken_for_the_one_that_predicted(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path]
) -> None:
    data = annotated("questions", questions())
    run = trained(data, "vqa")
    config = PredictConfig(checkpoint=str(run), dataset=data.path, output=str(tmp_path / "out"))
    predict(config)
    run.rename(tmp_path / "first")
    trained(annotated("others", itertools.islice(questions(), 4)), "vqa")
    with pytest.raises(ConfigError, match="differ in checkpoint"):
        predict(config)


def test_changed_pictures_and_answer_lists_are_not_taken_for_those_that_were_looked_at(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path], photos: list[str]
) -> None:
    run = trained(annotated("questions", questions()), "vqa")
    (tmp_path / "answers.json").write_text('["red", "green"]')
    config = PredictConfig(
        checkpoint=str(run),
        picture=(photos[0],),
        question=("what colour is it",),
        task={"answers": str(tmp_path / "answers.json")},
        output=str(tmp_path / "out"),
    )
    first = predict(config).rows
    assert predict(config).was_done
    assert predict(config).rows == first
    (tmp_path / "answers.json").write_text('["red", "blue"]')
    with pytest.raises(ConfigError, match=r"differ in seen\.candidates"):
        predict(config)
    (tmp_path / "answers.json").write_text('["red", "green"]')
    Path(photos[0]).write_bytes(Path(photos[1]).read_bytes())
    with pytest.raises(ConfigError, match=r"differ in seen\.pictures"):
        predict(config)


EVERY_COMMAND = """
import json, sys
from torch import distributed
from jobs.cli import main

distributed.init_process_group("gloo")  # once for all: a launch has one meeting place
codes = [main(words) for words in json.load(open(sys.argv[1]))]
distributed.destroy_process_group()
sys.exit(max(codes))
"""


def test_two_processes_write_what_one_writes_whatever_is_asked(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path]
) -> None:
    boxed = [(pictures, [Grounding(text="the shape", box=(2.0, 2.0, 13.0, 13.0))]) for pictures, _ in captions()]
    asked = {
        "vqa": annotated("questions", questions()),
        "grounding": annotated("boxes", boxed),
        "retrieval": annotated("captions", captions()),
    }
    commands = []
    for task, data in asked.items():
        words = ["predict", f"checkpoint={trained(data, task)}", f"dataset={data.path}", "batch_size=3", "device=cpu"]
        assert main([*words, f"output={tmp_path / task / 'one'}"]) == DONE
        commands.append([*words, f"output={tmp_path / task / 'two'}"])
    commands[0].append(f"submission={tmp_path / 'two.json'}")
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    (tmp_path / "commands.py").write_text(EVERY_COMMAND)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "commands.py"), str(tmp_path / "commands.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("vqa: 16 predictions") == 1  # one of the two speaks
    for task in asked:
        one, two = (tmp_path / task / name / "predictions.jsonl" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    assert len(json.loads((tmp_path / "two.json").read_text())) == 16


def test_a_submission_names_every_question_once_by_its_own_id_in_any_split(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path]
) -> None:
    data = annotated("questions", questions())
    run, hidden = trained(data, "vqa"), annotated("hidden", questions(told=False))
    file = tmp_path / "for" / "server.json"
    config = PredictConfig(
        checkpoint=str(run), dataset=hidden.path, output=str(tmp_path / "out"), submission=str(file), form="parquet"
    )
    predict(config)
    written = json.loads(file.read_text())
    ids = [int(str(each.id)) for record in hidden.records(payload=False) for each in record.annotations]
    assert [row["question_id"] for row in written] == ids
    assert all(row.keys() == {"question_id", "answer"} and isinstance(row["answer"], str) for row in written)
    before = file.read_bytes()
    file.unlink()
    assert predict(config).was_done  # what is finished gives the submission again
    assert file.read_bytes() == before
    twice = [(pictures, [replace(each, id="7") for each in asked]) for pictures, asked in questions(told=False)]
    repeated = config.model_copy(update={"dataset": annotated("twice", twice).path, "output": str(tmp_path / "other")})
    with pytest.raises(DatasetError, match="question 7 comes 16 times"):
        predict(repeated)


def test_parquet_holds_the_rows_of_the_json_lines(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path]
) -> None:
    import pyarrow.parquet as pq

    boxed = [(pictures, [Grounding(text="the shape", box=(2.0, 2.0, 13.0, 13.0))]) for pictures, _ in captions()]
    for task, data in (
        ("retrieval", annotated("captions", captions())),
        ("grounding", annotated("boxes", boxed)),
        ("entailment", annotated("hypotheses", hypotheses())),
    ):
        config = PredictConfig(
            checkpoint=str(trained(data, task)), dataset=data.path, output=str(tmp_path / task), named=2
        )
        lines = predict(config)
        table = predict(config.model_copy(update={"output": f"{tmp_path / task}-table", "form": "parquet"}))
        assert lines.file is not None
        assert table.file is not None
        for line, row in zip(rows(lines.file), pq.read_table(table.file).to_pylist(), strict=True):
            line["ranked"] = [{key: found.get(key) for key in row["ranked"][0]} for found in line["ranked"]]
            assert {key: line.get(key) for key in row} == row


def test_photos_are_asked_whatever_the_run_was_trained_for(
    annotated: Callable[..., Dataset],
    trained: Callable[..., Path],
    photos: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = {
        "vqa": (questions(), f"[{', '.join(photos)}]", "question='[what colour is it, what shape is it]'", 8),
        "entailment": (hypotheses(), photos[0], "text=it is red", 1),
        "statement": (statements(), f"[{', '.join(photos)}]", "text=both have the same colour", 2),
        "grounding": (captions(), photos[1], "text='[a red disc, a blue square]'", 2),
    }
    for task, (data, shown, text, count) in asked.items():
        run = trained(annotated(task, data), task)
        word = text.replace("'", "")
        assert main(["predict", f"checkpoint={run}", f"picture={shown}", word]) == DONE
        printed = capsys.readouterr().out
        assert f"{task}: {count} prediction" in printed
        assert "red_square" in printed or "red_disc" in printed  # by the names of the files


def test_a_photos_answers_are_those_that_its_record_gets(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path]
) -> None:
    data = annotated("questions", questions())
    run = trained(data, "vqa")
    record = next(iter(data.records()))
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(record.payload["jpg"])
    whole = predict(PredictConfig(checkpoint=str(run), dataset=data.path, output=str(tmp_path / "out"), limit=1))
    asked = tuple(row["text"] for row in rows(whole.file or tmp_path))
    given = predict(PredictConfig(checkpoint=str(run), picture=(str(photo),), question=asked))
    assert [row["ranked"] for row in given.rows] == [row["ranked"] for row in rows(whole.file or tmp_path)]


def test_given_pictures_and_texts_find_what_is_nearest_among_each_other_or_in_a_dataset(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path], photos: list[str]
) -> None:
    data = annotated("captions", captions())
    common: dict[str, Any] = {"checkpoint": str(trained(data, "retrieval")), "k_test": 3, "named": 5}
    among = predict(PredictConfig(picture=tuple(photos), text=("a red disc", "a blue square"), **common)).rows
    assert [row["direction"] for row in among] == ["text_to_image"] * 2 + ["image_to_text"] * 4
    assert {found["key"] for found in among[0]["ranked"]} <= {"red_square", "red_disc", "green_square", "green_disc"}
    by_picture = predict(PredictConfig(picture=(photos[0],), dataset=data.path, **common)).rows
    assert [(row["direction"], len(row["ranked"])) for row in by_picture] == [("image_to_text", 3)]
    assert all(found["key"].startswith("captions-") and found["text"] for found in by_picture[0]["ranked"])
    by_text = predict(PredictConfig(text=("a red disc",), dataset=data.path, **common)).rows
    assert [(row["direction"], row["text"], len(row["ranked"])) for row in by_text] == [
        ("text_to_image", "a red disc", 3)
    ]
    every = predict(PredictConfig(dataset=data.path, output=str(tmp_path / "out"), **common))
    ranked = {row.get("text"): row["ranked"] for row in rows(every.file or tmp_path) if row.get("text")}
    assert ranked["a red disc"] == by_text[0]["ranked"]


def test_a_map_is_written_with_its_peak_and_the_given_boxes_in_its_order(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path], photos: list[str]
) -> None:
    run = trained(annotated("captions", captions()), "grounding")
    boxes = [[0, 0, 8, 8], [8, 8, 8, 8], [0, 0, 16, 16]]
    (tmp_path / "dets.json").write_text(json.dumps({Path(photos[0]).stem: boxes}))
    config = PredictConfig(
        checkpoint=str(run),
        picture=(photos[0],),
        text=("a red square",),
        task={"proposals": str(tmp_path / "dets.json")},
    )
    (row,) = predict(config).rows
    assert max(itertools.chain(*row["map"])) == 255
    assert [len(line) for line in row["map"]] == [2, 2]  # 16 pixels in patches of 8
    assert sorted(found["box"] for found in row["ranked"]) == sorted([list(map(float, box)) for box in boxes])
    scores = [found["score"] for found in row["ranked"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= place < 16 for place in row["peak"])


def test_maps_of_given_pictures_are_painted_over_them(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path], photos: list[str]
) -> None:
    run = trained(annotated("captions", captions()), "grounding")
    words = [f"checkpoint={run}", f"picture=[{', '.join(photos[:2])}]", "text=[a disc, a square]"]
    assert main(["predict", *words, f"output={tmp_path / 'out'}"]) == DONE
    painted = sorted(path.name for path in (tmp_path / "out" / "maps").iterdir())
    assert painted == [f"red_{shape}-{number}.jpg" for shape in ("disc", "square") for number in (0, 1)]
    assert (tmp_path / "out" / "maps" / painted[0]).read_bytes() != Path(photos[1]).read_bytes()


def test_what_does_not_fit_the_run_is_told_before_anything_is_read(
    tmp_path: Path,
    annotated: Callable[..., Dataset],
    trained: Callable[..., Path],
    photos: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = annotated("questions", questions())
    run = f"checkpoint={trained(data, 'vqa')}"
    photo, output = f"picture={photos[0]}", f"output={tmp_path / 'out'}"
    labelled = [(pictures, [Label(name="shape", index=0)]) for pictures, _ in captions()]
    others = annotated("others", labelled)
    retrieval = f"checkpoint={trained(annotated('captions', captions()), 'retrieval')}"
    wrong = [
        ([run], "name dataset=… or picture=…"),
        ([run, photo], "say question=…"),
        ([run, photo, "text=a red disc"], "give question=… instead"),
        ([run, photo, "question=what is it", f"dataset={data.path}"], "not both"),
        ([run, f"dataset={data.path}"], "name output=…"),
        ([run, f"picture={tmp_path / 'nowhere.jpg'}", "question=what"], "cannot be read"),
        ([run, photo, "question=what", "text=who"], "not both"),
        ([run, photo, "question={what: is it}"], "quotes of their own"),
        ([retrieval, photo], "compared with what"),
        ([retrieval, photo, "question=what is it"], "give text=… instead"),
        ([retrieval, photo, "text=a disc", f"submission={tmp_path / 's.json'}"], "no server"),
        ([retrieval, f"dataset={data.path}", output, "task.kind=vqa"], "without the head"),
    ]
    for words, said in wrong:
        assert main(["predict", *words]) == WRONG_USAGE, words
        assert said in capsys.readouterr().err, words
    assert main(["predict", run, f"dataset={others.path}", output]) != DONE
    assert "holds label annotations and not one of the questions" in capsys.readouterr().err
    assert main(["predict", retrieval, f"dataset={others.path}", output]) != DONE
    assert "no caption to compare pictures with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dataset_is_asked_a_question_of_ones_own(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path]
) -> None:
    run, plain = trained(annotated("questions", questions()), "vqa"), annotated("captions", captions())
    found = predict(
        PredictConfig(
            checkpoint=str(run), dataset=plain.path, question=("what is it",), output=str(tmp_path / "out"), limit=3
        )
    )
    assert [(row["text"], row["annotation"]) for row in rows(found.file or tmp_path)] == [("what is it", 0)] * 3


def test_a_broken_file_or_record_is_named(
    tmp_path: Path, annotated: Callable[..., Dataset], trained: Callable[..., Path]
) -> None:
    data = annotated("questions", questions())
    run = str(trained(data, "vqa"))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture("red", "disc")[:200])
    with pytest.raises(InputError, match=r"broken\.jpg: is no picture"):
        predict(PredictConfig(checkpoint=run, picture=(str(broken),), question=("what is it",)))
    shard = next(Path(data.path).glob("shards/*.tar"))
    content = bytearray(shard.read_bytes())
    content[content.index(b"\xff\xd8\xff") + 60] ^= 0xFF
    shard.write_bytes(bytes(content))
    with pytest.raises(DamagedRecordError, match="questions-000"):
        predict(PredictConfig(checkpoint=run, dataset=open_dataset(data.path).path, output=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_a_dry_run_says_what_would_be_looked_at(
    tmp_path: Path,
    annotated: Callable[..., Dataset],
    trained: Callable[..., Path],
    photos: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = annotated("statements", statements())
    run = f"checkpoint={trained(data, 'statement')}"
    assert main(["predict", run, f"dataset={data.path}", f"output={tmp_path / 'out'}", "--dry-run"]) == DONE
    assert "trained for statement, looks at 16 records" in capsys.readouterr().out
    assert main(["predict", run, f"picture=[{', '.join(photos)}]", "text=both are red", "--dry-run"]) == DONE
    assert "looks at 2 given examples" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
