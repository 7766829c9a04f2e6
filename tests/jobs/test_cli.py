"""The command line as a person meets it: help, wrong words, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli
from jobs.config import describe_keys

ROOT = Path(__file__).parent.parent.parent


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_help_lists_every_verb_with_its_line() -> None:
    shown = run("--help")
    assert shown.returncode == cli.DONE
    for name in cli.verb_names():
        assert name in shown.stdout


def test_no_verb_is_wrong_usage_and_still_shows_the_verbs() -> None:
    shown = run()
    assert shown.returncode == cli.WRONG_USAGE
    assert "shards" in shown.stdout


@pytest.mark.parametrize("name", cli.verb_names())
def test_every_verb_explains_its_keys(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == cli.DONE
    shown = " ".join(capsys.readouterr().out.split())
    verb = cli.load_verb(name)
    assert verb.HELP in shown
    for key, default, meaning in describe_keys(verb.Config):
        assert meaning, f"{key} says nothing"
        assert f"{key} {default}" in shown


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["shard"], "did you mean 'shards'"),
        (["shards", "--dryrun"], "unknown flag '--dryrun'"),
        (["shards", "sorce.kind=table"], "did you mean 'source'"),
        (["shards", "--output=data/x"], "keys are written without dashes, output=data/x"),
        (["shards", "output", "data/x"], "'output' is a key of 'shards': write output=…"),
        (["shards", "--help", "source.kind=tabel"], "did you mean 'table'"),
        (["verify", "data/x"], "'verify' has no presets"),
        (["train", "no_such_preset"], "no preset 'no_such_preset'"),
    ],
)
def test_wrong_words_exit_2_with_one_sentence(words: list[str], part: str) -> None:
    shown = run(*words)
    assert shown.returncode == cli.WRONG_USAGE
    assert part in shown.stderr
    assert "Traceback" not in shown.stderr


def test_listing_the_verbs_imports_no_heavy_library() -> None:
    code = (
        "import sys; from jobs.cli import main; main(['--help']); "
        "print(sorted({'torch', 'ray', 'spacy', 'transformers', 'pyarrow'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stdout.rstrip().endswith("[]")


def test_an_interruption_while_the_command_is_being_loaded_ends_without_a_traceback() -> None:
    code = (
        "import runpy, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'jobs.cli':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "sys.argv = ['jobs', 'shards']\n"
        "runpy.run_module('jobs', run_name='__main__')\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.returncode == cli.INTERRUPTED
    assert not shown.stderr


def test_help_explains_the_keys_of_the_kinds_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["shards", "source.kind=table", "transforms=[clean_text, {kind: resize_image, bound: 640}]", "--help"]
    assert cli.main(words) == cli.DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "source.columns.caption unset One caption" in shown
    assert "transforms.0.unescape_html false" in shown
    assert "transforms.1.bound 640" in shown


def test_help_names_the_kinds_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["annotate", "--help"]) == cli.DONE
    shown = " ".join(capsys.readouterr().out.split())
    kinds = {path.stem for path in (ROOT / "pipelines" / "sources").glob("[!_]*.py")}
    assert kinds <= set(shown.partition("kinds of `source`: ")[2].partition("`")[0].replace(",", "").split())


def test_help_on_a_preset_shows_what_it_sets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "vicha_small", "steps=7", "--help"]) == cli.DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "steps 7 optimiser steps" in shown
    assert "tokenizer.train_size 4000" in shown
    assert "family.image_size 64" in shown


@pytest.mark.parametrize(("width", "head"), [("60", False), ("140", True)])
def test_help_is_a_table_where_there_is_room_for_one(
    width: str, head: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert cli.main(["concepts", "--help"]) == cli.DONE
    shown = capsys.readouterr().out
    assert ("meaning" in shown.partition("executor")[0]) is head
    assert "vocabulary.count_from_zero" in shown
