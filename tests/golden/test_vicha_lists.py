"""ViCHA's released list formats: paths, answer weights and labels as the published datasets read them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from pipelines.side_columns import write_side_columns
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Question
from shards.sidecar import open_sidecar

HERE = Path(__file__).parent
_SHARED = HERE.parents[2] / "shared" / "golden"
ROOT = Path(os.environ.get("OSTRAKA_GOLDEN") or (_SHARED if _SHARED.is_dir() else HERE / "cases"))


def _is_lists(file: Path) -> bool:
    content = json.loads(file.read_text())
    return isinstance(content, dict) and {"pretrain", "vqa_train"} <= content.keys()


CASES = sorted(file.parent for file in ROOT.rglob("dataset_samples*/expected.json") if _is_lists(file))
each_case = pytest.mark.parametrize("case", CASES, ids=lambda path: path.relative_to(ROOT).as_posix())


def converted(tmp_path: Path, rows: list[dict[str, Any]], files: list[str]) -> tuple[Dataset, tuple[str, ...]]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 99, 9)).save(buffer, "JPEG")
    for file in files:
        path = tmp_path / "media" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    (tmp_path / "list.json").write_text(json.dumps(rows))
    source = {"kind": "vicha_json", "annotations": str(tmp_path / "list.json"), "media": str(tmp_path / "media")}
    config = ConvertConfig.model_validate({"source": source, "output": str(tmp_path / "out")})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    return open_dataset(config.output), write_side_columns(config)


@each_case
def test_paths_lose_the_authors_folders_and_kwords_become_concepts(case: Path, tmp_path: Path) -> None:
    wanted = json.loads((case / "expected.json").read_text())["pretrain"]
    dataset, columns = converted(tmp_path, wanted["annotations"], wanted["image_path_suffix"])
    assert [record.origin.file for record in dataset.records()] == wanted["image_path_suffix"]
    column = open_sidecar(dataset, columns[0])
    for record, (_, concepts), row in zip(dataset.records(), wanted["items"], wanted["annotations"], strict=True):
        assert " ".join(column.row(0, record.key)["phrases"]) == concepts
        given = row["caption"] if isinstance(row["caption"], list) else [row["caption"]]
        assert [caption.text for caption in record.annotations if isinstance(caption, Caption)] == given


@each_case
def test_answers_are_weighted_as_the_published_dataset_weights_them(case: Path, tmp_path: Path) -> None:
    wanted = json.loads((case / "expected.json").read_text())["vqa_train"]
    rows = wanted["annotations"]
    dataset, _ = converted(tmp_path, rows, [row["image"] for row in rows])
    stored = {
        str(question.id): {answer.text: answer.weight for answer in question.answers}
        for record in dataset.records()
        for question in record.annotations
        if isinstance(question, Question)
    }
    for row, (_, answers, weights) in zip(rows, wanted["items"], strict=True):
        published = {answer.removesuffix("[SEP]"): weight for answer, weight in zip(answers, weights, strict=True)}
        assert stored[str(row["question_id"])] == pytest.approx(published)
