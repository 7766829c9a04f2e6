"""Question sources: every layout, weighted answers, test splits, pictures under each of COCO's names, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.questions import weighted
from shards.errors import InputError
from shards.records import Answer, Question, Record


def write(path: Path, content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return str(path)


def questions_of(record: Record) -> dict[str | None, Question]:
    return {annotation.id: annotation for annotation in record.annotations if isinstance(annotation, Question)}


class Vqa:
    """Writes the two files of VQA v2 and the pictures."""

    def __init__(self, folder: Path, picture: Callable[..., bytes]) -> None:
        self.folder = folder
        self._picture = picture

    def spec(self, questions: list[Any], answers: list[Any] | None, *, files: list[str]) -> dict[str, Any]:
        for number, file in enumerate(files):
            path = self.folder / "pictures" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._picture(shade=10 + number))
        spec = {
            "kind": "vqa_v2",
            "annotations": write(
                self.folder / "v2_OpenEnded_mscoco_val2014_questions.json",
                {"data_subtype": "val2014", "questions": questions},
            ),
            "media": str(self.folder / "pictures"),
        }
        if answers is not None:
            spec["answers"] = write(self.folder / "v2_mscoco_val2014_annotations.json", {"annotations": answers})
        return spec


@pytest.fixture
def vqa(tmp_path: Path, picture: Callable[..., bytes]) -> Vqa:
    return Vqa(tmp_path, picture)


def question(id: int, image: int, text: str = "What is it?") -> dict[str, Any]:
    return {"question_id": id, "image_id": image, "question": text}


def answered(id: int, image: int, *texts: str) -> dict[str, Any]:
    answers = [{"answer": text, "answer_id": number} for number, text in enumerate(texts, start=1)]
    kinds = {"question_type": "what is", "answer_type": "other"}
    return {"question_id": id, "image_id": image, "answers": answers, **kinds}


def test_weights_are_shares_of_the_annotators_and_the_most_frequent_comes_first() -> None:
    assert weighted(["b", "a", "b", "c", "a", "b"]) == (
        Answer(text="b", weight=3 / 6),
        Answer(text="a", weight=2 / 6),
        Answer(text="c", weight=1 / 6),
    )


def test_the_questions_of_a_picture_become_one_record(vqa: Vqa, convert: Any) -> None:
    texts = ["cat"] * 7 + ["dog"] * 3
    spec = vqa.spec(
        [question(70, 7), question(71, 7, "How many?"), question(30, 3)],
        [answered(30, 3, "yes"), answered(70, 7, *texts), answered(71, 7, "2", "two")],
        files=["COCO_val2014_000000000007.jpg", "COCO_val2014_000000000003.jpg"],
    )
    dataset = convert(spec).dataset
    first, second = list(dataset.records())
    assert (first.key, second.key) == ("vqa_v2-val-000000000003", "vqa_v2-val-000000000007")
    asked = questions_of(second)
    assert list(asked) == ["70", "71"]
    assert asked["70"].answers == (Answer(text="cat", weight=0.7), Answer(text="dog", weight=0.3))
    assert (asked["70"].question_type, asked["70"].answer_type) == ("what is", "other")


@pytest.mark.parametrize(
    "file",
    [
        "COCO_val2014_000000000007.jpg",
        "val2014/COCO_val2014_000000000007.jpg",
        "000000000007.jpg",
        "train2017/000000000007.jpg",
        "val2017/000000000007.jpg",
    ],
)
def test_a_picture_is_found_under_each_of_the_names_that_coco_has_given_it(vqa: Vqa, convert: Any, file: str) -> None:
    spec = vqa.spec([question(70, 7)], [answered(70, 7, "cat")], files=[file])
    (record,) = convert(spec).dataset.records()
    assert record.origin.file == file


def test_a_test_split_has_questions_without_answers(vqa: Vqa, convert: Any) -> None:
    (record,) = convert(vqa.spec([question(70, 7)], None, files=["000000000007.jpg"])).dataset.records()
    assert questions_of(record)["70"].answers == ()


def test_every_question_and_answer_that_cannot_be_used_is_refused_by_name(vqa: Vqa, convert: Any) -> None:
    spec = vqa.spec(
        [
            question(1, 7), question(1, 7), question(2, 7, "  "), question(3, 7), question(4, 7, "Why?"),
            question(5, 7), {"image_id": 7, "question": "No id?"},
        ],
        [answered(1, 7, "a"), answered(2, 7, "b"), answered(4, 7), answered(5, 7, "x", ""), answered(9, 7, "orphan")],
        files=["000000000007.jpg"],
    )  # fmt: skip
    result = convert(spec)
    (record,) = result.dataset.records()
    assert list(questions_of(record)) == ["1", "5"]
    assert questions_of(record)["5"].answers == (Answer(text="x", weight=1.0),)
    refused = sorted((reject.id, reject.reason) for reject in result.rejects)
    assert refused == [
        ("1", "duplicate_id"),
        ("2", "empty_text"),
        ("3", "missing_field"),
        ("4", "missing_field"),
        ("9", "missing_field"),
        ("questions[6]", "missing_field"),
    ]


def test_ids_may_be_texts(vqa: Vqa, convert: Any) -> None:
    asked = {"question_id": "70", "image_id": "7", "question": "What is it?"}
    spec = vqa.spec([asked], [{**answered(70, 7, "cat"), "question_id": 70.0}], files=["000000000007.jpg"])
    (record,) = convert(spec).dataset.records()
    assert (record.key, questions_of(record)["70"].answers) == ("vqa_v2-val-000000000007", (Answer(text="cat"),))


def test_two_swapped_files_are_one_sentence(vqa: Vqa, convert: Any) -> None:
    spec = vqa.spec([question(1, 7)], [answered(1, 7, "a")], files=["000000000007.jpg"])
    with pytest.raises(InputError, match="the other one of the two files"):
        convert({**spec, "annotations": spec["answers"], "answers": spec["annotations"]})


def test_gqa_comes_as_an_object_by_id_and_as_a_list(tmp_path: Path, picture: Any, convert: Any) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "n16.jpg").write_bytes(picture())
    by_id = {
        "q1": {"imageId": "n16", "question": "Is it red?", "answer": "no", "types": {"structural": "verify", "semantic": "attr"}},
        "q2": {"imageId": "n16", "question": "What is it?"},
    }  # fmt: skip
    listed = [{"img_id": "n16", "question_id": "q1", "sent": "Is it red?", "label": {"no": 1.0, "maybe": 0.3}}]
    spec = {"kind": "gqa", "media": str(tmp_path / "images")}
    (record,) = convert(
        {**spec, "annotations": write(tmp_path / "val_balanced_questions.json", by_id)}
    ).dataset.records()
    asked = questions_of(record)
    assert record.key == "gqa-val-n16"
    assert asked["q1"].answers == (Answer(text="no"),)
    assert asked["q1"].question_type == "verify"
    assert asked["q2"].answers == ()
    (record,) = convert({**spec, "annotations": write(tmp_path / "valid.json", listed)}).dataset.records()
    assert questions_of(record)["q1"].answers == (Answer(text="no", weight=1.0), Answer(text="maybe", weight=0.3))
    scenes = {"n16": {"width": 3, "height": 3, "objects": {}}}
    with pytest.raises(InputError, match="scene graphs"):
        convert({**spec, "annotations": write(tmp_path / "train_sceneGraphs.json", scenes)})


def test_all_questions_of_gqa_come_as_a_folder_of_files(tmp_path: Path, picture: Any, convert: Any) -> None:
    for name in ("VG_100K/16.jpg", "VG_100K_2/17.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(picture())
    folder = tmp_path / "train_all_questions"
    asked = {"imageId": "16", "question": "Is it red?", "answer": "no"}
    write(folder / "train_all_questions_0.json", {"q1": asked, "q2": {**asked, "imageId": 17}})
    write(folder / "train_all_questions_1.json", {"q3": asked, "q1": asked, "q4": {"question": "Of what?"}})
    result = convert({"kind": "gqa", "annotations": str(folder), "media": str(tmp_path)})
    first, second = list(result.dataset.records())
    assert (first.key, list(questions_of(first)), list(questions_of(second))) == ("gqa-train-16", ["q1", "q3"], ["q2"])
    assert result.reasons("annotation") == {"q1": "duplicate_id"}
    assert result.reasons() == {"train_all_questions_1.json question q4": "missing_field"}
    (folder / "train_all_questions_1.json").write_text("{}")
    with pytest.raises(InputError, match=r"questions_1\.json holds no questions"):
        convert({"kind": "gqa", "annotations": str(folder), "media": str(tmp_path)})


def qa(id: int, question: str, answer: str) -> dict[str, Any]:
    return {"qa_id": id, "question": question, "answer": answer}


def test_visual_genome_questions_find_their_pictures_in_either_folder(
    tmp_path: Path, picture: Any, convert: Any
) -> None:
    for place in ("VG_100K/1.jpg", "VG_100K_2/2.jpg"):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(picture())
    images = [
        {"id": 1, "qas": [qa(11, "What?", "A clock."), qa(12, "Who?", "")]},
        {"id": 2, "qas": [qa(11, "Again?", "Yes."), qa(21, "Where?", "Here.")]},
        {"id": 3, "qas": []},
    ]
    result = convert(
        {"kind": "vg_qa", "annotations": write(tmp_path / "question_answers.json", images), "media": str(tmp_path)}
    )
    files = [record.origin.file for record in result.dataset.records()]
    assert files == ["VG_100K/1.jpg", "VG_100K_2/2.jpg"]
    assert result.reasons() == {"3": "no_annotations"}
    assert result.reasons("annotation") == {"12": "empty_text", "11": "duplicate_id"}


def test_vizwiz_asks_one_question_of_a_picture(tmp_path: Path, picture: Any, convert: Any) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "VizWiz_train_1.jpg").write_bytes(picture())
    row = {
        "image": "VizWiz_train_1.jpg",
        "question": "What is this?",
        "answers": [{"answer": "a can"}] * 10,
        "answer_type": "other",
    }
    rows = [row, row, {"question": "No picture?"}]
    result = convert({"kind": "vizwiz", "annotations": write(tmp_path / "train.json", rows), "media": str(tmp_path)})
    (record,) = result.dataset.records()
    assert record.key == "vizwiz-train-VizWiz_train_1"
    assert questions_of(record)["VizWiz_train_1.jpg"].answers == (Answer(text="a can", weight=1.0),)
    assert result.reasons() == {"VizWiz_train_1.jpg": "duplicate_id", "[2]": "missing_field"}


def test_textvqa_and_textcaps_share_their_pictures(tmp_path: Path, picture: Any, convert: Any) -> None:
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "ab.jpg").write_bytes(picture())
    asked = {
        "image_id": "ab",
        "question_id": 5,
        "question": "What brand?",
        "answers": ["x"] * 9 + ["y"],
        "set_name": "train",
    }
    said = {
        "image_id": "ab",
        "caption_id": 8,
        "caption_str": "A sign.",
        "reference_strs": ["A sign.", "B"],
        "set_name": "train",
    }
    for kind, name, row in (
        ("textvqa", "TextVQA_0.5.1_train.json", asked),
        ("textcaps", "TextCaps_0.1_train.json", said),
    ):
        spec = {"kind": kind, "annotations": write(tmp_path / name, {"data": [row, row]}), "media": str(tmp_path)}
        result = convert(spec)
        (record,) = result.dataset.records()
        assert record.key == f"{kind}-train-ab"
        assert len(record.annotations) == 1
        assert list(result.reasons("annotation").values()) == ["duplicate_id"]
    swapped = {"kind": "textvqa", "annotations": str(tmp_path / "TextCaps_0.1_train.json"), "media": str(tmp_path)}
    with pytest.raises(InputError, match="has `question`"):
        convert(swapped)


def test_nocaps_keeps_the_domain_of_every_picture(tmp_path: Path, picture: Any, convert: Any) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "f00.jpg").write_bytes(picture())
    content = {
        "images": [{"id": 0, "open_images_id": "f00", "file_name": "0013ea.jpg", "domain": "near-domain"}],
        "annotations": [
            {"id": 3, "image_id": 0, "caption": "A baby."},
            {"id": 4, "image_id": 0, "caption": "A child."},
        ],
    }
    path = write(tmp_path / "nocaps_val_4500_captions.json", content)
    (record,) = convert({"kind": "nocaps", "annotations": path, "media": str(tmp_path / "images")}).dataset.records()
    assert (record.origin.split, record.origin.file) == ("near-domain", "f00.jpg")
    assert [annotation.id for annotation in record.annotations] == ["3", "4"]


def test_sbu_joins_its_two_files_by_line(tmp_path: Path, picture: Any, convert: Any) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1_a.jpg").write_bytes(picture())
    urls = tmp_path / "SBU_captioned_photo_dataset_urls.txt"
    captions = tmp_path / "SBU_captioned_photo_dataset_captions.txt"
    urls.write_text("http://static.example.org/4/1_a.jpg\nhttp://static.example.org/4/2_b.jpg\n")
    captions.write_text("One boat.\r\nTwo boats.\r\n")
    spec = {"kind": "sbu", "annotations": str(urls), "media": str(folder)}
    result = convert(spec)
    assert result.captions == {"http://static.example.org/4/1_a.jpg": ["One boat."]}
    assert result.reasons() == {"http://static.example.org/4/2_b.jpg": "missing_media"}
    captions.write_text("One boat.\n")
    with pytest.raises(InputError, match="more lines than"):
        convert(spec)
    both = {"image_urls": ["http://x.example.org/1_a.jpg"], "captions": ["A boat."]}
    as_json = convert({**spec, "annotations": write(tmp_path / "sbu-captions-all.json", both)})
    assert as_json.captions == {"http://x.example.org/1_a.jpg": ["A boat."]}
