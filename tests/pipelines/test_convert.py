"""Exactly once: resumed, repeated and reordered conversions are the same bytes; bad input stops with the top reasons."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, estimate, finish, plan_units
from shards.errors import BudgetError, ConfigError, DatasetError, InputError


def tree(folder: str | Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture
def config(tmp_path: Path, photos: Path, picture: Any) -> ConvertConfig:
    """23 pictures of which two are broken, in shards of five."""
    lines = []
    for number in range(23):
        (photos / f"p{number:02}.jpg").write_bytes(picture(shade=10 * number) if number not in (3, 17) else b"broken")
        lines += [f"p{number:02}.jpg#{k}\tcaption {k} of {number}" for k in range(3)]
    (tmp_path / "x.token").write_text("\n".join(lines))
    source = {
        "kind": "flickr_captions",
        "annotations": str(tmp_path / "x.token"),
        "media": str(photos),
        "split": "train",
    }
    return ConvertConfig(source=source, output=str(tmp_path / "out"), records_per_shard=5)


def convert_all(config: ConvertConfig, output: Path) -> dict[str, bytes]:
    config = config.model_copy(update={"output": str(output)})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    return tree(output)


def test_order_repetition_and_interruption_change_no_byte(config: ConvertConfig, tmp_path: Path) -> None:
    expected = convert_all(config, tmp_path / "straight")
    units = list(plan_units(config))
    random.Random(4).shuffle(units)
    for unit in [*units[:3], *units[1:], units[0]]:
        convert_unit(config, unit)
    finish(config, units)
    finish(config, plan_units(config))
    assert tree(config.output) == expected


def test_a_unit_that_is_committed_is_not_read_again(config: ConvertConfig, photos: Path) -> None:
    unit = plan_units(config)[0]
    first = convert_unit(config, unit)
    shutil.rmtree(photos)
    again = convert_unit(config, unit)
    assert (again.xxh3, again.committed) == (first.xxh3, False)


def test_merging_before_all_units_are_there_is_refused(config: ConvertConfig) -> None:
    units = plan_units(config)
    convert_unit(config, units[0])
    with pytest.raises(DatasetError, match="4 of 5 units are not committed"):
        finish(config, units)


def test_every_item_is_a_record_or_a_reject_over_the_whole_dataset(config: ConvertConfig) -> None:
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    card = finish(config, units)
    assert (card.raw_items, card.records, sum(card.rejects.values())) == (23, 21, 2)
    assert (card.raw_annotations, card.annotations) == (69, 63)


def test_where_the_files_are_mounted_does_not_change_the_dataset(config: ConvertConfig, tmp_path: Path) -> None:
    expected = convert_all(config, tmp_path / "here")
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copytree(tmp_path / "photos", moved / "photos")
    shutil.copy(tmp_path / "x.token", moved)
    source = config.source | {"annotations": str(moved / "x.token"), "media": str(moved / "photos")}
    assert convert_all(config.model_copy(update={"source": source}), tmp_path / "there") == expected


@pytest.mark.parametrize(
    "change",
    [{"records_per_shard": 4}, {"transforms": ({"kind": "clean_text"},)}, {"name": "mine"}, {"max_pixels": 1000}],
)
def test_another_config_is_refused_in_the_same_folder(config: ConvertConfig, change: dict[str, Any]) -> None:
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)
    other = config.model_copy(update=change)
    with pytest.raises(DatasetError, match="another config"):
        finish(other, plan_units(other))


def test_budget_and_output_are_no_part_of_what_a_dataset_is(config: ConvertConfig) -> None:
    other = config.model_copy(update={"reject_count": 5, "reject_share": 0.5, "output": "elsewhere"})
    assert other.digest() == config.digest()
    spelt_out = config.model_copy(update={"source": config.source | {"limit": None}})
    assert spelt_out.digest() == config.digest()


def test_too_many_rejects_stop_the_run_with_the_top_reasons(config: ConvertConfig) -> None:
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    strict = config.model_copy(update={"reject_count": 1})
    with pytest.raises(BudgetError, match=r"2 of 23 raw items were rejected \(not_media 2; e\.g\. p03\.jpg"):
        finish(strict, units)
    assert not (Path(config.output) / "dataset.json").exists()
    finish(config.model_copy(update={"reject_count": 1, "reject_share": 0.1}), units)  # 2 of 23 are less than 10 %


def test_a_dataset_without_any_record_is_refused(config: ConvertConfig, photos: Path) -> None:
    for file in photos.iterdir():
        file.write_bytes(b"broken")
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    with pytest.raises(BudgetError, match="none of 23 raw items became a record"):
        finish(config, units)


def test_raw_files_that_changed_are_noticed_before_work_starts(config: ConvertConfig) -> None:
    from pipelines.convert import committed

    for unit in plan_units(config):
        convert_unit(config, unit)
    annotations = Path(config.source["annotations"])
    annotations.write_text(annotations.read_text().replace("caption 0 of 0", "caption 0 of nothing"))
    with pytest.raises(DatasetError, match="1 of its 5 committed units are not in the raw files any more"):
        committed(config, plan_units(config))


def test_a_dry_run_knows_the_size_within_a_tenth(config: ConvertConfig, tmp_path: Path) -> None:
    guess = estimate(config, plan_units(config))
    written = convert_all(config.model_copy(update={"records_per_shard": 23}), tmp_path / "sized")
    size = sum(len(data) for name, data in written.items() if name.endswith(".tar"))
    assert guess is not None
    assert abs(guess - size) < 0.1 * size


def test_unknown_kinds_and_keys_name_the_nearest(config: ConvertConfig) -> None:
    for change, says in (
        ({"kind": "coco_caption"}, "did you mean 'coco_captions'"),
        ({"kind": None}, "missing key 'source.kind'"),
        ({"annotation": "x"}, "unknown key 'source.annotation': did you mean 'annotations'"),
        ({"limit": 0}, r"source\.limit"),
    ):
        with pytest.raises(ConfigError, match=says):
            plan_units(config.model_copy(update={"source": config.source | change}))
    with pytest.raises(InputError, match="holds no item"):
        Path(config.source["annotations"]).write_text("image,caption\n")
        plan_units(config)


def test_a_tilde_is_the_home_of_whoever_runs_it_and_no_folder_of_that_name(
    config: ConvertConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = {**config.source, "annotations": "~/x.token", "media": "~/photos"}
    written = config.model_copy(update={"source": source, "output": "~/out"}).absolute()
    assert written == config.absolute()
