"""Boxes, entailment, statements and labels over the real excerpts under $OSTRAKA_DATA.

Expectations are computed from the raw files themselves. Where an excerpt comes without its photos, pictures of the size that its
annotations state are lent to it.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from pipelines.plain_pickle import read_plain_pickle
from shards.manifest import Card
from shards.reader import Dataset, open_dataset
from shards.records import Detection, Entailment, Grounding, Label, Record, Statement


def convert(source: dict[str, Any], output: Path) -> tuple[Card, list[Record]]:
    config = ConvertConfig.model_validate({"source": source, "output": str(output), "reject_share": 1.0})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    card = finish(config, units)
    dataset: Dataset = open_dataset(output)
    return card, list(dataset.records())


def of_type(record: Record, kind: type) -> Sequence[Any]:
    assert all(isinstance(annotation, kind) for annotation in record.annotations)
    return record.annotations


def lend(path: Path, *, width: int = 8, height: int = 6) -> None:
    """Put a grey picture where a photo is missing."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def excerpt(real_data: Path, *parts: str) -> Path:
    path = real_data.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} under {real_data}")
    return path


@pytest.mark.parametrize("split", ["val2017", "train2017"])
@pytest.mark.parametrize("crowds", [False, True])
def test_every_object_of_coco_is_stored_or_named(real_data: Path, tmp_path: Path, split: str, crowds: bool) -> None:
    annotations = excerpt(real_data, "coco2017", "annotations", f"instances_{split}.json")
    content = json.loads(annotations.read_text())
    photos = real_data / "coco2017" / split
    source = {"kind": "coco_instances", "annotations": str(annotations), "media": str(photos), "crowds": crowds}
    card, records = convert(source, tmp_path / "out")
    names = {row["id"]: row["name"] for row in content["categories"]}
    there = {row["id"] for row in content["images"] if (photos / row["file_name"]).is_file()}
    expected = {
        (str(row["id"]), names[row["category_id"]], round(row["bbox"][0], 2), round(row["bbox"][1], 2))
        for row in content["annotations"]
        if row["image_id"] in there and (crowds or not row.get("iscrowd"))
    }
    found = {
        (a.id, a.label, round(a.box[0], 2), round(a.box[1], 2))
        for record in records
        for a in of_type(record, Detection)
    }
    assert found == expected
    assert card.raw_annotations == len(content["annotations"])
    for record in records:
        (media,) = record.media
        assert media.width is not None
        assert media.height is not None
        assert all(0 <= a.box[0] < a.box[2] <= media.width for a in of_type(record, Detection))
        assert all(0 <= a.box[1] < a.box[3] <= media.height for a in of_type(record, Detection))
        assert record.payload[media.member] == (photos / str(record.origin.file)).read_bytes()


def test_refers_pickle_is_read_safely_and_every_expression_has_its_box(real_data: Path, tmp_path: Path) -> None:
    folder = excerpt(real_data, "format_samples", "refcoco")
    instances = json.loads((folder / "instances.json").read_text())
    boxes = {row["id"]: row["bbox"] for row in instances["annotations"]}
    for row in instances["images"]:
        lend(tmp_path / "train2014" / row["file_name"], width=row["width"], height=row["height"])
    for references in sorted(folder.glob("refs(*).p")):
        source = {
            "kind": "refcoco",
            "annotations": str(references),
            "instances": str(folder / "instances.json"),
            "media": str(tmp_path / "train2014"),
        }
        _, records = convert(source, tmp_path / references.stem)
        refs = read_plain_pickle(str(references), key="source.annotations")
        expected = {
            str(sentence["sent_id"]): (sentence["sent"], [round(value, 2) for value in boxes[ref["ann_id"]]])
            for ref in refs
            for sentence in ref["sentences"]
        }
        assert {
            a.id: (a.text, [round(v, 2) for v in (*a.box[:2], a.box[2] - a.box[0], a.box[3] - a.box[1])])
            for record in records
            for a in of_type(record, Grounding)
        } == expected
        assert len(records) == len({ref["image_id"] for ref in refs})


@pytest.fixture
def genome(real_data: Path, tmp_path: Path) -> dict[str, Any]:
    """Keys of a source on Visual Genome, with pictures of the stated sizes in the folders of the release."""
    folder = excerpt(real_data, "visual_genome")
    for row in json.loads((folder / "image_data.json").read_text()):
        lend(tmp_path / "vg" / Path(*Path(row["url"]).parts[-2:]), width=row["width"], height=row["height"])
    return {"image_data": str(folder / "image_data.json"), "media": str(tmp_path / "vg"), "clip_boxes": True}


def test_every_object_of_visual_genome_is_stored_inside_its_picture(
    real_data: Path, tmp_path: Path, genome: dict[str, Any]
) -> None:
    file = excerpt(real_data, "visual_genome", "objects.json")
    rows = json.loads(file.read_text())
    card, records = convert({"kind": "vg_objects", "annotations": str(file), **genome}, tmp_path / "out")
    expected = Counter(
        (str(row["image_id"]), name.strip()) for row in rows for entry in row["objects"] for name in entry["names"]
    )
    assert Counter((r.origin.id, a.label) for r in records for a in of_type(r, Detection)) == expected
    assert card.rejects == {"no_annotations": sum(not row["objects"] for row in rows)}


@pytest.mark.parametrize("phrases_as", ["grounding", "captions"])
def test_every_region_of_visual_genome_is_stored(
    real_data: Path, tmp_path: Path, genome: dict[str, Any], phrases_as: str
) -> None:
    file = excerpt(real_data, "visual_genome", "region_descriptions.json")
    rows = json.loads(file.read_text())
    source = {"kind": "vg_regions", "annotations": str(file), "phrases_as": phrases_as, **genome}
    card, records = convert(source, tmp_path / "out")
    expected = {str(region["region_id"]): region["phrase"].strip() for row in rows for region in row["regions"]}
    assert {a.id: a.text for r in records for a in r.annotations} == expected  # type: ignore[union-attr]
    assert (len(records), card.rejects) == (len(rows), {})


@pytest.mark.parametrize("split", ["train", "dev"])
def test_every_hypothesis_is_stored_with_its_photo(real_data: Path, tmp_path: Path, split: str) -> None:
    file = excerpt(real_data, "snli_ve", f"snli_ve_{split}.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        lend(tmp_path / "photos" / f"{row['Flickr30K_ID']}.jpg")
    source = {"kind": "snli_ve", "annotations": str(file), "media": str(tmp_path / "photos")}
    card, records = convert(source, tmp_path / "out")
    agreed = [row for row in rows if row["gold_label"] != "-"]
    assert {(r.origin.id, a.id, a.label, a.hypothesis, a.premise) for r in records for a in of_type(r, Entailment)} == {
        (row["Flickr30K_ID"], row["pairID"], row["gold_label"], row["sentence2"].strip(), row["sentence1"].strip())
        for row in agreed
    }
    assert (card.split, card.records) == (split, len({row["Flickr30K_ID"] for row in agreed}))
    assert card.raw_annotations == len(rows)


@pytest.mark.parametrize("per", ["statement", "pair"])
def test_every_statement_about_two_photos_is_stored(real_data: Path, tmp_path: Path, per: str) -> None:
    file = excerpt(real_data, "nlvr2_text", "dev.json")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    pairs = {row["identifier"].rpartition("-")[0] for row in rows}
    for pair in pairs:
        for side in (0, 1):
            lend(tmp_path / "images" / "dev" / f"{pair}-img{side}.png")
    source = {"kind": "nlvr2", "annotations": str(file), "media": str(tmp_path / "images"), "one_record_per": per}
    card, records = convert(source, tmp_path / "out")
    assert {a.id: (a.text, a.label) for r in records for a in of_type(r, Statement)} == {
        row["identifier"]: (row["sentence"].strip(), row["label"] == "True") for row in rows
    }
    assert {len(record.media) for record in records} == {2}
    assert card.records == (len(rows) if per == "statement" else len(pairs))


def test_every_drawn_picture_is_stored_byte_for_byte(real_data: Path, tmp_path: Path) -> None:
    folder = excerpt(real_data, "nlvr", "dev")
    rows = [json.loads(line) for line in (folder / "dev.json").read_text().splitlines()]
    source = {"kind": "nlvr", "annotations": str(folder / "dev.json"), "media": str(folder)}
    _, records = convert(source, tmp_path / "out")
    found = {str(r.origin.file): (r.payload["png"], of_type(r, Statement)[0].label) for r in records}
    assert found == {
        name: ((folder / name).read_bytes(), row["label"] == "true")
        for row in rows
        for order in range(6)
        if (folder / (name := f"images/{row['directory']}/dev-{row['identifier']}-{order}.png")).is_file()
    }


def test_synset_words_name_the_folders_of_imagenet(real_data: Path, tmp_path: Path) -> None:
    file = excerpt(real_data, "format_samples", "imagenet", "synset_words.txt")
    lines = file.read_text().splitlines()
    taken = {line.split(" ")[0]: (number, line.split(" ", 1)[1]) for number, line in enumerate(lines)}
    for wnid in list(taken)[::97]:
        lend(tmp_path / "train" / wnid / f"{wnid}_1.JPEG")
    source = {"kind": "image_folder", "annotations": str(file), "media": str(tmp_path / "train"), "split": "train"}
    _, records = convert(source, tmp_path / "out")
    assert {r.key.split("-")[-1].split("_")[0]: (a.index, a.name) for r in records for a in of_type(r, Label)} == {
        wnid: taken[wnid] for wnid in list(taken)[::97]
    }
