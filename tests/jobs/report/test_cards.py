"""Cards: every kind of record is shown with its media and with what is said about it, within an allowance."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.report.cards import MOST_EXPRESSIONS, marked_boxes, media_fact, record_card
from jobs.report.learned import Learned
from shards.records import Detection, Grounding, Media
from tests.jobs.report.modalities import Kind, kinds, picture, write_kind

AMPLE = 1_000_000
SHOWN = {
    "captions": ("<img", "Caption number 1."),
    "questions": ("<img", "Which one is 1?", "this", "0.7"),
    "objects": ("<img", "<svg", "dog", "cat 1"),
    "expressions": ("<img", "<svg", "the dog, 1 / left one", "right one"),
    "pairs": ("side-by-side", "Both show 1 dogs.", "false"),
    "hypotheses": ("<img", "It rains.", "It is wet, 1.", "neutral"),
    "clips": ("<video", "data:video/mp4", "Clip number 1.", "96 × 64, 1.0 s, 10 frames/s"),
    "sounds": ("<audio", "data:audio/wav", "Log-mel", "tone", "0 to 4 kHz", "8 kHz mono"),
    "regions": ("<svg", "5 regions of 8 numbers", "Regions number 1."),
    "texts": ("A long text, 1.", "Short."),
}


def test_the_table_above_is_about_every_kind() -> None:
    assert set(SHOWN) == set(kinds())


@pytest.mark.parametrize("name", SHOWN)
def test_a_card_shows_media_and_words(tmp_path: Path, name: str) -> None:
    if name in ("clips", "sounds"):
        pytest.importorskip("av", reason="PyAV is not installed (extra `video`)")
    record = write_kind(tmp_path / name, kinds()[name]).record(0, 1)
    card = record_card(record, learned=Learned(), allowance=AMPLE)
    assert record.key in card
    for shown in SHOWN[name]:
        assert shown in card
    assert card.count("<img") == (2 if name == "pairs" else 0 if name in ("regions", "texts") else 1)


def test_concepts_are_bars_where_they_have_scores_and_plain_words_where_none_came_with_them(tmp_path: Path) -> None:
    record = write_kind(tmp_path / "photos", kinds()["captions"]).record(0, 0)
    scored = record_card(record, learned=Learned(concepts={"dog": 0.3, "grass": 0.2}), allowance=AMPLE)
    assert re.findall(r"--share:(\d+)%", scored) == ["100", "8"]
    plain = record_card(record, learned=Learned(concepts={"dog": 0.0, "grass": 0.0}), allowance=AMPLE)
    assert "<li>dog</li><li>grass</li>" in plain
    assert "0.00" not in plain


def test_a_small_allowance_makes_a_small_picture(tmp_path: Path) -> None:
    noisy = picture(900, 700, noise=True)
    kind = Kind(
        media=(Media(member="jpg", kind="image", width=900, height=700),),
        payload={"jpg": noisy},
        annotations=lambda n: (Detection(box=(1, 1, 500, 500), label="noise"),),
    )
    record = write_kind(tmp_path / "noisy", kind, records=1).record(0, 0)
    large, small = (len(record_card(record, learned=Learned(), allowance=allowance)) for allowance in (AMPLE, 30_000))
    assert small < 33_000 < large < len(noisy)
    assert 'viewBox="0 0 900 700"' in record_card(record, learned=Learned(), allowance=1)


def test_small_boxes_are_drawn_over_large_ones_and_a_label_keeps_its_colour() -> None:
    boxes = marked_boxes(
        (
            Detection(box=(5, 5, 10, 10), label="a"),
            Detection(box=(0, 0, 90, 90), label="b"),
            Detection(box=(0, 0, 50, 50), label="a"),
        )
    )
    assert [one.label for one in boxes] == ["b", "a", "a"]
    assert boxes[1].colour == boxes[2].colour != boxes[0].colour


def test_every_numbered_box_has_its_expression_beside_the_picture(tmp_path: Path) -> None:
    many = tuple(Grounding(box=(n, n, n + 20, n + 20), text=f"thing {n}") for n in range(MOST_EXPRESSIONS + 5))
    kind = Kind(media=kinds()["captions"].media, payload=kinds()["captions"].payload, annotations=lambda n: many)
    card = record_card(write_kind(tmp_path / "m", kind, records=1).record(0, 0), learned=Learned(), allowance=AMPLE)
    assert card.count('class="box"') == MOST_EXPRESSIONS == len(re.findall("> thing [0-9]+<", card))
    assert "and 5 more" in card


def test_a_span_and_the_rate_of_a_sound_are_said() -> None:
    fact = media_fact(Media(member="wav", kind="audio", duration_s=9.97, sample_rate=44_100, channels=2, start_s=3.0))
    assert fact == "10.0 s, 44.1 kHz stereo, annotated from 3.0 s to its end"
    assert media_fact(Media(member="npz", kind="regions")) == ""
