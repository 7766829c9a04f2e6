"""Damaged shards made again from raw files that have grown since, whatever brought their units into the dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pipelines.append import Addition, plan_addition
from pipelines.convert import (
    ConvertConfig,
    convert_unit,
    decide_survey,
    finish,
    needs_survey,
    plan_units,
    survey_unit,
    unsurveyed,
)
from pipelines.reconvert import config_of, reconvert
from shards.errors import DatasetError
from shards.manifest import read_card
from shards.repair import repair
from shards.stores import open_storage

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, picture: Callable[..., bytes]) -> Write:
    """Write the COCO files of some numbers, in their order; pictures of `missing` are not there, ids of `twice` come twice."""

    def make(numbers: Iterable[int], *, missing: Iterable[int] = (), twice: Iterable[int] = ()) -> None:
        photos = tmp_path / "photos"
        photos.mkdir(exist_ok=True)
        numbers = list(numbers)
        for number in numbers:
            path = photos / f"{number}.jpg"
            path.unlink(missing_ok=True)
            if number not in set(missing):
                path.write_bytes(picture(40, 30, shade=3 * (number // 2)))
        images = [{"id": number, "file_name": f"{number}.jpg"} for number in [*numbers, *twice]]
        captions = [{"id": number, "image_id": number, "caption": f"caption {number}"} for number in numbers]
        (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))

    return make


def _config(tmp_path: Path, *transforms: str) -> ConvertConfig:
    source = {
        "kind": "coco_captions",
        "annotations": str(tmp_path / "captions.json"),
        "media": str(tmp_path / "photos"),
        "split": "train",
    }
    chain = tuple({"kind": kind} for kind in transforms)
    return ConvertConfig(source=source, output=str(tmp_path / "out"), records_per_shard=3, transforms=chain)


def _run(config: ConvertConfig, add: Addition | None = None) -> None:
    plan = plan_addition(config, plan_units(config), add)
    if needs_survey(config):
        for unit in unsurveyed(config, plan.units):
            survey_unit(config, unit)
        decide_survey(config, plan.units, earlier=plan.earlier)
    for unit in plan.units:
        convert_unit(config, unit)
    finish(config, plan.units, earlier=plan.earlier)


def _grown(config: ConvertConfig, write: Write) -> None:
    """Seven items, four more between and behind them, and two rejects that are mended."""
    write(range(0, 14, 2), missing=[4, 10])
    _run(config)
    write(range(15), missing=[4, 10])
    _run(config, "new")
    write(range(15))
    _run(config, "rejects")


def _tree(folder: str | Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def _repair(config: ConvertConfig) -> None:
    storage = open_storage(config.output)
    places = {name: config.source[name] for name in ("annotations", "media")}
    made_by = config_of(read_card(storage), output=config.output, source=places)
    repair(storage, reconvert=lambda damaged: reconvert(made_by, damaged))


@pytest.mark.parametrize("transforms", [(), ("drop_duplicates",)])
@pytest.mark.parametrize("folders", [("shards",), ("shards", "index")], ids=["shards", "shards and indices"])
def test_every_shard_of_a_grown_and_retried_dataset_is_made_again_byte_for_byte(
    tmp_path: Path, write: Write, transforms: tuple[str, ...], folders: tuple[str, ...]
) -> None:
    config = _config(tmp_path, *transforms)
    _grown(config, write)
    whole = _tree(config.output)
    names = [Path(name).stem for name in whole if name.startswith("shards/")]
    assert len(names) > 4
    for name in names:
        for path in (path for path in whole if Path(path).stem == name and path.split("/")[0] in folders):
            (Path(config.output) / path).write_bytes(whole[path][:-1] + b"x")
        _repair(config)
        assert _tree(config.output) == whole


def test_shards_are_made_again_when_many_are_lost_at_once(tmp_path: Path, write: Write) -> None:
    config = _config(tmp_path)
    _grown(config, write)
    whole = _tree(config.output)
    for name in whole:
        if name.startswith("shards/"):
            (Path(config.output) / name).unlink()
    _repair(config)
    assert _tree(config.output) == whole


def test_neighbouring_additions_are_told_apart_where_their_indices_are_lost_too(tmp_path: Path, write: Write) -> None:
    config = _config(tmp_path)
    write(range(0, 20, 2), twice=[4])
    _run(config)
    write(range(20), twice=[4])
    _run(config, "new")
    whole = _tree(config.output)
    for name in [name for name in whole if name.split("/")[0] in ("shards", "index")][-3:]:
        for folder, suffix in (("shards", "tar"), ("index", "parquet")):
            (Path(config.output) / folder / f"{Path(name).stem}.{suffix}").write_bytes(b"")
    _repair(config)
    assert _tree(config.output) == whole


def test_items_that_have_changed_or_gone_are_no_replacement(tmp_path: Path, write: Write) -> None:
    config = _config(tmp_path)
    _grown(config, write)
    path = next(path for path in sorted((Path(config.output) / "shards").iterdir()) if "00003" in path.name)
    path.write_bytes(b"")
    text = (tmp_path / "captions.json").read_text()
    (tmp_path / "captions.json").write_text(text.replace("caption 1", "caption one"))
    with pytest.raises(DatasetError, match="not as they were"):
        _repair(config)
