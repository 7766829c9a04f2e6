"""What `benchmarks.ablation` measured, as a part of a page: the full method beside smaller ones, over several seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.report.markup import Markup, table, tag
from shards.errors import InputError

METRICS: Mapping[str, str] = {
    "text_to_image_r1": "Text → image R@1",
    "image_to_text_r1": "Image → text R@1",
    "r_mean": "Mean of all recalls",
}
SCORES: Mapping[str, str] = {"cosine": "cosine", "reranked": "re-ranked by the match head"}
FULL = "all_objectives"
VARIANTS: Mapping[str, str] = {
    FULL: "All five objectives, with concepts",
    "without_hierarchy": "Without hierarchical alignment",
    "without_masked_image": "Without masked image modeling",
    "without_concepts": "Without concepts",
    "three_objectives": "Contrast, matching, masked language",
}


def read_ablation(path: str) -> Mapping[str, Any]:
    """Read what the benchmark printed. Raises `InputError` for anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        smaller = [name for name in VARIANTS if name != FULL and name in content["variants"]]
        measured: Mapping[str, Any] = {
            "variants": {name: content["variants"][name] for name in (FULL, *smaller)},
            "differences": {name: content["differences"][name] for name in smaller},
            **{key: content[key] for key in ("equal", "train", "test", "preset")},
        }
    except OSError as error:
        raise InputError(f"ablation: {path} cannot be read ({error.strerror or error}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"ablation: {path} is not what `python -m benchmarks.ablation` prints ({error})") from error
    return measured


def ablation_section(measured: Mapping[str, Any]) -> Markup:
    """One table: mean and range over seeds of each variant, and of what the full method gains on it within a seed."""
    variants: Mapping[str, Any] = measured["variants"]
    columns = [(score, metric) for score in SCORES for metric in METRICS]
    head = ("", *(f"{METRICS[metric]}, {SCORES[score]}" for score, metric in columns))
    rows = [
        (VARIANTS[name], *(_spread(variant["summary"][score][metric]) for score, metric in columns))
        for name, variant in variants.items()
    ]
    differences = {
        name: [measured["differences"][name][score][metric] for score, metric in columns]
        for name in variants
        if name != FULL
    }
    rows += [
        (f"All, less: {VARIANTS[name].lower()}", *(_spread(difference, sign=True) for difference in each))
        for name, each in differences.items()
    ]
    seeds = variants[FULL]["seeds"]
    steps = sorted({run["steps"] for variant in variants.values() for run in variant["seeds"].values()})
    return tag(
        "section",
        tag("h2", "What the further objectives bring"),
        tag(
            "p",
            f"Zero-shot recall in percent, mean [least to most] over {len(seeds)} seeds, equal {measured['equal']} "
            f"({', '.join(f'{count:,}' for count in steps)} steps of {measured['preset']}), on {measured['test']['records']:,} "
            f"pictures; differences are within a seed. Measured by benchmarks.ablation, not in this run.",
            class_="lead",
        ),
        tag("ul", *(tag("li", f"{VARIANTS[name]}: {_verdict(each)}") for name, each in differences.items())),
        table(head, rows, label="Ablation", class_="numbers stack spreads"),
        id="ablation",
    )


def _spread(summary: Mapping[str, float], *, sign: bool = False) -> Markup:
    mean, least, most = (
        f"{summary[name]:{'+.1f' if sign else '.1f'}}".replace("-", "−") for name in ("mean", "min", "max")
    )
    return tag("span", mean, " ", tag("span", f"[{least} to {most}]", class_="range"))


def _verdict(differences: list[Mapping[str, float]]) -> str:
    if all(difference["min"] > 0 for difference in differences):
        return "every seed is worse than with all, by every score."
    if all(difference["max"] < 0 for difference in differences):
        return "every seed is better than with all, by every score: in so short a training it does not pay."
    return "the seeds or scores disagree on which is better: in so short a training no clear gain."
