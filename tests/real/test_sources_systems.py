"""Files of the five systems and texts over the real excerpts under $OSTRAKA_DATA; expectations are read off the raw files."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from pipelines.side_columns import write_side_columns
from shards.manifest import Card
from shards.reader import Dataset, open_dataset
from shards.records import Caption, Entailment, Question, Text
from shards.sidecar import open_sidecar

DATA = Path(os.environ.get("OSTRAKA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def real(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not here; set OSTRAKA_DATA")
    return path


def converted(tmp_path: Path, **source: Any) -> tuple[Card, Dataset, ConvertConfig]:
    spec = {"source": source, "output": str(tmp_path / "dataset"), "reject_share": 1.0, "records_per_shard": 100}
    config = ConvertConfig.model_validate(spec)
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    return finish(config, units), open_dataset(config.output), config


def rows_of(file: Path) -> list[list[str]]:
    return [line.split("\t") for line in file.read_text().splitlines()]


def test_ofa_captions_with_their_pictures(tmp_path: Path) -> None:
    file = real("format_samples", "ofa_tsv", "caption_val.tsv")
    card, dataset, _ = converted(tmp_path, kind="ofa_tsv", task="caption", annotations=str(file))
    raw = {row[1]: row for row in rows_of(file)}
    assert (card.records, card.split, card.rejects) == (len(raw), "val", {})
    for record in dataset.records():
        row = raw[record.origin.id]
        texts = [annotation.text for annotation in record.annotations if isinstance(annotation, Caption)]
        assert texts == [text.strip() for text in row[2].split("&&")]
        assert record.payload["jpg"] == base64.b64decode(row[4])


def test_ofa_questions_with_their_confidences(tmp_path: Path) -> None:
    file = real("format_samples", "ofa_tsv", "vqa_train.tsv")
    card, dataset, _ = converted(tmp_path, kind="ofa_tsv", task="vqa", annotations=str(file))
    raw = {row[0]: row for row in rows_of(file)}
    assert (card.records, card.annotations) == (len({row[1] for row in raw.values()}), len(raw))
    for record in dataset.records():
        for question in record.annotations:
            assert isinstance(question, Question)
            row = raw[str(question.id)]
            assert record.payload["jpg"] == base64.b64decode(row[5])
            assert {f"{answer.weight}|!+{answer.text}" for answer in question.answers} == set(row[3].split("&&"))


@pytest.mark.parametrize("place", ["RTE/train.tsv", "RTE/dev.tsv", "WNLI/dev.tsv"])
def test_glue_is_read_whole(place: str, tmp_path: Path) -> None:
    file = real("format_samples", "glue", *place.split("/"))
    card, dataset, _ = converted(tmp_path, kind="glue", annotations=str(file))
    header, *raw = rows_of(file)
    assert (card.records, card.rejects, card.split) == (len(raw), {}, file.stem)
    words = {"0": "not_entailment", "1": "entailment"}
    for record, row in zip(dataset.records(), raw, strict=True):
        cells = dict(zip(header, row, strict=True))
        assert record.annotations == (
            Entailment(
                premise=cells["sentence1"].strip(),
                hypothesis=cells["sentence2"].strip(),
                label=words.get(cells["label"], cells["label"]),
            ),
        )
        assert record.origin.id == cells["index"]


def test_real_sentences_as_plain_text_and_as_pairs(tmp_path: Path) -> None:
    file = real("format_samples", "imagenet", "synset_words.txt")
    lines = file.read_text().splitlines()
    _, dataset, _ = converted(tmp_path / "lines", kind="text_lines", annotations=str(file))
    assert [record.annotations[0] for record in dataset.records()] == [Text(source=line.strip()) for line in lines]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(line.replace(" ", "\t", 1) + "\n" for line in lines))
    _, dataset, _ = converted(tmp_path / "pairs", kind="gigaword", annotations=str(pairs))
    texts = [record.annotations[0] for record in dataset.records()]
    assert [f"{text.source} {text.target}" for text in texts if isinstance(text, Text)] == [
        line.strip() for line in lines
    ]


def test_a_vicha_list_of_real_photos_with_concepts(tmp_path: Path) -> None:
    """The list is written here, in ViCHA's format, from COCO's own captions."""
    coco = real("coco2017")
    content = json.loads((coco / "annotations" / "captions_val2017.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    captions: dict[str, list[str]] = defaultdict(list)
    for annotation in content["annotations"]:
        name = names.get(annotation["image_id"])
        if name is not None and (coco / "val2017" / name).is_file():
            captions[name].append(annotation["caption"])
    chosen = sorted(captions)[:20]
    rows = [
        {"image": f"/data/user/data/val2017/{name}", "caption": text, "kwords": captions[name][0].split()[:5]}
        for name in chosen
        for text in captions[name]
    ]
    (tmp_path / "coco.json").write_text(json.dumps(rows))
    card, dataset, config = converted(
        tmp_path, kind="vicha_json", annotations=str(tmp_path / "coco.json"), media=str(coco)
    )
    assert (card.records, card.annotations, card.rejects) == (len(chosen), len(rows), {})
    assert write_side_columns(config)
    column = open_sidecar(dataset, "concepts")
    for record in dataset.records():
        name = Path(record.origin.id).name
        assert record.payload["jpg"] == (coco / "val2017" / name).read_bytes()
        shard, _ = dataset.locate(record.key)
        assert column.row(shard, record.key)["phrases"] == captions[name][0].split()[:5]


def test_an_audiocaps_list_of_epalm_names_every_sound_with_all_its_captions(tmp_path: Path) -> None:
    """The list is written here, in eP-ALM's format, from AudioCaps' own file; the sounds are Clotho's, under those names."""
    file = real("text_captions", "audiocaps", "val.csv")
    sound = min(real("clotho", "evaluation").glob("*.wav"), key=lambda path: path.stat().st_size)
    with file.open(newline="", encoding="utf-8") as opened:
        raw = list(csv.DictReader(opened))[:15]
    (tmp_path / "audios" / "val").mkdir(parents=True)
    for row in raw:
        (tmp_path / "audios" / "val" / f"{row['youtube_id']}.wav").symlink_to(sound)
    rows = [{"audio": f"val/{row['youtube_id']}.wav", "caption": row["caption"]} for row in raw]
    (tmp_path / "audiocaps_caption_val.json").write_text(json.dumps(rows))
    card, dataset, _ = converted(
        tmp_path,
        kind="epalm",
        annotations=str(tmp_path / "audiocaps_caption_val.json"),
        media=str(tmp_path / "audios"),
        follow_links=True,
    )
    assert (card.records, card.annotations, card.split) == (len({row["audio"] for row in rows}), len(rows), "val")
    assert {media.kind for record in dataset.records(payload=False) for media in record.media} == {"audio"}
