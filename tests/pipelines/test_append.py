"""Adding to a finished dataset: old shards stay, new items and mended rejects become new units, and the ledger closes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.append import Addition, Plan, plan_addition
from pipelines.convert import (
    ConvertConfig,
    committed,
    convert_unit,
    decide_survey,
    finish,
    needs_survey,
    plan_units,
    survey_unit,
    unsurveyed,
)
from shards.errors import ConfigError, DatasetError
from shards.manifest import Card
from shards.reader import open_dataset
from shards.verify import verify

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, picture: Callable[..., bytes]) -> Write:
    """Write the COCO files of some numbers; pictures of `broken` are cut, those of `missing` are not there."""

    def make(numbers: Iterable[int], *, broken: Iterable[int] = (), missing: Iterable[int] = ()) -> None:
        numbers, cut, gone = list(numbers), set(broken), set(missing)
        photos = tmp_path / "photos"
        photos.mkdir(exist_ok=True)
        for number in numbers:
            data = picture(40, 30, shade=3 * number)
            path = photos / f"{number}.jpg"
            path.unlink(missing_ok=True)
            if number not in gone:
                path.write_bytes(data[:-200] if number in cut else data)
        images = [{"id": number, "file_name": f"{number}.jpg"} for number in numbers]
        captions = [
            {
                "id": 10 * number + k,
                "image_id": number,
                "caption": "" if number % 7 == 3 and k == 1 else f"{number} {k}",
            }
            for number in numbers
            for k in range(2)
        ]
        (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))

    return make


@pytest.fixture
def config(tmp_path: Path) -> ConvertConfig:
    source = {
        "kind": "coco_captions",
        "annotations": str(tmp_path / "captions.json"),
        "media": str(tmp_path / "photos"),
        "split": "train",
    }
    return ConvertConfig(source=source, output=str(tmp_path / "out"), records_per_shard=4)


def plan_of(config: ConvertConfig, add: Addition | None = None) -> Plan:
    return plan_addition(config, plan_units(config), add)


def run(config: ConvertConfig, add: Addition | None = None) -> Card:
    plan = plan_of(config, add)
    committed(config, plan.units, earlier=plan.earlier)
    if needs_survey(config):
        for unit in unsurveyed(config, plan.units):
            survey_unit(config, unit)
        decide_survey(config, plan.units, earlier=plan.earlier)
    for unit in plan.units:
        convert_unit(config, unit)
    return finish(config, plan.units, earlier=plan.earlier)


def tree(folder: str | Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def captions_by_id(config: ConvertConfig) -> dict[str, int]:
    return {record.origin.id: len(record.annotations) for record in open_dataset(config.output).records()}


def test_new_items_become_new_shards_and_old_files_keep_every_byte(config: ConvertConfig, write: Write) -> None:
    write(range(10), missing=[5])
    run(config)
    before = tree(config.output)
    write([*range(5, 14), *range(5)], missing=[5])  # the order of the raw file is no matter
    card = run(config, "new")
    after = tree(config.output)
    assert {name: after[name] for name in before if name.split("/")[0] in ("shards", "index", "commits")} == {
        name: data for name, data in before.items() if name.split("/")[0] in ("shards", "index", "commits")
    }
    assert (card.raw_items, card.records, card.rejects["missing_media"], card.shards) == (14, 13, 1, 4)
    assert set(captions_by_id(config)) == {str(number) for number in range(14) if number != 5}
    assert verify(config.output) == []


def test_an_addition_killed_anywhere_is_resumed_to_the_same_bytes(
    config: ConvertConfig, write: Write, tmp_path: Path
) -> None:
    for output in ("straight", "killed"):
        write(range(6))
        run(config.model_copy(update={"output": str(tmp_path / output)}))
    write(range(16))
    straight = config.model_copy(update={"output": str(tmp_path / "straight")})
    run(straight, "new")
    killed = config.model_copy(update={"output": str(tmp_path / "killed")})
    for unit in plan_of(killed, "new").units[1:]:
        convert_unit(killed, unit)
    run(killed, "new")
    assert tree(tmp_path / "killed") == tree(tmp_path / "straight")


def test_appending_twice_changes_nothing_and_appending_to_nothing_is_a_conversion(
    config: ConvertConfig, write: Write, tmp_path: Path
) -> None:
    write(range(9))
    run(config, "new")
    plain = config.model_copy(update={"output": str(tmp_path / "plain")})
    run(plain)
    assert tree(config.output) == tree(plain.output)
    assert plan_of(config, "new").units == []
    run(config, "new")
    assert tree(config.output) == tree(plain.output)


def test_annotations_that_came_to_old_items_are_not_left_out_silently(
    config: ConvertConfig, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(range(1, 9), missing=[2])
    run(config)
    write(range(1, 12), missing=[2])
    plan_of(config, "new")
    assert caplog.text == ""
    file = tmp_path / "captions.json"
    content = json.loads(file.read_text())
    content["annotations"].append({"id": 999, "image_id": 1, "caption": "one more"})
    file.write_text(json.dumps(content))
    plan_of(config, "new")
    assert "of 1 of 2 units are not what they were" in caplog.text
    assert "had 8 annotations and have 9 now" in caplog.text


def edit(file: Path, number: int, text: str) -> None:
    """Change one caption of a picture."""
    content = json.loads(file.read_text())
    next(row for row in content["annotations"] if row["image_id"] == number)["caption"] = text
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("then", [range(1, 10), range(15)], ids=["as_they_were", "with_new_ones_on_both_sides"])
def test_an_edited_text_is_noticed_in_the_very_unit_that_it_is_in(
    then: range, config: ConvertConfig, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write(range(1, 10), missing=[2, 7])
    run(config)
    for number in (1, 6, 9):
        write(then, missing=[2, 7])
        plan_of(config, "new")
        assert caplog.text == ""
        edit(Path(config.source["annotations"]), number, "another text")
        plan_of(config, "new")
        (record,) = caplog.records
        changed, units, first, *_ = record.args or ()
        assert (changed, units, first) == (1, 3, f"coco_captions-train-{(number - 1) // 4:05d}")
        caplog.clear()


def test_an_edited_text_of_an_item_that_was_rejected_is_noticed(
    config: ConvertConfig, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(range(6), missing=[5])
    run(config)
    edit(tmp_path / "captions.json", 5, "another text")
    plan_of(config, "new")
    assert "of 1 of 2 units are not what they were" in caplog.text


def test_items_that_were_tried_again_and_items_of_one_id_are_no_change(
    config: ConvertConfig, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def twins(numbers: range) -> None:
        write(numbers, missing=[4])
        file = tmp_path / "captions.json"
        content = json.loads(file.read_text())
        content["images"][:0] = [{"id": 1, "file_name": "1.jpg"}] * 7
        file.write_text(json.dumps(content))

    twins(range(9))
    assert run(config).rejects["duplicate_id"] == 7
    (tmp_path / "photos" / "4.jpg").write_bytes((tmp_path / "photos" / "3.jpg").read_bytes())
    run(config, "rejects")
    twins(range(12))
    (tmp_path / "photos" / "4.jpg").write_bytes((tmp_path / "photos" / "3.jpg").read_bytes())
    plan = plan_of(config, "new")
    assert caplog.text == ""
    assert sorted(item["id"] for unit in plan.units for item in unit.items) == ["10", "11", "9"]
    edit(tmp_path / "captions.json", 4, "another text")
    plan_of(config, "new")
    assert "of 1 of 5 units are not what they were" in caplog.text


def test_where_items_are_gone_nothing_is_said_of_the_others_of_their_unit(
    config: ConvertConfig, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write(range(8))
    run(config)
    write([0, 1, 2, 4, 5, 6, 7, 8])
    plan_of(config, "new")
    assert "1 units miss raw items" in caplog.text
    assert "1 raw items of the dataset are not in the raw files any more" in caplog.text
    assert "are not what they were when" not in caplog.text


def test_new_items_without_append_are_refused_and_the_way_out_is_named(config: ConvertConfig, write: Write) -> None:
    write(range(6))
    run(config)
    before = tree(config.output)
    write(range(9))
    with pytest.raises(DatasetError, match="say append=true"):
        run(config)
    assert tree(config.output) == before


def test_mended_rejects_alone_are_tried_again_and_their_later_outcome_counts(
    config: ConvertConfig, write: Write
) -> None:
    write(range(12), broken=[3, 6], missing=[9])
    first = run(config)
    assert (first.records, first.raw_items, first.raw_annotations) == (9, 12, 24)
    before = tree(config.output)
    write(range(12), missing=[9])
    (unit,) = plan_of(config, "rejects").units
    assert [item["id"] for item in unit.items] == ["3", "6", "9"]
    card = run(config, "rejects")
    assert (card.records, card.raw_items, card.raw_annotations) == (11, 12, 24)
    assert card.rejects == {"missing_media": 1, "empty_text": 2}  # the empty captions of 3 and 10 are still empty
    assert card.annotations == 24 - 2 - 2
    rows = pq.read_table(Path(config.output) / "rejects.parquet").to_pylist()
    assert sorted((row["id"], row["reason"]) for row in rows if row["level"] == "item") == [("9", "missing_media")]
    assert {name: tree(config.output)[name] for name in before if name.startswith(("shards/", "commits/"))} == {
        name: data for name, data in before.items() if name.startswith(("shards/", "commits/"))
    }
    assert verify(config.output) == []


def test_after_an_addition_the_plain_command_finds_the_dataset_made(config: ConvertConfig, write: Write) -> None:
    write(range(8), missing=[2])
    run(config)
    write(range(8))
    run(config, "rejects")
    before = tree(config.output)
    run(config)
    assert tree(config.output) == before
    assert len(captions_by_id(config)) == 8


def test_rejects_may_be_tried_again_and_again(config: ConvertConfig, write: Write) -> None:
    write(range(8), missing=[1, 2])
    run(config)
    write(range(8), missing=[2])
    run(config, "rejects")
    write(range(8))
    card = run(config, "rejects")
    assert (card.records, card.raw_items, dict(card.rejects)) == (8, 8, {"empty_text": 1})
    assert plan_of(config, "rejects").units == []
    assert verify(config.output) == []


def test_what_was_meant_to_be_rejected_is_not_tried_again(config: ConvertConfig, write: Write) -> None:
    write(range(8))
    filtered = config.model_copy(update={"transforms": ({"kind": "drop_duplicates"},)})
    write([0, 1, 2])
    (Path(config.source["media"]) / "1.jpg").write_bytes((Path(config.source["media"]) / "0.jpg").read_bytes())
    card = run(filtered)
    assert card.rejects["duplicate"] == 1
    assert plan_of(filtered, "rejects").units == []


def test_a_duplicate_of_an_older_record_is_found_when_it_is_appended(config: ConvertConfig, write: Write) -> None:
    deduplicated = config.model_copy(update={"transforms": ({"kind": "drop_duplicates"},)})
    write([0, 1, 2])
    run(deduplicated)
    write(range(5))
    (Path(config.source["media"]) / "4.jpg").write_bytes((Path(config.source["media"]) / "0.jpg").read_bytes())
    card = run(deduplicated, "new")
    assert card.rejects["duplicate"] == 1
    assert set(captions_by_id(config)) == {"0", "1", "2", "3"}


def test_retrying_where_there_is_no_dataset_is_one_sentence(config: ConvertConfig, write: Write) -> None:
    write(range(3))
    with pytest.raises(ConfigError, match=r"retry=rejects: .* is no finished dataset"):
        plan_of(config, "rejects")
