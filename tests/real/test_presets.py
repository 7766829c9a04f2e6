"""Every preset of `train` and `evaluate`, by its own documented command: at its published size, and shrunken on real excerpts.

A preset names its run in the command of its top comment (`output=runs/x`), and the presets that evaluate it name the same run
(`checkpoint=runs/x`): so each is trained, evaluated and predicted with, and the commands in the comments are held true as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from jobs.cli import DONE, main
from jobs.config import PRESETS, preset_names, read_preset
from model.families import load_family
from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.config import validate
from shards.reader import Dataset, open_dataset
from shards.sidecar import write_sidecar
from trainers.tasks import load_task

TRAINED, EVALUATED = preset_names("train"), preset_names("evaluate")
WORDS = ("grass", "road", "person", "dog", "sky")

# What is left of a published family where the test is to be quick: the parts stay, their sizes go.
SIZES: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 16,
    "vision": {"width": 16, "depth": 3, "heads": 2},
    "text": {"width": 16, "layers": 4, "fusion_layer": 2, "heads": 2, "mlp_width": 32},
    "projection": 8,
}
PAIR_SIZES: dict[str, dict[str, Any]] = {
    "contrast": {"queue_size": 8},
    "hierarchy": {"layers": 1},
    "masked_image": {"decoder_width": 16, "decoder_layers": 1, "decoder_heads": 2},
}


def documented(verb: str, name: str) -> list[str]:
    """The words of every `python -m jobs <verb> <name> …` in a preset's top comment."""
    text = (PRESETS / verb / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line.lstrip("# ").rstrip("\\") for line in text.splitlines() if line.startswith("#"))
    commands = re.findall(rf"-m jobs {verb} {name}((?: +[\w.]+=\S+)+)", comment)
    return [word for command in commands for word in command.split()]


def named(words: list[str], key: str) -> str:
    found = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    assert found, f"the top comment names no {key}=… in a command of this preset"
    return found[0]


def shrunken(family: dict[str, Any]) -> dict[str, Any]:
    """A preset's family in small sizes: what it says beside sizes stays as it is."""
    small = dict(family)
    for key, value in SIZES.items():
        small[key] = {**family.get(key, {}), **value} if isinstance(value, dict) else value
    if small.get("head") is None:
        for key, value in PAIR_SIZES.items():
            if key not in family or family[key] is not None:
                small[key] = {**family.get(key, {}), **value}
    return small


def excerpt(real_data: Path, *parts: str) -> Path:
    path = real_data.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} under {real_data}")
    return path


def lend(path: Path, *, width: int, height: int) -> None:
    """Put a picture where a photo is missing."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (9, 99, 9)).save(path)


def captions(real_data: Path, folder: Path) -> dict[str, Any]:
    content = json.loads(excerpt(real_data, "coco2017", "annotations", "captions_val2017.json").read_text())
    photos = excerpt(real_data, "coco2017", "val2017")
    kept = [image for image in content["images"] if (photos / image["file_name"]).is_file()][:6]
    ids = {image["id"] for image in kept}
    few = {**content, "images": kept, "annotations": [row for row in content["annotations"] if row["image_id"] in ids]}
    (folder / "captions_val2017.json").write_text(json.dumps(few))
    return {"kind": "coco_captions", "annotations": str(folder / "captions_val2017.json"), "media": str(photos)}


def questions(real_data: Path, folder: Path) -> dict[str, Any]:
    raw = excerpt(real_data, "vqa_v2")
    asked = next(raw.glob("*_questions.json"))
    content = json.loads(asked.read_text())
    few = folder / asked.name
    few.write_text(json.dumps({**content, "questions": content["questions"][:8]}))
    answers = json.loads(next(raw.glob("*_annotations.json")).read_text())
    ids = {row["question_id"] for row in content["questions"][:8]}
    rows = [row for row in answers["annotations"] if row["question_id"] in ids]
    (folder / "answers.json").write_text(json.dumps({**answers, "annotations": rows}))
    return {"kind": "vqa_v2", "annotations": str(few), "answers": str(folder / "answers.json"), "media": str(raw)}


def hypotheses(real_data: Path, folder: Path) -> dict[str, Any]:
    lines = excerpt(real_data, "snli_ve", "snli_ve_dev.jsonl").read_text().splitlines()[:12]
    (folder / "snli_ve_dev.jsonl").write_text("\n".join(lines) + "\n")
    for line in lines:
        lend(folder / "photos" / f"{json.loads(line)['Flickr30K_ID']}.jpg", width=40, height=30)
    return {"kind": "snli_ve", "annotations": str(folder / "snli_ve_dev.jsonl"), "media": str(folder / "photos")}


def statements(real_data: Path, folder: Path) -> dict[str, Any]:
    lines = excerpt(real_data, "nlvr2_text", "dev.json").read_text().splitlines()[:12]
    (folder / "dev.json").write_text("\n".join(lines) + "\n")
    for line in lines:
        for side in (0, 1):
            pair = json.loads(line)["identifier"].rpartition("-")[0]
            lend(folder / "dev" / f"{pair}-img{side}.png", width=40, height=30)
    return {"kind": "nlvr2", "annotations": str(folder / "dev.json"), "media": str(folder / "dev")}


def expressions(real_data: Path, folder: Path) -> dict[str, Any]:
    raw = excerpt(real_data, "format_samples", "refcoco")
    for row in json.loads((raw / "instances.json").read_text())["images"]:
        lend(folder / "train2014" / row["file_name"], width=row["width"], height=row["height"])
    return {
        "kind": "refcoco",
        "annotations": str(next(raw.glob("refs(*).p"))),
        "instances": str(raw / "instances.json"),
        "media": str(folder / "train2014"),
    }


STANDS_IN: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "pretraining": captions,
    "retrieval": captions,
    "vqa": questions,
    "entailment": hypotheses,
    "statement": statements,
    "grounding": expressions,
}


def converted(source: dict[str, Any], output: Path) -> Dataset:
    """Convert, and give every record concepts, of its second picture as well."""
    config = ConvertConfig.model_validate({"source": source, "output": str(output), "reject_share": 1.0})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    dataset = open_dataset(output)
    for number, entry in enumerate(dataset.manifest):
        keys = dataset.index(number).keys
        columns: dict[str, Any] = {
            name: [[WORDS[(place + step) % len(WORDS)] for step in range(3)] for place in range(len(keys))]
            for name in ("phrases", "second_phrases")
        }
        columns |= {name: [[0.3, 0.2, 0.1]] * len(keys) for name in ("scores", "second_scores")}
        write_sidecar(
            dataset.storage,
            column="concepts",
            digest8="0badcafe",
            shard=entry.name,
            keys=keys,
            values=pa.table(columns),
            card={},
        )
    return dataset


@pytest.fixture(scope="module")
def stand_in(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Dataset]:
    """A small dataset for a kind of task, made once from real excerpts."""
    made: dict[Any, Dataset] = {}

    def make(kind: str) -> Dataset:
        source = STANDS_IN[kind]
        if source not in made:
            folder = tmp_path_factory.mktemp(source.__name__)
            made[source] = converted(source(real_data, folder), folder / "dataset")
        return made[source]

    return make


@pytest.fixture(scope="module")
def trained(stand_in: Callable[[str], Dataset], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Two steps of a preset, by the command line; each preset once."""
    runs: dict[str, Path] = {}

    def train(name: str) -> Path:
        if name not in runs:
            preset = read_preset(name, verb="train")
            words = documented("train", name)
            streams = set(preset["streams"])
            assert {word.split(".")[1] for word in words if ".dataset=" in word} == streams
            data = stand_in(preset["task"]["kind"])
            folder = tmp_path_factory.mktemp(name)
            config = preset | {
                "family": shrunken(preset["family"]),
                "tokenizer": {"train_size": 300},
                "output": str(folder / "run"),
                "batch_size": 3,
                "steps": 2,
                "epochs": None,
                "loader_workers": 0,
                "tensorboard": False,
                "device": "cpu",
            }
            for stream in streams:
                config["streams"][stream] = preset["streams"][stream] | {"dataset": data.path}
            (folder / "preset.yaml").write_text(yaml.safe_dump(config))
            assert main(["train", str(folder / "preset.yaml")]) == DONE
            runs[name] = folder / "run"
        return runs[name]

    return train


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_preset_builds_its_full_size_model_for_its_task(name: str) -> None:
    preset = read_preset(name, verb="train")
    family = load_family(preset["family"])
    with torch.device("meta"):
        model = family.build(validate(family.Config, preset["family"]))
    assert load_task(preset["task"]).emits in model.serves
    assert all(parameter.is_meta for parameter in model.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_preset_trains_and_what_it_trained_predicts_without_truth(
    name: str, trained: Callable[[str], Path], stand_in: Callable[[str], Dataset], tmp_path: Path
) -> None:
    run = trained(name)
    preset = read_preset(name, verb="train")
    data = stand_in(preset["task"]["kind"])
    words = [f"checkpoint={run}", f"dataset={data.path}", f"output={tmp_path}", "batch_size=8", "device=cpu"]
    if (preset["family"].get("head") or {}).get("kind") == "assign":
        assert main(["predict", *words]) != DONE  # a stage before another task: it answers nothing of its own
        return
    assert main(["predict", *words]) == DONE
    found = rows(tmp_path / "predictions.jsonl")
    annotated = {record.key: len(record.annotations) for record in data.records(payload=False)}
    queries = [row for row in found if row.get("direction") != "image_to_text"]
    assert sorted((row["key"], row["annotation"]) for row in queries) == sorted(
        (key, number) for key, count in annotated.items() for number in range(count)
    )
    assert all(row["ranked"] or "map" in row for row in found)


@pytest.mark.parametrize("name", EVALUATED)
def test_an_evaluation_preset_scores_the_runs_that_it_is_documented_for(
    name: str, trained: Callable[[str], Path], stand_in: Callable[[str], Dataset], tmp_path: Path
) -> None:
    checkpoint = named(documented("evaluate", name), "checkpoint")
    trainers = [each for each in TRAINED if named(documented("train", each), "output") == checkpoint]
    assert trainers, f"no training preset is documented to write {checkpoint}"
    run = trained(trainers[0])
    kind = read_preset(trainers[0], verb="train")["task"]["kind"]
    data = stand_in(kind)
    output = f"output={tmp_path}"
    assert main(["evaluate", name, f"checkpoint={run}", f"dataset={data.path}", output, "device=cpu"]) == DONE
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["metrics"]
    assert all(0 <= value <= 100 for value in scores["metrics"].values())
    assert scores["step"] == 2


def published_runs() -> Iterator[str]:
    return (named(documented("train", name), "output") for name in TRAINED)


def test_no_two_training_presets_are_documented_to_write_into_one_folder() -> None:
    runs = list(published_runs())
    assert len(set(runs)) == len(runs)
