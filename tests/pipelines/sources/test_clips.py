"""MSR-VTT, MSVD and their questions: every layout of their files, clips under any of their names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError
from shards.records import Answer, Caption, Question
from tests.clips import clip_bytes


def write(path: Path, content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.fixture
def clips(tmp_path: Path) -> Any:
    def make(*names: str) -> str:
        for number, name in enumerate(names):
            path = tmp_path / "clips" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            form = "avi" if name.endswith(".avi") else "mp4"
            path.write_bytes(clip_bytes(form=form, codec="mpeg4" if form == "avi" else "libx264", frames=4 + number))
        return str(tmp_path / "clips")

    return make


def video(number: int, split: str = "train") -> dict[str, Any]:
    return {"video_id": f"video{number}", "split": split, "category": 1, "start time": 9.0, "end time": 20.0}


def sentence(number: int, id: int, text: str = "a bar moves") -> dict[str, Any]:
    return {"video_id": f"video{number}", "sen_id": id, "caption": text}


def test_the_sentences_of_a_clip_become_one_record(tmp_path: Path, clips: Any, convert: Any) -> None:
    content = {
        "videos": [video(10), video(2)],
        "sentences": [sentence(10, 0), sentence(2, 1, "another"), sentence(10, 2, "a bar grows"), sentence(2, 3, " ")],
    }
    spec = {
        "kind": "msrvtt",
        "annotations": write(tmp_path / "a.json", content),
        "media": clips("all/video2.mp4", "video10.mp4"),
    }
    done = convert(spec)
    assert done.captions == {"video2": ["another"], "video10": ["a bar moves", "a bar grows"]}
    assert done.reasons("annotation") == {"3": "empty_text"}
    assert [record.key for record in done.dataset.records()] == ["msrvtt-all-video00002", "msrvtt-all-video00010"]
    first = next(iter(done.dataset.records()))
    (media,) = first.media
    assert (media.kind, media.member, media.frames, media.start_s) == ("video", "mp4", 4, None)
    assert (first.origin.file, first.origin.split) == ("all/video2.mp4", "train")


def test_a_split_is_chosen_by_either_of_its_names(tmp_path: Path, clips: Any, convert: Any) -> None:
    content = {"videos": [video(1), video(2, "validate")], "sentences": [sentence(1, 0), sentence(2, 1)]}
    spec = {
        "kind": "msrvtt",
        "annotations": write(tmp_path / "a.json", content),
        "media": clips("video1.mp4", "video2.mp4"),
    }
    assert list(convert({**spec, "split": "train"}).captions) == ["video1"]
    for name in ("val", "validate"):
        done = convert({**spec, "split": name})
        assert list(done.captions) == ["video2"]
        assert (done.card.raw_items, done.card.raw_annotations) == (1, 1)
    with pytest.raises(InputError, match=r"no video .* is of the split 'dev'; it has train, validate"):
        convert({**spec, "split": "dev"})


def test_what_belongs_to_no_clip_is_a_reject(tmp_path: Path, clips: Any, convert: Any) -> None:
    content = {
        "videos": [video(1), video(1), video(3), {"split": "train"}],
        "sentences": [sentence(1, 0), sentence(1, 0, "again"), sentence(9, 4), sentence(3, 5)],
    }
    spec = {"kind": "msrvtt", "annotations": write(tmp_path / "a.json", content), "media": clips("video1.mp4")}
    done = convert(spec)
    assert done.captions == {"video1": ["a bar moves"]}
    items = [(reject.id, reject.reason) for reject in done.rejects if reject.level == "item"]
    assert sorted(items) == [
        ("video1", "duplicate_id"),
        ("video3", "missing_media"),
        ("video9", "missing_media"),
        ("videos[3]", "missing_field"),
    ]
    assert done.reasons("annotation") == {"0": "duplicate_id"}


def test_the_retrieval_split_and_a_list_of_clips(tmp_path: Path, clips: Any, convert: Any) -> None:
    media = clips("video1.mp4", "video2.mp4")
    rows = 'key,vid_key,video_id,sentence\nret0,msr2,video2,"a bar, white"\nret1,msr1,video1,a bar\n'
    table = write(tmp_path / "test.csv", rows)
    done = convert({"kind": "msrvtt", "annotations": table, "media": media})
    assert done.captions == {"video1": ["a bar"], "video2": ["a bar, white"]}
    only = write(tmp_path / "only.csv", "video_id\nvideo2\n")
    assert list(convert({"kind": "msrvtt", "annotations": table, "media": media, "clips": only}).captions) == ["video2"]
    with pytest.raises(InputError, match=r"belongs into source\.clips"):
        convert({"kind": "msrvtt", "annotations": only, "media": media})


def test_a_list_by_file_name(tmp_path: Path, clips: Any, convert: Any) -> None:
    listed = write(tmp_path / "list.json", {"b.mp4": ["one", "two"], "a.avi": "three"})
    done = convert({"kind": "msrvtt", "annotations": listed, "media": clips("b.mp4", "a.avi")})
    assert done.captions == {"a.avi": ["three"], "b.mp4": ["one", "two"]}
    with pytest.raises(InputError, match="neither `videos` and `sentences` nor captions"):
        convert({"kind": "msrvtt", "annotations": write(tmp_path / "x.json", {"images": {}}), "media": clips("b.mp4")})


def test_msvd_reads_the_text_and_the_list_alike(tmp_path: Path, clips: Any, convert: Any) -> None:
    text = write(tmp_path / "all.txt", "# heading\nab_c_10_20 A bar moves.\nab_c_10_20 It grows.\nde_0_5 A bar\n")
    listed = write(
        tmp_path / "all.json",
        [{"id": "ab_c_10_20.avi", "caption": ["A bar moves.", "It grows."]}, {"id": "de_0_5", "caption": ["A bar"]}],
    )
    media = clips("ab_c_10_20.avi", "de_0_5.mp4")
    expected = {"ab_c_10_20": ["A bar moves.", "It grows."], "de_0_5": ["A bar"]}
    for table in (text, listed):
        done = convert({"kind": "msvd", "annotations": table, "media": media})
        assert done.captions == expected
        assert [record.media[0].member for record in done.dataset.records()] == ["avi", "mp4"]
    chosen = write(tmp_path / "test_list.txt", "de_0_5.avi\n")
    done = convert({"kind": "msvd", "annotations": text, "media": media, "clips": chosen, "split": "test"})
    assert list(done.captions) == ["de_0_5"]


def test_msvd_takes_one_language_of_the_corpus(tmp_path: Path, clips: Any, convert: Any) -> None:
    rows = [
        "VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description",
        'ab_c,10,20,1,clean,55,English,"A bar, red, moves."',
        "ab_c,10,20,2,clean,9,Slovene,Črta se premika.",
        "de,0,5,3,unverified,9,Slovene,Črta raste.",
    ]
    spec = {
        "kind": "msvd",
        "annotations": write(tmp_path / "MSR Video Description Corpus.csv", "\n".join(rows)),
        "media": clips("ab_c_10_20.avi", "de_0_5.avi"),
    }
    assert convert(spec).captions == {"ab_c_10_20": ["A bar, red, moves."]}
    assert convert({**spec, "language": "Slovene"}).captions["de_0_5"] == ["Črta raste."]
    assert len(convert({**spec, "language": None}).captions["ab_c_10_20"]) == 2
    with pytest.raises(InputError, match="it has English, Slovene"):
        convert({**spec, "language": "english"})


def test_msvd_finds_a_clip_by_its_number_or_in_the_uncut_video(tmp_path: Path, clips: Any, convert: Any) -> None:
    text = write(tmp_path / "all.txt", "ab_1_2 A bar\ncd_0_1 Another\n")
    mapping = write(tmp_path / "youtube_mapping.txt", "ab_1_2 vid7\ncd_0_1 vid8\n")
    done = convert({"kind": "msvd", "annotations": text, "media": clips("vid7.avi", "cd.mp4"), "mapping": mapping})
    numbered, uncut = [record.media[0] for record in done.dataset.records()]
    assert (numbered.member, numbered.start_s) == ("avi", None)
    assert (uncut.start_s, uncut.end_s) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "file"), [("msrvtt_qa", "video5.mp4"), ("msvd_qa", "vid5.avi"), ("msvd_qa", "ab_1_2.avi")]
)
def test_the_questions_of_a_clip_become_one_record(
    kind: str, file: str, tmp_path: Path, clips: Any, convert: Any
) -> None:
    rows = [
        {"id": 1, "video_id": 5, "question": "what moves?", "answer": "bar"},
        {"id": 2, "video_id": 5, "question": "where to?", "answer": "right"},
        {"id": 2, "video_id": 5, "question": "again?", "answer": "yes"},
        {"id": 3, "video_id": 5, "question": "no answer?"},
        {"id": 4, "question": "of what?", "answer": "it"},
    ]
    spec = {"kind": kind, "annotations": write(tmp_path / "val_qa.json", rows), "media": clips(file)}
    if file.startswith("ab"):
        spec["mapping"] = write(tmp_path / "youtube_mapping.txt", "ab_1_2 vid5\n")
    done = convert(spec)
    (record,) = done.dataset.records()
    assert record.key == f"{kind}-val-000005"
    assert record.annotations == (
        Question(id="1", question="what moves?", answers=(Answer(text="bar"),)),
        Question(id="2", question="where to?", answers=(Answer(text="right"),)),
    )
    assert done.reasons("annotation") == {"2": "duplicate_id", "3": "missing_field"}
    assert done.reasons() == {"[4]": "missing_field"}


def test_a_test_file_without_answers_has_none(tmp_path: Path, clips: Any, convert: Any) -> None:
    rows = [{"id": 1, "video_id": 5, "question": "what moves?"}]
    spec = {"kind": "msrvtt_qa", "annotations": write(tmp_path / "test_qa.json", rows), "media": clips("video5.mp4")}
    (record,) = convert(spec).dataset.records()
    assert record.annotations == (Question(id="1", question="what moves?"),)


def test_another_file_is_refused_with_the_name_of_the_right_one(tmp_path: Path, clips: Any, convert: Any) -> None:
    media = clips("video5.mp4")
    wrong = write(tmp_path / "x.json", [{"caption": "a bar"}])
    for kind, hint in (("msrvtt_qa", "train_qa.json"), ("msvd_qa", "train_qa.json"), ("msvd", "`id` and `caption`")):
        with pytest.raises(InputError, match=hint):
            convert({"kind": kind, "annotations": wrong, "media": media})


def test_broken_clips_are_named_and_the_others_stay(tmp_path: Path, clips: Any, convert: Any) -> None:
    folder = Path(clips("good.mp4"))
    whole = clip_bytes()
    bad = {"cut.mp4": whole[:-40], "empty.mp4": b"", "text.mp4": b"<html>not found</html>"}
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    names = ["good.mp4", *bad, "gone.mp4", "../out.mp4"]
    listed = write(tmp_path / "list.json", {name: ["a bar moves"] for name in names})
    done = convert({"kind": "msrvtt", "annotations": listed, "media": str(folder)})
    assert done.captions == {"good.mp4": ["a bar moves"]}
    assert done.reasons() == {
        "cut.mp4": "truncated_media",
        "empty.mp4": "zero_size",
        "text.mp4": "not_media",
        "gone.mp4": "missing_media",
        "../out.mp4": "outside_media",
    }
    assert done.card.raw_annotations == len(names)
    assert isinstance(next(iter(done.dataset.records())).annotations[0], Caption)
