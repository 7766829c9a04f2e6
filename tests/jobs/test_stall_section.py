"""The stall report's sums: means weigh intervals by their steps, shares are of the step, and the verdict follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.report.curves import Curve
from jobs.report.findings import Run
from jobs.report.stall_section import mean_seconds, stall_section


def run(wait: float, *, workers: int = 2) -> Run:
    seconds = {
        "step": (0.1, 0.2),
        "wait": (wait, 2 * wait),
        "copy": (0.0, 0.0),
        "read": (0.01, 0.01),
        "decode": (0.05, 0.05),
    }
    curves = tuple(Curve(name=f"seconds/{name}", steps=(10, 40), values=values) for name, values in seconds.items())
    return Run(path=Path("runs/x"), config={"loader_workers": workers}, curves=curves)


def test_an_interval_of_more_steps_weighs_more() -> None:
    assert mean_seconds(run(0.0))["step"] == pytest.approx((10 * 0.1 + 30 * 0.2) / 40)


@pytest.mark.parametrize(("wait", "says"), [(0.001, "The data keep up"), (0.04, "most of which goes into: decode")])
def test_the_verdict_follows_the_share_of_waiting(wait: float, says: str) -> None:
    section = stall_section([run(wait)])
    assert section is not None
    assert says in section


def test_shares_of_loader_stages_are_of_the_loaders_own_time() -> None:
    section = stall_section([run(0.0, workers=2)])
    assert section is not None
    assert "one of 2 loader processes" in section
    assert f"{100 * 0.05 / (2 * 0.175):.1f} %" in section


def test_a_run_that_logged_no_seconds_has_no_section() -> None:
    assert stall_section([Run(path=Path("x"), config={}, curves=())]) is None
