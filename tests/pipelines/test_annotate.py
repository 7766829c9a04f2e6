"""Annotations attached to pictures that are stored already."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.annotate import AnnotateConfig, annotate_shard, check_budget, finish_annotations, plan_annotations
from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.annotations import Ledger
from shards.errors import BudgetError, DatasetError, InputError
from shards.reader import open_dataset
from shards.records import Caption, Detection
from shards.stream import RecordStream, Stream, source_of
from shards.verify import verify

Row = dict[str, Any]


@pytest.fixture
def pictures(tmp_path: Path, picture: Callable[..., bytes]) -> Path:
    """A dataset of seven captioned pictures in three shards; picture n is 40 + n pixels wide and 30 high."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for number in range(1, 8):
        name = f"COCO_train2014_{number:012d}.jpg"
        (folder / name).write_bytes(picture(40 + number, 30, shade=number * 20))
        rows.append({"image": name, "caption": f"own caption {number}"})
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = {"kind": "table", "annotations": str(tmp_path / "own.jsonl"), "media": str(folder)}
    keys: Row = {"output": str(tmp_path / "stored"), "name": "own", "records_per_shard": 3}
    config = ConvertConfig(source={**source, "columns": {"image": "image", "caption": "caption"}}, **keys)
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    return tmp_path / "stored"


def coco_objects(path: Path, boxes: Sequence[tuple[int, list[float]]], *, size: tuple[int, int] | None = None) -> Path:
    """COCO's instances file: (image id, [x, y, width, height]); pictures are named as of 2017."""
    numbers = sorted({number for number, _ in boxes})
    path.write_text(
        json.dumps(
            {
                "images": [
                    {
                        "id": number,
                        "file_name": f"{number:012d}.jpg",
                        "width": size[0] if size else 40 + number,
                        "height": size[1] if size else 30,
                    }
                    for number in numbers
                ],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [
                    {"id": 100 + place, "image_id": number, "category_id": 1, "bbox": box, "iscrowd": 0}
                    for place, (number, box) in enumerate(boxes)
                ],
            }
        )
    )
    return path


@pytest.fixture
def annotate(tmp_path: Path, pictures: Path) -> Callable[..., Ledger]:
    """Attach an instances file to the stored pictures, inline."""

    def run(annotations: Path, *, source: Row | None = None, shards: slice = slice(None), **keys: Any) -> Ledger:
        spec = {"kind": "coco_instances", "annotations": str(annotations), **(source or {})}
        config = AnnotateConfig(dataset=str(pictures), source=spec, column="boxes", **keys).absolute()
        dataset = open_dataset(pictures)
        plan = plan_annotations(config, dataset)
        for unit in list(plan.left(dataset))[shards]:
            check_budget(plan, annotate_shard(plan.job(), unit).rejected)
        return finish_annotations(plan, dataset)

    return run


BOXES: Sequence[tuple[int, list[float]]] = [(2, [1, 2, 10, 11]), (2, [5, 5, 5, 5]), (6, [0, 0, 46, 30])]


def test_records_come_with_the_columns_annotations_and_pixels_stay_where_they_are(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger]
) -> None:
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    ledger = annotate(coco_objects(tmp_path / "o.json", BOXES))
    assert all(path.read_bytes() == data for path, data in before.items())
    assert (ledger.raw_items, ledger.records, ledger.annotations, dict(ledger.rejects)) == (2, 2, 3, {})
    seen = open_dataset(pictures, annotations="boxes")
    records = list(seen.records())
    assert [record.origin.file for record in records] == [f"COCO_train2014_{n:012d}.jpg" for n in (2, 6)]
    assert records[0].annotations == (
        Detection(id="100", box=(1, 2, 11, 13), label="cat"),
        Detection(id="101", box=(5, 5, 10, 10), label="cat"),
    )
    plain = open_dataset(pictures)
    assert records[0].payload == plain.record(*plain.locate(records[0].key)).payload
    assert isinstance(plain.record(0, 0).annotations[0], Caption)
    assert (len(seen), seen.card.annotations, seen.card.annotation_type) == (2, 3, "detection")
    assert verify(pictures) == []


def test_a_picture_that_is_not_there_is_a_reject_and_the_ledger_closes(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger]
) -> None:
    ledger = annotate(coco_objects(tmp_path / "o.json", [*BOXES, (99, [0, 0, 2, 2]), (99, [0, 0, 3, 3])]))
    assert (ledger.raw_items, ledger.matched_items, ledger.raw_annotations) == (3, 2, 5)
    assert dict(ledger.rejects) == {"missing_media": 1}
    folder = next((pictures / "sidecars").iterdir())
    (row,) = pq.read_table(folder / "rejects.parquet").to_pylist()
    assert (row["id"], row["annotations"]) == ("99", 2)
    assert "no such picture in the dataset" in row["detail"]


def test_boxes_are_checked_against_the_stored_picture(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger]
) -> None:
    wide = coco_objects(tmp_path / "o.json", [(2, [1, 1, 5, 5]), (2, [35, 1, 30, 5])])
    ledger = annotate(wide)
    assert (ledger.annotations, dict(ledger.rejects)) == (1, {"box_outside": 1})
    kept = annotate(
        coco_objects(tmp_path / "p.json", [(2, [10, 10, 20, 20])], size=(84, 60)), source={"rescale_boxes": True}
    )
    assert kept.annotations == 1
    folders = sorted(path.name for path in (pictures / "sidecars").iterdir())
    boxes = [open_dataset(pictures, annotations=name).record(0, 0).annotations[0].box for name in folders]  # type: ignore[union-attr]
    assert (5.0, 5.0, 15.0, 15.0) in boxes
    with pytest.raises(DatasetError, match="several columns"):
        open_dataset(pictures, annotations="boxes")


def test_a_picture_of_another_size_is_a_reject_unless_boxes_are_scaled(
    tmp_path: Path, annotate: Callable[..., Ledger]
) -> None:
    ledger = annotate(coco_objects(tmp_path / "o.json", [*BOXES[:2], (6, [0, 0, 4, 4])], size=(42, 30)))
    assert (ledger.annotations, dict(ledger.rejects)) == (2, {"size_mismatch": 1})


def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger]
) -> None:
    objects = coco_objects(tmp_path / "o.json", BOXES)
    with pytest.raises(DatasetError, match="run the same `annotate` command again"):
        annotate(objects, shards=slice(1, 2))
    with pytest.raises(DatasetError, match="not finished"):
        open_dataset(pictures, annotations="boxes")
    first = annotate(objects)
    files = {path.name: path.read_bytes() for path in (pictures / "sidecars").rglob("*") if path.is_file()}
    assert annotate(objects) == first
    assert {path.name: path.read_bytes() for path in (pictures / "sidecars").rglob("*") if path.is_file()} == files


def test_other_annotations_under_the_same_name_are_another_column(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger]
) -> None:
    annotate(coco_objects(tmp_path / "o.json", BOXES))
    annotate(coco_objects(tmp_path / "o.json", BOXES[:1]))
    assert len(list((pictures / "sidecars").iterdir())) == 2


def test_annotations_of_another_dataset_altogether_stop_the_run(
    tmp_path: Path, annotate: Callable[..., Ledger]
) -> None:
    with pytest.raises(InputError, match="not one of 1 raw items finds its picture"):
        annotate(coco_objects(tmp_path / "o.json", [(99, [0, 0, 2, 2])]))


def test_too_many_unusable_boxes_stop_the_run(tmp_path: Path, annotate: Callable[..., Ledger]) -> None:
    outside = [(2, [30.0, 1.0, 30.0, 5.0])] * 3
    with pytest.raises(BudgetError, match=r"1 of 1 raw items are unusable \(no_annotations 1\).*rescale_boxes"):
        annotate(coco_objects(tmp_path / "o.json", outside), reject_count=0)


def test_the_order_counts_the_columns_annotations_and_changes_with_it(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger]
) -> None:
    annotate(coco_objects(tmp_path / "o.json", BOXES))
    seen = open_dataset(pictures, annotations="boxes")
    spec = source_of(seen, "annotations")
    assert spec.items == 3
    assert spec.dataset_digest != source_of(open_dataset(pictures), "annotations").dataset_digest
    order = Stream({"x": spec}, batch_size=3, seed=1)
    stream = RecordStream(order, {"x": seen}, count="annotations")
    items = [stream.fetch(address) for address in order.batch(0)]
    chosen = {item.record.annotations[item.annotation].id for item in items if item.annotation is not None}
    assert chosen == {"100", "101", "102"}
    by_record = Stream({"x": source_of(seen, "records")}, batch_size=2, seed=1, shuffle=False, drop_last=False)
    records = RecordStream(by_record, {"x": seen}, count="records")
    assert [len(records.fetch(address).record.annotations) for address in by_record.batch(0)] == [2, 1]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("flip", "does not match the checksum in its ledger"),
        ("remove", "is missing"),
        ("swap", "a row that only the column has"),
        ("foreign", "made for another dataset"),
        ("ledger", "is damaged"),
        ("edit", "does not match its own checksum"),
        ("card", "what it says belongs into"),
        ("rejects", "rejects.parquet: it is missing or damaged"),
    ],
)
def test_verify_names_what_is_wrong_with_a_column(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger], damage: str, words: str
) -> None:
    annotate(coco_objects(tmp_path / "o.json", BOXES))
    folder = next((pictures / "sidecars").iterdir())
    first, second, _ = sorted(folder.glob("own-*.parquet"))
    if damage == "flip":
        data = bytearray(second.read_bytes())
        data[len(data) // 3] ^= 1
        second.write_bytes(data)
    elif damage == "remove":
        second.unlink()
    elif damage == "swap":
        second.write_bytes(first.read_bytes())
    elif damage == "foreign":
        card = folder / "column.json"
        manifest = json.loads(card.read_text())["manifest"]
        card.write_text(card.read_text().replace(manifest, manifest[::-1]))
    elif damage == "ledger":
        ledger = folder / "ledger.json"
        ledger.write_bytes(ledger.read_bytes()[:50])
    elif damage == "edit":
        ledger = folder / "ledger.json"
        ledger.write_text(ledger.read_text().replace('"raw_items": 2', '"raw_items": 3'))
    elif damage == "card":
        card = folder / "column.json"
        card.write_text(card.read_text().replace('"match":"auto"', '"match":"file"'))
    else:
        (folder / "rejects.parquet").write_bytes(first.read_bytes())
    damages = "; ".join(map(str, verify(pictures)))
    assert "sidecars/boxes-" in damages
    assert words in damages or (damage == "flip" and "is damaged" in damages)


def test_a_record_that_the_ledger_does_not_account_for_stops_the_run(
    tmp_path: Path, pictures: Path, annotate: Callable[..., Ledger]
) -> None:
    objects = coco_objects(tmp_path / "o.json", BOXES)
    annotate(objects)
    folder = next((pictures / "sidecars").iterdir())
    table = pq.read_table(folder / "own-all-00000.parquet")
    emptied = table.set_column(1, "count", [[0] * 3]).set_column(2, "annotations", [["[]"] * 3])
    pq.write_table(emptied, folder / "own-all-00000.parquet")
    with pytest.raises(DatasetError, match="3 raw annotations went in and 1 are accounted for"):
        annotate(objects)


def test_a_table_without_pictures_is_matched_by_id_where_that_is_asked_for(pictures: Path, tmp_path: Path) -> None:
    first = next(open_dataset(pictures).records()).origin.id
    (tmp_path / "more.csv").write_text(f"name,text\n{first},another caption\nnowhere,x\n")
    columns = {"id": "name", "caption": "text"}
    source = {"kind": "table", "annotations": str(tmp_path / "more.csv"), "columns": columns}
    config = AnnotateConfig(dataset=str(pictures), source=source, match="id").absolute()
    dataset = open_dataset(pictures)
    plan = plan_annotations(config, dataset)
    for unit in plan.left(dataset):
        annotate_shard(plan.job(), unit)
    ledger = finish_annotations(plan, dataset)
    assert (ledger.records, ledger.annotations, dict(ledger.rejects)) == (1, 1, {"missing_media": 1})
    with pytest.raises(InputError, match="only `match=id`"):
        plan_annotations(config.model_copy(update={"match": "auto"}), dataset)
