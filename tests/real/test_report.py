"""The report over real clips, sounds and pictures: each is on the page in a form that a browser plays or shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.report.page import ReportConfig, write_report
from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units


def page_of(source: dict[str, object], tmp_path: Path) -> str:
    config = ConvertConfig(source=source, output=str(tmp_path / "data"), reject_share=1.0)
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    card = finish(config, units)
    page = write_report(ReportConfig(dataset=config.output, records=50, output=str(tmp_path / "page.html"))).read_text()
    assert page.count("<article") == card.records
    assert "The ledger closes." in page
    assert "nothing is damaged" in page
    assert len(page) < 8 * 2**20
    return page


def test_every_real_clip_is_playable_and_has_its_stills(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed (extra `video`)")
    clips = sorted(path.name for path in (real_data / "video" / "videos").iterdir())
    table = tmp_path / "clips.jsonl"
    table.write_text("".join(json.dumps({"clip": name, "text": f"It is {name}."}) + "\n" for name in clips))
    source: dict[str, object] = {
        "kind": "table",
        "annotations": str(table),
        "media": str(real_data / "video" / "videos"),
        "columns": {"video": "clip", "caption": "text"},
    }
    page = page_of(source, tmp_path)
    assert len(re.findall(r'<video src="data:video/(?:mp4|webm);base64,', page)) == len(clips)
    assert page.count("Frames of the clip in a row") == len(clips)


def test_every_real_sound_is_playable_and_has_its_spectrogram(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed (extra `video`)")
    clotho = real_data / "clotho"
    source: dict[str, object] = {
        "kind": "clotho",
        "annotations": str(clotho / "clotho_captions_evaluation.csv"),
        "media": str(clotho / "evaluation"),
    }
    page = page_of(source, tmp_path)
    sounds = page.count("<article")
    assert sounds
    assert len(re.findall(r'<audio src="data:audio/[a-z0-9]+;base64,', page)) == sounds
    assert page.count("Log-mel spectrogram") == sounds
    assert "Caption words" in page


def test_every_box_of_real_pictures_is_drawn(real_data: Path, tmp_path: Path) -> None:
    coco = real_data / "coco2017"
    instances = coco / "annotations" / "instances_val2017.json"
    source: dict[str, object] = {
        "kind": "coco_instances",
        "annotations": str(instances),
        "media": str(coco / "val2017"),
    }
    page = page_of(source, tmp_path)
    kept = sum(not each["iscrowd"] for each in json.loads(instances.read_text())["annotations"])
    assert page.count('class="box"') == kept
    assert "Labels" in page
