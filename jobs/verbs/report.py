"""`python -m jobs report`: one self-contained HTML page about datasets, runs or a whole demo."""

from __future__ import annotations

from jobs.report.page import ReportConfig, write_report

HELP = "a self-contained HTML page of a dataset or a run: records to look at and listen to, measures, rejects, curves, scores"
Config = ReportConfig


def run(config: ReportConfig, *, dry_run: bool) -> int:
    """Write the page and print where it is."""
    if not dry_run:
        print(write_report(config))
    return 0
