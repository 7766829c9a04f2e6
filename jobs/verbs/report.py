"""`python -m jobs report`: one self-contained HTML page about datasets, runs or a whole demo."""

from __future__ import annotations

from jobs.report.page import ReportConfig, plan_report, write_report

HELP = "a self-contained HTML page of a dataset or a run: records to look at and listen to, measures, rejects, curves, scores"
Config = ReportConfig


def run(config: ReportConfig, *, dry_run: bool) -> int:
    """Write the page and print where it is, or what it would tell of."""
    print(plan_report(config) if dry_run else write_report(config))
    return 0
