"""No golden case is passed over in silence: each is tested here, or named in pending.txt with what will bring the test."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def _harness() -> Any:
    """The loaded conftest of this folder (pytest imports it under a name of its own)."""
    path = str(HERE / "conftest.py")
    return next(module for module in list(sys.modules.values()) if getattr(module, "__file__", None) == path)


def _pending() -> dict[str, str]:
    lines = (HERE / "pending.txt").read_text(encoding="utf-8").splitlines()
    entries = [line.split(": ", 1) for line in lines if line and not line.startswith("#")]
    return {name: reason for name, reason in entries if reason}


def _tested_kinds() -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py")]
    return {kind for text in texts for kind in re.findall(r"""mark\.golden\(["']([^"']+)["']\)""", text)}


def _awaits(name: str, entry: str) -> bool:
    """Whether a pending line speaks of a case: of this very folder, or of the same one made with other numbers."""
    return name == entry or name.startswith(f"{entry}_")


def test_the_folder_of_cases_is_not_empty(golden_cases: list[Any]) -> None:
    assert golden_cases, f"no golden case below {_harness().golden_root()}; set OSTRAKA_GOLDEN to a folder of cases"


def test_every_case_is_tested_or_pending(golden_cases: list[Any]) -> None:
    kind_of, tested, pending = _harness().kind_of, _tested_kinds(), _pending()
    silent = [
        case.name
        for case in golden_cases
        if kind_of(case) not in tested and not any(_awaits(case.name, entry) for entry in pending)
    ]
    assert not silent, f"neither tested nor in pending.txt: {silent}"


def test_no_case_is_both_tested_and_pending(golden_cases: list[Any]) -> None:
    kind_of, tested, pending = _harness().kind_of, _tested_kinds(), _pending()
    stale = [case.name for case in golden_cases if kind_of(case) in tested and case.name in pending]
    assert not stale, f"tested by now, so take them out of pending.txt: {stale}"


def test_every_kind_that_the_harness_knows_has_a_test() -> None:
    assert set(_harness().KINDS) == _tested_kinds()


def test_every_pending_line_names_a_case(golden_cases: list[Any]) -> None:
    harness = _harness()
    if harness.golden_root() != harness.SHARED:
        return  # another selection of cases need not hold what is still to come
    missing = [entry for entry in _pending() if not any(_awaits(case.name, entry) for case in golden_cases)]
    assert not missing, f"pending.txt names cases that are not there: {missing}"


def test_the_committed_selection_stays_small_and_is_read_by_every_test_kind() -> None:
    harness = _harness()
    files = [path for path in harness.COMMITTED.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= 6 * 1024 * 1024
    kinds = {harness.kind_of(case) for case in harness.find_cases(harness.COMMITTED)}
    assert kinds == set(harness.KINDS)
