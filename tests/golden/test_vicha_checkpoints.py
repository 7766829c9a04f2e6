"""How a released pretraining file becomes each task's model: every name, against the published loading code.

The models are of the released size, but on the meta device: names and shapes are all that is compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from model.checkpoints import ImportReport
from model.families.vicha import Config, build
from model.families.vicha.published import export_published, import_published, published_names, starting_points
from model.families.vicha.released import infer_config

pytestmark = pytest.mark.golden("vicha/checkpoint_mapping")

OURS = {
    "retrieval": "retrieval",
    "grounding": "grounding",
    "vqa": "vqa",
    "visual_entailment": "entailment",
    "nlvr2_text_assignment_pretrain": "nlvr2_assignment",
    "nlvr2_from_text_assignment": "nlvr2",
}
each_task = pytest.mark.parametrize("task", OURS)


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """One task's model, filled from a file, under released names."""

    source: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    origins: Mapping[str, str]  # target -> source
    tied: Mapping[str, str]  # each name of a source tensor -> its first name
    report: ImportReport


def _released(family: Any) -> dict[str, Tensor]:
    return export_published(family)


@pytest.fixture
def mapped(case: Any, task: str) -> Mapped:
    return _map(case, task)


@cache
def _map(case: Any, task: str) -> Mapped:
    expected = case.json("expected.json")["tasks"][task]
    source_config = Config()
    # Pictures as large as the case says, where it says: it lists the position tables of another grid.
    sizes = {tuple(after) for _, after in expected["shape_mismatch"].values()}
    settings = {"image_size": math.isqrt(sizes.pop()[1]) * source_config.patch_size} if sizes else {}
    with torch.device("meta"):
        source = _released(build(source_config))
        if task == "nlvr2_from_text_assignment":
            source_config = infer_config(source, task="nlvr2_assignment")
            source = _released(build(source_config))
        config = infer_config(source, task=OURS[task], settings=settings)
        family: Any = build(config)
        report = import_published(family, source)
        targets = _released(family)
    found = starting_points(family, source)
    return Mapped(
        source=source,
        targets=targets,
        origins={
            name: found[ours] for ours, group in published_names(config).items() for name in group if ours in found
        },
        tied={name: group[0] for group in published_names(source_config).values() for name in group},
        report=report,
    )


def _is_counter(name: str) -> bool:
    """Position counters are made anew, in every file the same."""
    return name.endswith("position_ids")


@each_task
def test_every_renamed_tensor_starts_from_the_published_one(case: Any, task: str, mapped: Mapped) -> None:
    expected = case.json("expected.json")["tasks"][task]["renamed_target_to_source"]
    for target, source in expected.items():
        if _is_counter(target):
            assert target in mapped.targets
            assert source in mapped.source
        else:
            assert mapped.tied[mapped.origins[target]] == mapped.tied[source], target
    renamed = {target for target, source in mapped.origins.items() if target != source}
    assert renamed <= expected.keys() | {
        target for target in renamed if mapped.tied.get(target) == mapped.origins[target]
    }


@each_task
def test_as_many_tensors_are_matched_and_the_same_are_missing(case: Any, task: str, mapped: Mapped) -> None:
    expected = case.json("expected.json")["tasks"][task]
    matched = {name for name in mapped.targets if name in mapped.origins or _is_counter(name)}
    if task == "nlvr2_from_text_assignment":  # counters of a twin that the file has none of
        matched -= {name for name in mapped.targets if _is_counter(name) and name not in mapped.source}
    assert len(matched) == expected["matched"]
    _assert_named(mapped.targets.keys() - matched, expected["missing_in_source"])


@each_task
def test_the_same_tensors_of_the_file_are_left_over(case: Any, task: str, mapped: Mapped) -> None:
    expected = case.json("expected.json")["tasks"][task]
    renamed = expected["renamed_target_to_source"]
    used = {renamed.get(name, name) for name in mapped.targets if name in mapped.origins or _is_counter(name)}
    _assert_named(mapped.source.keys() - used, expected["ignored_source"])
    # The report leaves out what is computed, and further names of tensors that were used.
    told = set(mapped.report.unexpected)
    assert told <= mapped.source.keys() - used
    assert {mapped.tied[name] for name in told}.isdisjoint(mapped.tied[source] for source in mapped.origins.values())


@each_task
def test_position_tables_of_another_grid_are_resized(case: Any, task: str, mapped: Mapped) -> None:
    expected = case.json("expected.json")["tasks"][task]["shape_mismatch"]
    found = {
        name: [list(mapped.source[origin].shape), list(mapped.targets[name].shape)]
        for name, origin in mapped.origins.items()
        if mapped.source[origin].shape != mapped.targets[name].shape
    }
    # The reference lists a twin's table only where the file has one.
    assert {name: shapes for name, shapes in found.items() if name in mapped.source} == expected
    assert len(mapped.report.resized) == len(found)


def _assert_named(found: set[str], expected: Any) -> None:
    """Compare names with a list of them, or with its summary: how many, and how many by first part."""
    if isinstance(expected, list):
        assert found == set(expected)
        return
    assert len(found) == expected["count"]
    assert Counter(name.partition(".")[0] for name in found) == expected["prefixes"]
