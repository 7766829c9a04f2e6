"""Where the time of training went: is a run bound by its data or by its model, and which part of the loader is slow?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.report.findings import Run
from jobs.report.markup import Markup, table, tag

PREFIX = "seconds/"
LOADER_STAGES: Mapping[str, str] = {
    "read": "Read and check records",
    "decode": "Decode",
    "augment": "Crop, resize, augment",
    "collate": "Tokenise, mask, collate",
}
DATA_BOUND = 0.05  # share of a step spent waiting from which on a run is called bound by its data


def stall_section(runs: Sequence[Run]) -> Markup | None:
    """One table per run, means over its steps; nothing where no run has logged its seconds."""
    parts: list[Markup] = []
    for run in runs:
        seconds = mean_seconds(run)
        if "step" in seconds:
            workers = int(run.config.get("loader_workers") or 0)
            parts += [tag("h3", run.title), tag("p", _verdict(seconds), class_="quiet"), _table(seconds, workers)]
    if not parts:
        return None
    lead = (
        "Milliseconds per step, over all logged steps. The upper three add up to the step; the stages below are what loader "
        "processes spent to make one step, beside the training."
    )
    return tag("section", tag("h2", "Where the time goes"), tag("p", lead, class_="lead"), *parts, id="stalls")


def mean_seconds(run: Run) -> dict[str, float]:
    """Seconds per step by name, weighing each logged interval by its steps."""
    means: dict[str, float] = {}
    for curve in run.curves:
        if curve.name.startswith(PREFIX) and curve.values:
            widths = [now - before for before, now in zip((0, *curve.steps[:-1]), curve.steps, strict=True)]
            weighted = (value * width for value, width in zip(curve.values, widths, strict=True))
            means[curve.name.removeprefix(PREFIX)] = sum(weighted) / max(sum(widths), 1)
    return means


def _table(seconds: Mapping[str, float], workers: int) -> Markup:
    step = max(seconds["step"], 1e-12)
    wait, copy = seconds.get("wait", 0.0), seconds.get("copy", 0.0)
    rows: list[tuple[str, ...]] = [
        ("Forward, backward, update", *_cells(max(step - wait - copy, 0.0), step)),
        ("Wait for data", *_cells(wait, step)),
        ("Hand over to the device", *_cells(copy, step)),
    ]
    share = f"one of {workers} loader processes" if workers > 1 else "the loader"
    rows += [
        (f"{name} ({share})" if stage == "read" else name, *_cells(seconds[stage], step * max(workers, 1)))
        for stage, name in LOADER_STAGES.items()
        if stage in seconds
    ]
    return table(("", "ms per step", "share of its time"), rows, label="Time per step", class_="numbers few")


def _cells(seconds: float, whole: float) -> tuple[str, str]:
    return f"{1000 * seconds:,.1f}", f"{100 * seconds / whole:.1f} %"


def _verdict(seconds: Mapping[str, float]) -> str:
    share = seconds.get("wait", 0.0) / max(seconds["step"], 1e-12)
    if share <= DATA_BOUND:
        return f"The data keep up: {100 * share:.1f} % of the time is spent waiting for them."
    slowest = max(LOADER_STAGES, key=lambda stage: seconds.get(stage, 0.0))
    return (
        f"{100 * share:.1f} % of the time is spent waiting for data, most of which goes into: {LOADER_STAGES[slowest].lower()}; "
        "more loader_workers help where processors are idle."
    )
