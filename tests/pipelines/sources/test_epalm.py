"""eP-ALM's lists: pictures of COCO and Visual Genome, clips and sounds, scored answers, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.source import RawItem, Target
from pipelines.sources import load_source
from shards.errors import InputError
from shards.records import Answer, Question

ID = "COCO_train2014_000000000025"


@pytest.fixture
def listed(tmp_path: Path, picture: Callable[..., bytes]) -> Callable[..., dict[str, Any]]:
    """Writes a list, and a folder with a COCO picture, one of Visual Genome, a clip and a sound by name."""
    media = tmp_path / "media"
    for file in (f"train2014/{ID}.jpg", "2354786.jpg", "video1.mp4", "train/x.wav"):
        (media / file).parent.mkdir(parents=True, exist_ok=True)
        (media / file).write_bytes(picture())

    def write(content: Any, name: str = "karpathy_train.json") -> dict[str, Any]:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return {"kind": "epalm", "annotations": str(tmp_path / name), "media": str(media)}

    return write


def items_of(spec: dict[str, Any]) -> list[RawItem]:
    source, _ = load_source(spec, target=Target(dataset="d", split="s", records_per_shard=10, max_pixels=10**6))
    return [item for unit in source.units() for item in unit.items]


def test_the_questions_of_a_picture_become_one_record_with_the_scores_as_weights(listed: Any, convert: Any) -> None:
    spec = listed(
        [
            {"img_id": ID, "question_id": 1, "sent": "what?", "label": {"net": 0.3, "ball": 1}, "answer_type": "other"},
            {"img_id": "2354786", "question_id": "vg1", "sent": "who?", "label": {"man": 1.0}},
            {"img_id": ID, "question_id": 2, "question": "where?", "label": {}},
            {"img_id": ID, "question_id": 2, "question": "where?"},
        ]
    )
    done = convert(spec)
    assert {record.key: record.annotations for record in done.dataset.records()} == {
        "epalm-train-000000000025": (
            Question(
                id="1",
                question="what?",
                answers=(Answer(text="ball"), Answer(text="net", weight=0.3)),
                answer_type="other",
            ),
            Question(id="2", question="where?"),
        ),
        "epalm-train-2354786": (Question(id="vg1", question="who?", answers=(Answer(text="man"),)),),
    }
    assert done.reasons("annotation") == {"2": "duplicate_id"}


def test_a_list_with_the_annotators_answers_alone_weighs_their_shares(listed: Any, convert: Any) -> None:
    row = {"img_id": ID, "question_id": 1, "sent": "what?", "answers": [{"answer": "a"}] * 3 + [{"answer": "b"}]}
    (record,) = convert(listed([row])).dataset.records()
    assert record.annotations[0].answers == (Answer(text="a", weight=0.75), Answer(text="b", weight=0.25))


def test_a_score_that_is_no_number_refuses_its_question(listed: Any, convert: Any) -> None:
    rows = [
        {"img_id": ID, "question_id": number, "sent": "what?", "label": {"x": score}}
        for number, score in enumerate((1, "1", None, -1, True))
    ]
    done = convert(listed(rows))
    assert done.reasons("annotation") == dict.fromkeys("1234", "missing_field")


@pytest.mark.parametrize(("key", "file"), [("video", "video1.mp4"), ("audio", "train/x.wav")])
def test_clips_and_sounds_have_one_caption_or_several(key: str, file: str, listed: Any) -> None:
    (item,) = items_of(listed([{key: file, "caption": "one"}, {key: file, "caption": ["two", ""]}]))
    assert item["media"] == [{"kind": key, "file": file}]
    assert [annotation["text"] for annotation in item["annotations"]] == ["one", "two"]
    assert [refused[1] for refused in item["refused"]] == ["empty_text"]


def test_questions_about_clips_are_questions(listed: Any) -> None:
    (item,) = items_of(listed([{"video": "video1.mp4", "question_id": 3, "sent": "who?", "label": {"man": 1.0}}]))
    assert (item["media"][0]["kind"], item["annotations"][0]["type"]) == ("video", "question")


def test_a_csv_says_the_same_as_the_json(listed: Any) -> None:
    rows = [
        {"img_id": ID, "question_id": "1", "sent": 'a "quoted", what?', "label": {"net": 0.3}},
        {"img_id": ID, "question_id": "2", "sent": "who?", "label": {"man": 1.0}},
    ]
    text = f'img_id,question_id,sent,label\n{ID},1,"a ""quoted"", what?","{{""net"": 0.3}}"\n{ID},2,who?,man\n'
    assert items_of(listed(rows)) == items_of(listed(text, "vqa_train.csv"))


def test_a_caption_in_a_csv_may_begin_with_a_bracket(listed: Any) -> None:
    (item,) = items_of(listed('audio,caption\ntrain/x.wav,[music] plays\ntrain/x.wav,"[""one"", ""two""]"\n', "a.csv"))
    assert [annotation["text"] for annotation in item["annotations"]] == ["[music] plays", "one", "two"]


@pytest.mark.parametrize("content", [{"images": []}, [], [{"filename": "a.jpg", "sentences": []}], [{"img_id": ID}]])
def test_another_file_is_told_apart(content: Any, listed: Any) -> None:
    with pytest.raises(InputError, match="eP-ALM"):
        items_of(listed(content))
