"""What every source is told: the names that a dataset's keys and files are made of."""

from __future__ import annotations

import re

import pytest

from pipelines.source import SourceConfig, spelt_split
from pipelines.sources.coco_instances import Config as CocoConfig
from pipelines.sources.glue import Config as GlueConfig


@pytest.mark.parametrize("split", ["train", "a b/../c", "train+restval", "訓練", "..", "-", " "])
def test_any_name_of_a_split_can_stand_in_a_key(split: str) -> None:
    name = SourceConfig(annotations="x.json", split=split).split_name()
    assert re.fullmatch(r"[A-Za-z0-9_]+", name)
    assert "__" not in name.strip("_")


def test_splits_in_another_script_stay_apart() -> None:
    assert spelt_split("訓練") != spelt_split("検証")


def test_a_split_read_off_a_files_name_can_stand_in_a_key_too() -> None:
    assert GlueConfig(annotations="MNLI/dev matched-訓.tsv").split_name() == "dev_matched"


@pytest.mark.parametrize("name", ["instances_val2017.json", "person_keypoints_val2017.json"])
def test_a_split_is_read_off_every_official_file_of_boxes(name: str) -> None:
    assert CocoConfig(annotations=name, media="val2017").split_name() == "val"
