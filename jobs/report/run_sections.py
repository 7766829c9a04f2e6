"""The part of a page that tells of training: loss curves, recall against chance, retrievals as pictures, timings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobs.report.curves import draw_curve
from jobs.report.findings import Direction, Evaluation, Retrieval, Run, TimedStep
from jobs.report.markup import Markup, table, tag
from jobs.report.pictures import Locator

CURVE_NAMES: Mapping[str, str] = {
    "loss": "All objectives, weighted",
    "loss/contrast": "Contrast",
    "loss/hierarchy": "Hierarchical alignment",
    "loss/match": "Matching",
    "loss/masked_text": "Masked language",
    "loss/masked_image": "Masked image",
}
DIRECTIONS: Mapping[Direction, str] = {"text_to_image": "Text → image", "image_to_text": "Image → text"}
DEPTHS = (1, 5, 10)
SHOWN = 4  # retrieved pictures per query, beside the true one


def curves_section(runs: Sequence[Run]) -> Markup:
    """One small chart per objective and run."""
    parts: list[Markup] = []
    for run in runs:
        losses = sorted(
            (curve for curve in run.curves if curve.name == "loss" or curve.name.startswith("loss/")),
            key=lambda curve: list(CURVE_NAMES).index(curve.name) if curve.name in CURVE_NAMES else len(CURVE_NAMES),
        )
        drawn = [
            draw_curve(
                curve,
                label=CURVE_NAMES.get(curve.name, curve.name.removeprefix("loss/").replace("_", " ").capitalize()),
            )
            for curve in losses
        ]
        parts += [
            tag("h3", run.title),
            tag("p", _run_facts(run), class_="quiet"),
            tag("div", *drawn, class_="curves") if drawn else tag("p", "No loss was logged yet.", class_="quiet"),
        ]
    return tag(
        "section",
        tag("h2", "Training"),
        tag(
            "p",
            "Faint: means over a logging interval. Strong: smoothed. The figures are the smoothed first and last values.",
            class_="lead",
        ),
        *parts,
        id="training",
    )


def recall_section(evaluations: Sequence[Evaluation]) -> Markup:
    """Recall of every evaluation against chance, one table per direction."""
    tables = []
    for direction, name in DIRECTIONS.items():
        rows: list[tuple[str | Markup, ...]] = [
            ("Chance", *_recalls(evaluations[0].chance, direction, class_="bar chance"))
        ]
        for evaluation in evaluations:
            if evaluation.cosine:
                rows.append((f"{evaluation.title}, cosine", *_recalls(evaluation.cosine, direction)))
            title = f"{evaluation.title}, re-ranked" if evaluation.cosine else evaluation.title
            rows.append((title, *_recalls(evaluation.metrics, direction)))
        tables.append(
            tag(
                "div",
                tag("h3", name),
                table(("", *(f"R@{depth}" for depth in DEPTHS)), rows, label=f"Recall, {name}", class_="numbers"),
            )
        )
    facts = evaluations[-1].facts
    return tag(
        "section",
        tag("h2", "Retrieval"),
        tag(
            "p",
            f"Share of queries, in percent, whose true answer is among the first 1, 5 or 10 of "
            f"{facts.get('images', '?')} pictures or {facts.get('texts', '?')} captions.",
            class_="lead",
        ),
        tag("div", *tables, class_="pair"),
        id="retrieval",
    )


def retrievals_section(evaluation: Evaluation, locator: Locator, *, count: int) -> Markup | None:
    """The best and the worst text queries, as pictures."""
    best, worst = choose_retrievals(list(evaluation.retrievals("text_to_image")), count)
    if not best and not worst:
        return None
    parts = [tag("h3", _counted(best, "best"))] if best else []
    parts += [tag("div", *(_shelf(retrieval, locator) for retrieval in best), class_="shelves")] if best else []
    if worst:
        parts += [
            tag("h3", _counted(worst, "worst")),
            tag("div", *(_shelf(retrieval, locator) for retrieval in worst), class_="shelves"),
        ]
    return tag(
        "section",
        tag("h2", "Retrievals, best and worst"),
        tag(
            "p",
            f"Captions as queries, {evaluation.title.lower()}. Left the picture that the caption was written for, then the "
            f"first {SHOWN} of {evaluation.facts.get('images', 'all')} pictures with their scores. Best: right with the widest "
            "lead. Worst: the true picture ranked lowest.",
            class_="lead",
        ),
        *parts,
        id="retrievals",
    )


def _counted(retrievals: Sequence[Retrieval], which: str) -> str:
    return f"The {which}" if len(retrievals) == 1 else f"The {len(retrievals)} {which}"


def choose_retrievals(retrievals: Sequence[Retrieval], count: int) -> tuple[list[Retrieval], list[Retrieval]]:
    """The `count` clearest right answers and the `count` queries whose truth ranks lowest, each picture at most once."""
    right = sorted((r for r in retrievals if r.rank == 0), key=lambda r: (-r.margin, r.query_text or "", r.truth))
    wrong = sorted((r for r in retrievals if r.rank > 0), key=lambda r: (-r.rank, r.query_text or "", r.truth))
    return _one_per_picture(right, count), _one_per_picture(wrong, count)


def timings_section(timings: Sequence[TimedStep]) -> Markup:
    """What each step took; the commands that run the steps alone are folded away."""
    slowest = max(step.seconds for step in timings)
    rows = [
        (
            step.title,
            _bar(f"{step.seconds:,.1f} s", 100 * step.seconds / slowest if slowest else 0.0),
            f"{step.peak_mib:,.0f} MiB",
        )
        for step in timings
    ]
    commands = "\n\n".join(f"# {step.title}\n{step.command}" for step in timings)
    total = sum(step.seconds for step in timings)
    return tag(
        "section",
        tag("h2", "Time and memory"),
        tag("p", f"{total:,.0f} s in all. Memory is the peak of all processes together.", class_="lead"),
        table(("step", "time", "peak memory"), rows, label="Steps", class_="stack timings"),
        tag("details", tag("summary", "The same steps as commands"), tag("pre", commands, tabindex=0)),
        id="timings",
    )


def _one_per_picture(retrievals: Sequence[Retrieval], count: int) -> list[Retrieval]:
    chosen: dict[tuple[str, ...], Retrieval] = {}
    for retrieval in retrievals:
        if len(chosen) == count:
            break
        chosen.setdefault(retrieval.truth, retrieval)
    return list(chosen.values())


def _shelf(retrieval: Retrieval, locator: Locator) -> Markup:
    place = f"rank {retrieval.rank + 1}"
    truth = retrieval.truth[0]
    found = [
        tag(
            "li",
            locator.exhibit(key).picture(),
            tag("span", f"{'✓' if key in retrieval.truth else f'{number}.'} {score:.2f}"),
            class_="true" if key in retrieval.truth else None,
        )
        for number, (key, score) in enumerate(retrieval.ranked[:SHOWN], start=1)
    ]
    return tag(
        "article",
        tag("p", retrieval.query_text or retrieval.query_key, class_="query"),
        tag(
            "ol",
            tag("li", locator.exhibit(truth).picture(), tag("span", place), class_="truth"),
            *found,
        ),
        class_="shelf right" if retrieval.rank == 0 else "shelf wrong",
    )


def _recalls(metrics: Mapping[str, float], direction: Direction, *, class_: str = "bar") -> list[Markup]:
    values = [metrics.get(f"{direction}_r{depth}") for depth in DEPTHS]
    return [_bar(_percent(value), value or 0.0, class_=class_) for value in values]


def _bar(text: str, share: float, *, class_: str = "bar") -> Markup:
    return tag("span", text, class_=class_, style=f"--share:{min(100.0, max(0.0, share)):.1f}%")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _run_facts(run: Run) -> str:
    last = max((curve.steps[-1] for curve in run.curves), default=0)
    config = run.config
    facts = [f"{last:,} steps"]
    facts += [f"batch {config['batch_size']}"] if "batch_size" in config else []
    facts += [f"from {config['init']}"] if config.get("init") else []
    facts += [f"seed {config['seed']}"] if "seed" in config else []
    rates = [curve for curve in run.curves if curve.name == "images_per_s"]
    facts += [f"{rates[0].final:,.0f} images/s"] if rates else []
    return " · ".join(facts)
