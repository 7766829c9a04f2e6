"""Visual Genome's regions: phrases with their boxes, or as captions of the picture that is then stored once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError
from shards.records import Caption


def region(id: Any, phrase: Any, *box: Any, **changes: Any) -> dict[str, Any]:
    place = dict(zip(("x", "y", "width", "height"), box or (1, 2, 3, 4), strict=True))
    return {"region_id": id, "image_id": 1, "phrase": phrase, **place, **changes}


@pytest.fixture
def source(tmp_path: Path, picture: Any) -> Any:
    (tmp_path / "VG_100K").mkdir()
    (tmp_path / "VG_100K" / "1.jpg").write_bytes(picture())

    def spec(pictures: Any, **keys: Any) -> dict[str, Any]:
        (tmp_path / "region_descriptions.json").write_text(json.dumps(pictures))
        places = {"annotations": str(tmp_path / "region_descriptions.json"), "media": str(tmp_path)}
        return {"kind": "vg_regions", **places, **keys}

    return spec


def test_a_region_is_a_phrase_with_its_box(convert: Any, source: Any) -> None:
    done = convert(source([{"id": 1, "regions": [region(8, "the clock "), region(9, "shade", 0, 0, 12, 8)]}]))
    (record,) = done.dataset.records()
    assert [(a.id, a.text, a.box) for a in record.annotations] == [
        ("8", "the clock", (1, 2, 4, 6)),
        ("9", "shade", (0, 0, 12, 8)),
    ]


def test_as_captions_a_picture_is_stored_once_with_all_phrases_and_its_boxes_do_not_matter(
    convert: Any, source: Any
) -> None:
    pictures = [{"id": 1, "regions": [region(8, "the clock", x=-900), region(9, "shade", width=None)]}]
    (record,) = convert(source(pictures, phrases_as="captions")).dataset.records()
    assert record.annotations == (Caption(id="8", text="the clock"), Caption(id="9", text="shade"))


def test_boxes_that_stick_out_are_refused_by_name_or_cut(convert: Any, source: Any) -> None:
    pictures = [{"id": 1, "regions": [region(8, "inside"), region(9, "sticks out", 6, 4, 40, 40)]}]
    assert convert(source(pictures)).reasons("annotation") == {"9": "box_outside"}
    (record,) = convert(source(pictures, clip_boxes=True)).dataset.records()
    assert [annotation.box for annotation in record.annotations] == [(1, 2, 4, 6), (6, 4, 12, 8)]


def test_what_cannot_be_a_region_is_refused_by_its_id_and_the_ledger_closes(convert: Any, source: Any) -> None:
    regions = [region(1, "good"), region(2, ""), region(3, None), region(None, "x"), region(1, "again"), 7]
    done = convert(source([{"id": 1, "regions": regions}, {"id": 5, "regions": [region(50, "lost")]}]))
    assert done.reasons("annotation") == {
        "2": "empty_text",
        "3": "missing_field",
        "[0].regions[3]": "missing_field",
        "1": "duplicate_id",
        "[0].regions[5]": "missing_field",
    }
    assert done.reasons() == {"5": "missing_media"}
    assert (done.card.records, done.card.annotations, done.card.raw_annotations) == (1, 1, 7)


@pytest.mark.parametrize("content", [{}, [], [{"id": 1, "qas": []}], [{"id": 1, "regions": {}}]])
def test_another_file_is_one_sentence(convert: Any, source: Any, content: Any) -> None:
    with pytest.raises(InputError, match=r"give Visual Genome's region_descriptions\.json"):
        convert(source(content))
