"""SNLI-VE: a photo is one record with all that is said to follow from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError
from shards.records import Entailment


def line(photo: Any, pair: Any, label: Any, hypothesis: Any = "It rains.", **more: Any) -> str:
    fields = {"Flickr30K_ID": photo, "pairID": pair, "gold_label": label, "sentence1": "Rain.", "sentence2": hypothesis}
    return json.dumps({**fields, **more})


@pytest.fixture
def source(tmp_path: Path, picture: Any) -> Any:
    (tmp_path / "photos").mkdir()
    for id in (11, 12, 9):
        (tmp_path / "photos" / f"{id}.jpg").write_bytes(picture(shade=15 * id))

    def spec(*lines: str, **keys: Any) -> dict[str, Any]:
        (tmp_path / "snli_ve_dev.jsonl").write_text("\n".join(lines) + "\n")
        places = {"annotations": str(tmp_path / "snli_ve_dev.jsonl"), "media": str(tmp_path / "photos")}
        return {"kind": "snli_ve", **places, **keys}

    return spec


def test_a_photo_becomes_one_record_with_all_its_hypotheses_wherever_they_stand(convert: Any, source: Any) -> None:
    done = convert(
        source(
            line("11", "11.jpg#0r1e", "entailment", "It is wet."),
            line("9", "9.jpg#0r1n", "neutral"),
            line("11", "11.jpg#0r1c", "contradiction", "It is dry. "),
        )
    )
    first, second = done.dataset.records()
    assert (first.key, second.key) == ("snli_ve-dev-9", "snli_ve-dev-11")
    assert second.annotations == (
        Entailment(id="11.jpg#0r1e", hypothesis="It is wet.", premise="Rain.", label="entailment"),
        Entailment(id="11.jpg#0r1c", hypothesis="It is dry.", premise="Rain.", label="contradiction"),
    )


def test_no_gold_label_and_every_other_flaw_are_refused_by_name_and_the_ledger_closes(
    convert: Any, source: Any
) -> None:
    done = convert(
        source(
            line("11", "a", "entailment"),
            line("11", "b", "-"),
            line("11", "c", "perhaps"),
            line("11", "d", "neutral", " "),
            line("11", "e", "neutral", "broken \udc80"),
            line("11", "f", None),
            line("11", "a", "neutral"),
            line("11", "g", "neutral", sentence1=""),
            line("12", "h", "-"),
            line("404", "i", "neutral"),
            line("../11", "j", "neutral"),
            line("", "k", "neutral"),
        )
    )
    (record,) = done.dataset.records()
    assert [annotation.id for annotation in record.annotations] == ["a"]
    assert done.reasons("annotation") == {
        "b": "filtered",
        "c": "missing_field",
        "d": "empty_text",
        "e": "broken_utf8",
        "f": "missing_field",
        "a": "duplicate_id",
        "g": "empty_text",
        "h": "filtered",
    }
    assert done.reasons() == {
        "12": "filtered",
        "404": "missing_media",
        "../11": "outside_media",
        "line 12": "missing_field",
    }
    assert done.card.raw_annotations == 12


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([line("11", "a", "neutral"), line("11", "b", "neutral")[:-9]], "line 2: no valid JSON"),
        ([json.dumps({"captionID": "11.jpg#0", "gold_label": "neutral"})], "line 1 has no `Flickr30K_ID`"),
        (["[1]"], "line 1: no JSON object"),
    ],
)
def test_a_cut_file_and_plain_snli_are_one_sentence(convert: Any, source: Any, lines: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        convert(source(*lines))
