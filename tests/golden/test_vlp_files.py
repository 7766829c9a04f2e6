"""VLP's published file layouts: the arrays, captions and questions that the published loader read, read by ours."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Question
from shards.regions import read_regions

HERE = Path(__file__).parent
_SHARED = HERE.parents[2] / "shared" / "golden"
ROOT = Path(os.environ.get("OSTRAKA_GOLDEN") or (_SHARED if _SHARED.is_dir() else HERE / "cases"))
LAYOUTS = sorted({file.parent for file in ROOT.rglob("dataset_coco.json") if (file.parent / "regions").is_dir()})
IMDBS = sorted(file for file in ROOT.rglob("imdb_*.npy") if (file.parent / "expected_examples.json").is_file())
RAW = {"features": "fc6_feat", "classes": "cls_prob", "boxes": "bbox"}


def converted(tmp_path: Path, **source: Any) -> Dataset:
    spec = {"source": {"kind": "vlp", **source}, "output": str(tmp_path / "out"), "reject_share": 1.0}
    config = ConvertConfig.model_validate(spec)
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    return open_dataset(config.output)


def check_arrays(dataset: Dataset, inputs: dict[str, Any]) -> int:
    """Compare with the raw tensors of the case; returns how many pictures it had."""
    compared = 0
    for record in dataset.records():
        stem = Path(record.origin.id).stem
        stored = read_regions(record.payload["npz"])
        if f"raw.{stem}.bbox" in inputs:
            for ours, theirs in RAW.items():
                np.testing.assert_array_equal(stored[ours].astype("f4"), inputs[f"raw.{stem}.{theirs}"])
            compared += 1
    return compared


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_regions_and_captions_are_those_of_the_published_loader(case: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    from safetensors.numpy import load_file

    dataset = converted(
        tmp_path,
        annotations=str(case / "dataset_coco.json"),
        media=str(case / "regions"),
        listed=str(case / "coco_valid_jpgs.json"),
        split="train+restval",
    )
    inputs = load_file(case / "inputs.safetensors")
    assert check_arrays(dataset, inputs) == sum(name.endswith(".bbox") for name in inputs)
    wanted = [
        (Path(example["path"]).stem, "".join(example["tokens"]).replace("##", ""))
        for example in json.loads((case / "expected_examples.json").read_text())
    ]
    read = [
        (Path(record.origin.id).stem, annotation.text.replace(" ", ""))
        for record in dataset.records()
        for annotation in record.annotations
        if isinstance(annotation, Caption)
    ]
    assert read == wanted


@pytest.mark.parametrize("case", LAYOUTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_older_layout_holds_the_same_arrays(case: Path, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    from safetensors.numpy import load_file

    folder = case / "flickr30k_layout"
    dataset = converted(tmp_path, annotations=str(case / "dataset_coco.json"), media=str(folder))
    assert check_arrays(dataset, load_file(case / "inputs.safetensors")) == len(list(folder.glob("*_cls_prob.npy")))


@pytest.mark.parametrize("file", IMDBS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_questions_and_answers_are_those_of_the_published_loader(file: Path, tmp_path: Path) -> None:
    wanted = json.loads((file.parent / "expected_examples.json").read_text())
    features = tmp_path / "features"
    features.mkdir()
    h5py = pytest.importorskip("h5py")
    with h5py.File(features / "boxes.h5", "w") as boxes:
        for name in {Path(example["path"]).stem for example in wanted}:
            boxes[name] = np.ones((2, 6))
            np.save(features / f"{name}.npy", np.ones((2, 3)))
            np.save(features / f"{name}_cls_prob.npy", np.ones((2, 3)))
    read = [
        (record.origin.id, question.question.replace(" ", ""), question.answers)
        for record in converted(tmp_path, annotations=str(file), media=str(features)).records()
        for question in record.annotations
        if isinstance(question, Question)
    ]
    assert len(read) == len(wanted)
    for name, text, answers in read:
        example = next(
            example
            for example in wanted
            if Path(example["path"]).stem == name and "".join(example["tokens"]).replace("##", "") == text
        )
        given = example["answers"]
        assert {answer.text: round(answer.weight * len(given)) for answer in answers} == {
            text: given.count(text) for text in given
        }
