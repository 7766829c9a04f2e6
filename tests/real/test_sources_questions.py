"""Question sources over the real excerpts under $OSTRAKA_DATA; expectations are computed from the raw files themselves."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.errors import InputError
from shards.manifest import Card
from shards.reader import open_dataset
from shards.records import Caption, Question

DATA = Path(os.environ.get("OSTRAKA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def real(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not here; set OSTRAKA_DATA")
    return path


def converted(tmp_path: Path, source: dict[str, Any]) -> tuple[Card, Path]:
    output = tmp_path / "dataset"
    config = ConvertConfig.model_validate({"source": source, "output": str(output), "reject_share": 1.0})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    return finish(config, units), output


def placeholder() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 99, 9)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_vqa_v2_on_its_photos(tmp_path: Path) -> None:
    folder = real("vqa_v2")
    questions = next(folder.glob("*_questions.json"))
    answers = next(folder.glob("*_annotations.json"))
    spec = {"kind": "vqa_v2", "annotations": str(questions), "answers": str(answers), "media": str(folder)}
    card, output = converted(tmp_path, spec)
    raw = json.loads(questions.read_text())["questions"]
    given = {row["question_id"]: row for row in json.loads(answers.read_text())["annotations"]}
    assert card.raw_annotations == len(raw)
    assert card.raw_items == len({row["image_id"] for row in raw})
    stored = {
        annotation.id: annotation
        for record in open_dataset(output).records()
        for annotation in record.annotations
        if isinstance(annotation, Question)
    }
    assert stored
    for id, question in stored.items():
        counts = Counter(answer["answer"].strip() for answer in given[int(id or 0)]["answers"])
        assert {answer.text: round(answer.weight * counts.total()) for answer in question.answers} == counts
        assert question.question_type == given[int(id or 0)]["question_type"]


def test_the_questions_without_photos_become_missing_media_and_nothing_is_lost(tmp_path: Path) -> None:
    questions = next(real("text_vqa").glob("*_questions.json"))
    media = tmp_path / "pictures"
    media.mkdir()
    first = json.loads(questions.read_text())["questions"][0]["image_id"]
    (media / f"{first:012d}.jpg").write_bytes(placeholder())
    spec = {"kind": "vqa_v2", "annotations": str(questions), "media": str(media), "limit": 500}
    config = ConvertConfig.model_validate({"source": spec, "output": str(tmp_path / "out")})
    card, _ = converted(tmp_path, spec)
    items = [item for unit in plan_units(config) for item in unit.items]
    assert card.raw_items == len(items)
    assert card.records == 1
    assert card.rejects == {"missing_media": len(items) - 1}


@pytest.mark.parametrize(
    ("kind", "place", "type_", "name"),
    [
        ("textvqa", ("format_samples", "textvqa"), Question, "{image_id}.jpg"),
        ("textcaps", ("format_samples", "textcaps"), Caption, "{image_id}.jpg"),
    ],
)
def test_textvqa_and_textcaps(kind: str, place: tuple[str, ...], type_: type, name: str, tmp_path: Path) -> None:
    file = next(real(*place).glob("*.json"))
    rows = json.loads(file.read_text())["data"]
    media = tmp_path / "pictures"
    media.mkdir()
    for row in rows:
        (media / name.format(**row)).write_bytes(placeholder())
    card, output = converted(tmp_path, {"kind": kind, "annotations": str(file), "media": str(media)})
    assert (card.records, card.annotations) == (len({row["image_id"] for row in rows}), len(rows))
    assert all(
        isinstance(annotation, type_)
        for record in open_dataset(output).records(payload=False)
        for annotation in record.annotations
    )


def test_visual_genome_questions(tmp_path: Path) -> None:
    file = real("visual_genome", "question_answers.json")
    images = json.loads(file.read_text())
    media = tmp_path / "VG_100K"
    media.mkdir()
    for image in images:
        (media / f"{image['id']}.jpg").write_bytes(placeholder())
    card, _ = converted(tmp_path, {"kind": "vg_qa", "annotations": str(file), "media": str(tmp_path)})
    assert card.raw_annotations == sum(len(image["qas"]) for image in images)
    assert card.records == sum(bool(image["qas"]) for image in images)
    assert card.rejects == {"no_annotations": sum(not image["qas"] for image in images)}


def test_gqa_scene_graphs_are_told_from_questions(tmp_path: Path) -> None:
    file = real("format_samples", "gqa", "train_sceneGraphs.json")
    (tmp_path / "1.jpg").write_bytes(placeholder())
    with pytest.raises(InputError, match="scene graphs"):
        converted(tmp_path, {"kind": "gqa", "annotations": str(file), "media": str(tmp_path)})
