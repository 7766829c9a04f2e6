"""The demo: its plan is commands that a person could type, and a small one runs the whole path and goes on after a stop."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import main
from jobs.config import load_config, read_preset
from jobs.demo.config import STAGES, TASKS, DemoConfig
from jobs.demo.run import plan_demo
from jobs.demo.stages import Command
from shards.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def commands(config: DemoConfig) -> list[Command]:
    return [command for stage in plan_demo(config) for command in stage.commands if isinstance(command, Command)]


def test_dry_run_prints_command_lines_that_the_front_door_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", f"output={tmp_path / 'demo'}", "--dry-run"]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("python -m jobs ")]
    assert [shlex.split(line)[3] for line in printed] == [
        "demo", "shards", "shards", "shards", "demo", "concepts", "train", "evaluate", "train", "evaluate", "report",
    ]  # fmt: skip
    for line, command in zip(
        [line for line in printed if " jobs demo " not in line],
        commands(DemoConfig(output=str(tmp_path / "demo"))),
        strict=True,
    ):
        words = shlex.split(line)[4:]
        preset = words.pop(0) if "=" not in words[0] else None
        verb, config = command.load()
        assert load_config(verb.Config, preset, words, verb=command.verb) == config
    assert list(tmp_path.iterdir()) == []


def test_the_commands_of_inner_steps_lead_up_to_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    assert main(["demo", f"output={folder}", "scale=0.01", "seed=3", "--dry-run"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "until=raw" in line)
    assert main(shlex.split(line)[3:]) == 0
    assert (folder / "raw" / "annotations" / "captions_test2017.json").is_file()
    assert not (folder / "data").exists()


def test_a_smaller_demo_trains_fewer_steps_and_a_larger_one_as_many() -> None:
    def steps(scale: float) -> list[int]:
        return [
            command.load()[1].model_dump()["steps"]
            for command in commands(DemoConfig(scale=scale))
            if command.verb == "train"
        ]

    presets = [read_preset(name, verb="train")["steps"] for name in ("vicha_small", "vicha_small_retrieval")]
    assert steps(1.0) == steps(2.0) == presets
    assert steps(0.1) == [max(10, round(count / 10)) for count in presets]


@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        ("tasks=all", TASKS),
        ("tasks=grounding vqa", ("vqa", "grounding")),
        ("tasks=[nlvr2]", ("nlvr2",)),
        ("tasks=", ()),
    ],
)
def test_tasks_are_named_by_words_in_any_order(words: str, tasks: tuple[str, ...]) -> None:
    assert load_config(DemoConfig, None, [words], verb="demo").tasks == tasks


def test_a_task_that_nobody_has_heard_of_is_refused_and_so_is_a_stage_of_one_that_is_not_wanted() -> None:
    with pytest.raises(ConfigError, match="tasks"):
        load_config(DemoConfig, None, ["tasks=vqa chess"], verb="demo")
    with pytest.raises(ConfigError, match="add tasks=nlvr2"):
        load_config(DemoConfig, None, ["tasks=vqa", "until=text_assignment"], verb="demo")


def test_every_task_adds_its_own_stages_and_none_builds_on_anothers() -> None:
    base = {stage.name for stage in plan_demo(DemoConfig())}
    every = plan_demo(DemoConfig(tasks=TASKS))
    assert [stage.name for stage in every if stage.name not in base] == [
        name for task in TASKS for name in STAGES[task]
    ]
    assert [stage.step for stage in every] == sorted(stage.step for stage in every)
    for task in TASKS:
        alone = {stage.name: stage for stage in plan_demo(DemoConfig(tasks=(task,)))}
        assert set(alone) == base | set(STAGES[task])
        for name in STAGES[task]:
            assert set(alone[name].after or ()) <= base | set(STAGES[task])


def test_no_command_of_a_task_trains_on_what_it_is_tested_on() -> None:
    for command in commands(DemoConfig(tasks=TASKS)):
        if command.verb == "train":
            (stream,) = command.load()[1].model_dump()["streams"].values()
            assert Path(stream["dataset"]).name == "train"
        if command.verb == "evaluate":
            assert Path(command.load()[1].model_dump()["dataset"]).name == "test"


def test_concepts_are_counted_on_training_captions_alone() -> None:
    found = [command for command in commands(DemoConfig(tasks=TASKS)) if command.verb == "concepts"]
    assert len(found) == 2
    for command in found:
        config = command.load()[1].model_dump()
        assert len(config["dataset"]) == 3
        assert config["vocabulary"]["datasets"] == (str(Path("runs", "demo", "data", "train")),)


def test_a_small_demo_runs_the_whole_path_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "jobs", "demo", "quick", "tasks=all", f"output={folder}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}

    def run() -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    first = run()
    for scored in ("R@1", "questions", "entailment", "statements", "things found"):
        assert f"{scored} " in first.stdout
    page = (folder / "report.html").read_text(encoding="utf-8")
    for heading in ("Retrieval", "Pictures, captions and concepts", "Training", "Rejects", "Time and memory"):
        assert f">{heading}</h2>" in page
    for reason in (
        "missing_media",
        "truncated_media",
        "not_media",
        "zero_size",
        "empty_text",
        "no_annotations",
        "duplicate_id",
    ):
        assert reason in page
    timings = json.loads((folder / "timings.json").read_text())["steps"]
    assert [step["name"] for step in timings] == [stage.name for stage in plan_demo(DemoConfig(tasks=TASKS))]
    assert all(step["peak_mib"] > 50 for step in timings)
    submission = json.loads((folder / "vqa_submission" / "submission.json").read_text())
    predictions = [json.loads(line) for line in (folder / "vqa_test" / "predictions.jsonl").open()]
    assert {row["question_id"]: row["answer"] for row in submission} == {
        int(row["id"]): row["predicted"] for row in predictions
    }
    assert json.loads((folder / "vqa_submission" / "scores.json").read_text())["metrics"] == {}
    metrics = {row["name"] for row in map(json.loads, (folder / "pretrain" / "metrics.jsonl").open())}
    assert {f"loss/{name}" for name in ("contrast", "hierarchy", "match", "masked_text", "masked_image")} <= metrics

    before = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("report.html", "timings.json")
    }
    second = run()
    assert second.stderr.count("done before") == len(timings) - 1
    after = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("report.html", "timings.json")
    }
    assert before == after
