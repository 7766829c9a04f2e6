"""The command line as a person meets it: help, wrong words, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cli

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
    shown = capsys.readouterr().out
    assert "meaning" in shown
    assert cli.load_verb(name).HELP in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["shard"], "did you mean 'shards'"),
        (["shards", "--dryrun"], "unknown flag '--dryrun'"),
        (["shards", "sorce.kind=table"], "did you mean 'source'"),
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
