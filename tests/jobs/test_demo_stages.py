"""Stages: done work is skipped, changed or lost work is done again, and what it took is on record."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.demo.memory import PeakMemory, resident_bytes
from jobs.demo.stages import Command, Inner, Stage, read_timings, run_stages
from shards.config import Config
from shards.errors import OstrakaError


class Size(Config):
    size: int = 1


class Kitchen:
    """Two stages that write a file each and remember how often they ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[str] = []

    def stages(self, *, first: int = 1, second: int = 1) -> tuple[Stage, ...]:
        return tuple(
            Stage(
                name=name,
                step=step,
                title=name,
                commands=(Inner(line=f"make {name}", config=Size(size=size), work=lambda name=name: self.cook(name)),),
                evidence=(self.folder / name,),
            )
            for step, (name, size) in enumerate((("dough", first), ("bread", second)), start=1)
        )

    def cook(self, name: str) -> None:
        self.ran.append(name)
        (self.folder / name).write_text(name)


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def test_a_second_run_does_nothing_and_keeps_the_times_of_the_first(kitchen: Kitchen) -> None:
    first = run_stages(kitchen.stages(), kitchen.folder)
    second = run_stages(kitchen.stages(), kitchen.folder)
    assert kitchen.ran == ["dough", "bread"]
    assert first == second == read_timings(kitchen.folder)
    assert [timing.command for timing in first] == ["make dough", "make bread"]


def test_a_changed_config_runs_its_stage_and_those_after_it(kitchen: Kitchen) -> None:
    run_stages(kitchen.stages(), kitchen.folder)
    run_stages(kitchen.stages(second=2), kitchen.folder)
    assert kitchen.ran == ["dough", "bread", "bread"]
    run_stages(kitchen.stages(first=2, second=2), kitchen.folder)
    assert kitchen.ran == ["dough", "bread", "bread", "dough", "bread"]


def test_a_lost_output_is_made_again(kitchen: Kitchen) -> None:
    run_stages(kitchen.stages(), kitchen.folder)
    (kitchen.folder / "bread").unlink()
    run_stages(kitchen.stages(), kitchen.folder)
    assert kitchen.ran == ["dough", "bread", "bread"]


def test_a_stage_that_was_interrupted_is_not_on_record(kitchen: Kitchen) -> None:
    def burn(name: str) -> None:
        (kitchen.folder / name).write_text("half")
        raise KeyboardInterrupt

    dough, bread = kitchen.stages()
    burnt = Stage(
        name="bread",
        step=2,
        title="bread",
        commands=(Inner(line="make bread", config=Size(), work=lambda: burn("bread")),),
        evidence=bread.evidence,
    )
    with pytest.raises(KeyboardInterrupt):
        run_stages((dough, burnt), kitchen.folder)
    assert [timing.name for timing in read_timings(kitchen.folder)] == ["dough"]
    run_stages(kitchen.stages(), kitchen.folder)
    assert kitchen.ran == ["dough", "bread"]


def test_until_stops_after_the_named_stage(kitchen: Kitchen) -> None:
    run_stages(kitchen.stages(), kitchen.folder, until="dough")
    assert kitchen.ran == ["dough"]


def branched(
    kitchen: Kitchen, *, soup: int = 1, names: Sequence[str] = ("dough", "soup", "bread")
) -> tuple[Stage, ...]:
    """Dough, and bread of it; soup, which is made of neither."""
    dough, bread = kitchen.stages()
    pot = replace(
        dough,
        name="soup",
        commands=(Inner(line="make soup", config=Size(size=soup), work=lambda: kitchen.cook("soup")),),
        evidence=(kitchen.folder / "soup",),
        after=(),
    )
    every = {"dough": dough, "soup": pot, "bread": replace(bread, after=("dough",))}
    return tuple(every[name] for name in names)


def test_stages_that_do_not_build_on_one_another_leave_each_other_alone(kitchen: Kitchen) -> None:
    run_stages(branched(kitchen), kitchen.folder)
    run_stages(branched(kitchen, soup=2), kitchen.folder)
    assert kitchen.ran == ["dough", "soup", "bread", "soup"]
    (kitchen.folder / "dough").unlink()
    run_stages(branched(kitchen, soup=2), kitchen.folder)
    assert kitchen.ran[4:] == ["dough", "bread"]


def test_a_stage_that_is_not_wanted_this_time_stays_on_record_until_its_ground_has_changed(kitchen: Kitchen) -> None:
    run_stages(branched(kitchen), kitchen.folder)
    run_stages(branched(kitchen, names=("dough", "bread")), kitchen.folder)
    run_stages(branched(kitchen), kitchen.folder)
    assert kitchen.ran == ["dough", "soup", "bread"]
    (kitchen.folder / "dough").unlink()
    run_stages(branched(kitchen, names=("dough", "soup")), kitchen.folder)
    assert {timing.name for timing in read_timings(kitchen.folder)} == {"dough", "soup"}
    run_stages(branched(kitchen), kitchen.folder)
    assert kitchen.ran[3:] == ["dough", "bread"]


def test_an_output_may_be_named_by_a_pattern(kitchen: Kitchen) -> None:
    dough, _ = kitchen.stages()
    stage = replace(dough, evidence=(kitchen.folder / "do*gh",))
    run_stages((stage,), kitchen.folder)
    run_stages((stage,), kitchen.folder)
    assert kitchen.ran == ["dough"]


def test_a_torn_record_is_no_obstacle(kitchen: Kitchen) -> None:
    (kitchen.folder / "timings.json").write_text('{"steps": [{"na')
    run_stages(kitchen.stages(), kitchen.folder)
    assert kitchen.ran == ["dough", "bread"]
    assert len(json.loads((kitchen.folder / "timings.json").read_text())["steps"]) == 2


def test_a_stage_without_its_output_is_an_error(kitchen: Kitchen) -> None:
    hollow = Stage(
        name="hollow",
        step=1,
        title="Hollow",
        commands=(Inner(line="make nothing", config=Size(), work=lambda: None),),
        evidence=(kitchen.folder / "nothing",),
    )
    with pytest.raises(OstrakaError, match="is not there"):
        run_stages((hollow,), kitchen.folder)


def test_a_command_line_survives_the_shell() -> None:
    command = Command(verb="report", overrides=("run=my runs/demo", 'dataset=["a", "b"]'))
    assert command.line == """python -m jobs report 'run=my runs/demo' 'dataset=["a", "b"]'"""
    _, config = command.load()
    assert config.model_dump()["dataset"] == ("a", "b")


def test_peak_memory_sees_what_a_stretch_of_work_takes() -> None:
    before = resident_bytes()
    with PeakMemory() as memory:
        block = bytearray(b"x") * (160 << 20)
        time.sleep(0.7)
    assert len(block) == 160 << 20
    assert memory.peak_bytes - before > 120 << 20
