"""Whatever happens to an annotation file, its source says one sentence, or every raw item and annotation is accounted for."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, source_of
from shards.codec import encode_record
from shards.errors import OstrakaError
from shards.records import Detection, Grounding, Record
from tests.clips import clip_bytes, sound_bytes

CAPTIONED = {
    "images": [{"id": 7, "file_name": "7.jpg"}],
    "annotations": [{"id": 1, "image_id": 7, "caption": "A cat."}],
}
BOXED = {
    "images": [{"id": 7, "file_name": "7.jpg", "width": 12, "height": 8}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 1, 5, 5], "iscrowd": 0}],
    "categories": [{"id": 3, "name": "cat"}],
}
ANSWERED = {"image_id": 7, "question_id": 1, "answers": [{"answer": "yes"}, {"answer": "no"}], "answer_type": "yes/no"}
OPEN = {"question": "Is it?", "question_id": 1, "image_id": "7", "answers": ["yes", "no"], "set_name": "val"}
QA = [{"video_id": 7, "id": 1, "question": "what?", "answer": "cat"}]
ENTAILED = {"Flickr30K_ID": "7", "pairID": "7#1", "gold_label": "neutral", "sentence1": "A.", "sentence2": "B."}
STATED = {"identifier": "dev-7-0-0", "sentence": "Two cats.", "label": "True", "directory": 3}
REGION = {"region_id": 1, "image_id": 7, "phrase": "a cat", "x": 1, "y": 1, "width": 5, "height": 5}
OBJECT = {"object_id": 1, "names": ["cat", "pet"], "x": 1, "y": 1, "w": 5, "h": 5}
SCORED = {"img_id": "7", "question_id": 1, "sent": "What?", "label": {"cat": 1, "dog": 0.3}}
GRADES = "index\tsentence1\tsentence2\tgold_label\n0\ta\tb\tneutral\n1\tc\td\t-\n"
BOXES = {"columns": {"image": "file", "label": "label", "box": ["x", "y", "w", "h"]}, "box_as": "xywh"}

# kind, name of the file, what is in it, further keys; a value that is one of SECOND is a second file, which stays as it is
SECOND = {"answers.json": {"annotations": [ANSWERED]}, "image_data.json": [{"image_id": 7, "width": 12, "height": 8}]}
FILES: tuple[tuple[str, str, Any, dict[str, Any]], ...] = (
    ("coco_captions", "captions_val2017.json", CAPTIONED, {}),
    ("nocaps", "nocaps_val_4500_captions.json", CAPTIONED, {}),
    ("coco_instances", "instances_val2017.json", BOXED, {"clip_boxes": True}),
    ("karpathy", "dataset_x.json", {"images": [{"filename": "7.jpg", "sentences": [{"raw": "A.", "sentid": 1}]}]}, {}),
    ("flickr_captions", "x.token", "7.jpg#0\tA cat.\n7.jpg#1\tTwo.\n", {}),
    ("flickr_captions", "x.csv", 'raw,split,filename\n"[""A cat."", ""B""]",train,7.jpg\n', {"split": "train"}),
    ("web_captions", "x.tsv", "A cat here.\t7.jpg\nAnother one.\thttps://x.org/8.jpg\n", {}),
    ("sbu", "sbu.json", {"image_urls": ["http://x.org/7.jpg"], "captions": ["A cat."]}, {}),
    ("vqa_v2", "q_val2014.json", {"questions": [OPEN]}, {"answers": "answers.json"}),
    ("gqa", "val_all_questions.json", {"1": {"imageId": "7", "question": "Is it?", "answer": "no", "types": {}}}, {}),
    ("vizwiz", "val.json", [{"image": "7.jpg", "question": "What?", "answers": [{"answer": "cat"}]}], {}),
    ("textvqa", "TextVQA_0.5.1_val.json", {"data": [OPEN]}, {}),
    ("textcaps", "TextCaps_0.1_val.json", {"data": [{"image_id": "7", "caption_id": 1, "caption_str": "A."}]}, {}),
    ("vg_regions", "region_descriptions.json", [{"id": 7, "regions": [REGION]}], {"image_data": "image_data.json"}),
    ("vg_objects", "objects.json", [{"image_id": 7, "objects": [OBJECT]}], {}),
    ("vg_qa", "question_answers.json", [{"id": 7, "qas": [{"qa_id": 1, "question": "Who?", "answer": "A cat."}]}], {}),
    ("snli_ve", "snli_ve_dev.jsonl", [ENTAILED, ENTAILED], {}),
    ("nlvr", "dev.json", [STATED, STATED], {}),
    ("nlvr2", "dev.json", [STATED, STATED], {}),
    ("vicha_json", "vqa_train.json", [{"image": "7.jpg", "question": "Q?", "question_id": 1, "answer": ["a", "b"]}], {}),
    ("vicha_json", "re_train.json", [{"image": "7.jpg", "caption": ["a", "b"], "kwords": ["cat"]}], {}),
    ("epalm", "karpathy_train.json", [SCORED], {}),
    ("image_folder", "synset_words.txt", "class a class\nother another\n", {}),
    ("msrvtt", "a.json", {"videos": [{"video_id": "7"}], "sentences": [{"video_id": "7", "caption": "A."}]}, {}),
    ("msrvtt", "a.csv", "key,vid_key,video_id,sentence\nret0,msr7,7,a cat\n", {}),
    ("msvd", "all.txt", "7 a cat\n7 two cats\n", {}),
    ("msvd", "all.csv", "VideoID,Start,End,Language,Description\n7,0,1,English,a cat\n", {}),
    ("msrvtt_qa", "val_qa.json", QA, {}),
    ("msvd_qa", "val_qa.json", QA, {}),
    ("audiocaps", "val.csv", "audiocap_id,youtube_id,start_time,caption\n1,7,30,a cat\n", {}),
    ("clotho", "clotho_captions_validation.csv", "file_name,caption_1,caption_2\n7.wav,a,b\n", {}),
    ("audio_folder", "meta.csv", "filename,fold,target,category\n7.wav,1,0,cat\n", {}),
    ("glue", "dev.tsv", GRADES, {"task": "mnli"}),
    ("gigaword", "train.tsv", "an article\ta title\n", {}),
    ("text_lines", "t.txt", "one\n\ntwo\n", {"text_is": "document"}),
    ("ofa_tsv", "c.tsv", "1\t7\ta&&b\t\t7.jpg\n", {"task": "caption"}),
    ("ofa_tsv", "v.tsv", "1\t7\twhat?\t0.6|!+cat&&1|!+dog\t\t7.jpg\n", {"task": "vqa"}),
    ("ofa_tsv", "r.tsv", "1\t7\ta cat\t1,1,5,5\t7.jpg\n", {"task": "refcoco"}),
    ("ofa_tsv", "d.tsv", "1\t7.jpg\t1,1,5,5,3,cat&&0,0,2,2,4,dog\n", {"task": "detection"}),
    ("table", "t.csv", "file,x,y,w,h,label\n7.jpg,1,1,5,5,cat\n", BOXES),
    ("table", "t.json", [{"file": "7.jpg", "text": ["a", "b"]}], {"columns": {"image": "file", "caption": "text"}}),
)  # fmt: skip
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, float("nan"), "", " ", "x", "7", "\ud800", "a\0b", "../x", "/x.jpg", [], {}),
    *(["a"], [[1]], [None], {"a": 1}, {"answer": None}, [1, 2, 3, 4], ["x", 2, 3, 4]),
)
TRIALS = 40


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the picture, clip or sound 7 lies under each of its names."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("media")
    (folder / "class").mkdir()
    for name in ("7.jpg", "class/7.jpg", "dev-7-0-img0.png", "dev-7-0-img1.png", "dev-dev-7-0-0-0.png", "x.jpg"):
        Image.new("RGB", (12, 8), (9, 60, 90)).save(folder / name)
    (folder / "000000000007.jpg").write_bytes((folder / "7.jpg").read_bytes())
    (folder / "7.mp4").write_bytes(clip_bytes(frames=3))
    (folder / "7.wav").write_bytes(sound_bytes(rate=8000))
    return folder


@pytest.mark.parametrize("case", FILES, ids=[f"{kind}-{name}" for kind, name, *_ in FILES])
def test_a_mutated_file_is_one_sentence_or_a_closed_ledger(
    case: tuple[str, str, Any, dict[str, Any]], media: Path, tmp_path: Path
) -> None:
    kind, name, content, keys = case
    for second, value in SECOND.items():
        (tmp_path / second).write_text(json.dumps(value))
    keys = {key: str(tmp_path / value) if value in list(SECOND) else value for key, value in keys.items()}
    if kind not in ("glue", "gigaword", "text_lines"):
        keys["media"] = str(media)
    spec = {"kind": kind, "annotations": str(tmp_path / name), **keys}
    config = ConvertConfig(source=spec, output=str(tmp_path / "out"), name="d")
    for trial in range(-1, TRIALS):
        rng = random.Random(f"{kind} {name} {trial}")
        data = _written(content, name) if trial < 0 else _mutated(content, name, rng)
        (tmp_path / name).write_bytes(data)
        try:
            records = _check(config)
        except OstrakaError:
            records = 0
        assert records or trial >= 0, "the file itself gives records"


def _check(config: ConvertConfig) -> int:
    """Read everything, and see that nothing is lost. Returns how many records there are."""
    source = source_of(config)
    records = 0
    for unit in source.units():
        items = list(unit.items)
        read = list(source.read(unit))
        whole = [result for result in read if isinstance(result, Record)]
        rejected = [result for result in read if not isinstance(result, Record) and result.level == "item"]
        assert len(whole) + len(rejected) == len(items)
        kept = sum(len(record.annotations) for record in whole)
        lost = sum(reject.annotations for reject in rejected) + len(read) - len(whole) - len(rejected)
        assert kept + lost == sum(map(source.annotation_count, items))
        assert len({record.key for record in whole}) == len(whole)
        for record in whole:
            list(encode_record(record))
            assert len({type(annotation) for annotation in record.annotations}) == 1
            for annotation in record.annotations:
                if isinstance(annotation, Detection | Grounding):
                    x0, y0, x1, y1 = annotation.box
                    assert 0 <= x0 < x1 <= 12
                    assert 0 <= y0 < y1 <= 8
        records += len(whole)
    return records


def _written(content: Any, name: str) -> bytes:
    if isinstance(content, str):
        return content.encode()
    if name.endswith(".jsonl") or name == "dev.json":
        return "\n".join(map(json.dumps, content)).encode()
    return json.dumps(content).encode()


def _mutated(content: Any, name: str, rng: random.Random) -> bytes:
    """Another value, a value less or a value twice in the JSON; or bytes changed, cut out or put in."""
    if not isinstance(content, str) and rng.random() < 0.8:
        changed = copy.deepcopy(content)
        for _ in range(rng.choice((1, 1, 2))):
            _change(changed, rng)
        return _written(changed, name)
    data = bytearray(_written(content, name))
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(data))
        how = rng.randrange(4)
        if how == 0:
            data[at] = rng.choice(b'\t\n,"|\r\0\xff 0-[{')
        elif how == 1:
            del data[at : at + rng.choice((1, 5, 40))]
        elif how == 2:
            data[at:at] = rng.choice((b"\t", b"\n", b'"', b",", b"\xff\xfe", b"\r\n", b"\xed\xa0\x80"))
        else:
            data += data[at:]
        data = data or bytearray(b"\n")
    return bytes(data)


def _change(content: Any, rng: random.Random) -> None:
    places = list(_places(content))
    if not places:
        return
    holder, key = rng.choice(places)
    how = rng.random()
    if how < 0.6:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    elif how < 0.8:
        del holder[key]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[rng.choice(("", "more", f"{key}2"))] = holder[key]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every value inside, by what holds it."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield value, key
        yield from _places(part)
