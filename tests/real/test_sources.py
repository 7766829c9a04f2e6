"""The sources on real files: every raw item is accounted for, every stored picture is the raw file, byte for byte."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.manifest import Card
from shards.reader import Dataset, open_dataset
from shards.records import Caption


def convert(source: dict[str, Any], output: Path, **keys: Any) -> tuple[Card, Dataset]:
    config = ConvertConfig(source=source, output=str(output), **keys)
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    return finish(config, units), open_dataset(output)


def stored_texts(dataset: Dataset) -> dict[str, list[str]]:
    """Captions by file name."""
    return {
        str(record.origin.file): [a.text for a in record.annotations if isinstance(a, Caption)]
        for record in dataset.records()
    }


@pytest.mark.parametrize("split", ["val2017", "train2017"])
def test_coco_is_converted_whole(real_data: Path, tmp_path: Path, split: str) -> None:
    coco = real_data / "coco2017"
    annotations = coco / "annotations" / f"captions_{split}.json"
    content = json.loads(annotations.read_text())
    source = {"kind": "coco_captions", "annotations": str(annotations), "media": str(coco / split)}
    card, dataset = convert(source, tmp_path / "out", records_per_shard=64, reject_share=1.0)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    expected: dict[str, Counter[str]] = {}
    for annotation in content["annotations"]:
        name = names.get(annotation["image_id"])
        if name is not None and (coco / split / name).is_file():
            expected.setdefault(name, Counter())[annotation["caption"].strip()] += 1
    found = {name: Counter(texts) for name, texts in stored_texts(dataset).items()}
    assert found == expected
    assert card.split == split.removesuffix("2017")
    for record in dataset.records():
        assert record.payload["jpg"] == (coco / split / str(record.origin.file)).read_bytes()
        assert record.origin.licence is not None
    listed = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    assert {int(r.origin.id): (r.media[0].width, r.media[0].height) for r in dataset.records(payload=False)} == {
        id: size for id, size in listed.items() if names[id] in expected
    }


def test_flickr_token_file_and_csv_give_the_same_dataset(real_data: Path, tmp_path: Path) -> None:
    flickr = real_data / "flickr8k"
    token, table = (
        convert(
            {"kind": "flickr_captions", "annotations": str(flickr / name), "media": str(flickr / "Images")},
            tmp_path / name,
        )
        for name in ("Flickr8k.token.txt", "captions.txt")
    )
    lines = (flickr / "Flickr8k.token.txt").read_text().splitlines()
    assert stored_texts(token[1]) == stored_texts(table[1])
    assert token[0].raw_annotations == len([line for line in lines if line.strip()])
    assert token[0].records == len(list((flickr / "Images").iterdir())) - token[0].rejects.get("no_annotations", 0)


def test_the_csv_is_anybodys_table_too(real_data: Path, tmp_path: Path) -> None:
    flickr = real_data / "flickr8k"
    columns = {"image": "image", "caption": "caption"}
    with (flickr / "captions.txt").open(newline="") as file:
        rows = list(csv.DictReader(file))[:600]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    source = {
        "kind": "table",
        "annotations": str(tmp_path / "mine.jsonl"),
        "media": str(flickr / "Images"),
        "columns": columns,
    }
    _, dataset = convert(source, tmp_path / "out")
    expected: dict[str, list[str]] = {}
    for row in rows:
        expected.setdefault(row["image"], []).append(row["caption"].strip())
    assert stored_texts(dataset) == expected


def test_karpathys_file_joins_with_the_photos_there_are(real_data: Path, tmp_path: Path) -> None:
    annotations = real_data / "format_samples" / "karpathy" / "dataset_flickr8k.json"
    photos = real_data / "flickr8k" / "Images"
    images = json.loads(annotations.read_text())["images"]
    there = [image for image in images if (photos / image["filename"]).is_file()]
    if not there:
        photos = tmp_path / "photos"  # none of the sample's photos is among the real ones: lend it theirs
        photos.mkdir()
        lent = sorted((real_data / "flickr8k" / "Images").iterdir())
        for image, photo in zip(images, lent, strict=False):
            (photos / image["filename"]).write_bytes(photo.read_bytes())
        there = images
    source = {"kind": "karpathy", "annotations": str(annotations), "media": str(photos)}
    card, dataset = convert(source, tmp_path / "out")
    assert stored_texts(dataset) == {i["filename"]: [s["raw"].strip() for s in i["sentences"]] for i in there}
    assert (card.raw_items, card.raw_annotations) == (len(images), sum(len(image["sentences"]) for image in images))


def test_cc3ms_urls_are_rejects_by_name_and_a_local_picture_beside_them_is_kept(
    real_data: Path, tmp_path: Path
) -> None:
    release = real_data / "text_captions" / "cc3m" / "Validation_GCC-1.1.0-Validation.tsv"
    photo = next(iter(sorted((real_data / "flickr8k" / "Images").iterdir())))
    rows = release.read_bytes().splitlines(keepends=True)
    (tmp_path / "mixed.tsv").write_bytes(b"".join(rows) + f"a local one\t{photo.name}\n".encode())
    source = {"kind": "web_captions", "annotations": str(tmp_path / "mixed.tsv"), "media": str(photo.parent)}
    card, dataset = convert(source, tmp_path / "out", records_per_shard=5000, reject_share=1.0)
    assert stored_texts(dataset) == {photo.name: ["a local one"]}
    assert set(card.rejects) == {"remote_media"}
    assert card.raw_annotations == len(rows) + 1


def test_images_and_captions_that_do_not_join_are_named_on_both_sides(real_data: Path, tmp_path: Path) -> None:
    sample = real_data / "format_samples" / "coco2014" / "captions_val2014.json"
    content = json.loads(sample.read_text())
    photos = tmp_path / "photos"
    photos.mkdir()
    photo = next(iter(sorted((real_data / "coco2017" / "val2017").iterdir())))
    for image in content["images"]:
        (photos / image["file_name"]).write_bytes(photo.read_bytes())
    listed = {image["id"] for image in content["images"]}
    captioned = {annotation["image_id"] for annotation in content["annotations"]}
    source = {"kind": "coco_captions", "annotations": str(sample), "media": str(photos)}
    config = ConvertConfig(source=source, output=str(tmp_path / "out"))
    reports = [convert_unit(config, unit) for unit in plan_units(config)]
    reasons = Counter(reject.reason for report in reports for reject in report.rejects if reject.level == "item")
    assert reasons == {"no_annotations": len(listed - captioned), "missing_media": len(captioned - listed)}
    assert sum(report.records for report in reports) == len(listed & captioned)
