"""What `benchmarks.ablation` measured, as a part of a page: the full method beside a smaller one, over several seeds."""

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
VARIANTS: Mapping[str, str] = {
    "all_objectives": "All five objectives, with concepts",
    "three_objectives": "Contrast, matching, masked language",
}


def read_ablation(path: str) -> Mapping[str, Any]:
    """Read what the benchmark printed. Raises `InputError` for anything else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        measured: Mapping[str, Any] = {
            "variants": {name: content["variants"][name] for name in VARIANTS},
            "difference": content["difference"],
            **{key: content[key] for key in ("equal", "train", "test", "preset")},
        }
    except OSError as error:
        raise InputError(f"ablation: {path} cannot be read ({error.strerror or error}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"ablation: {path} is not what `python -m benchmarks.ablation` prints ({error})") from error
    return measured


def ablation_section(measured: Mapping[str, Any]) -> Markup:
    """One table: mean and range over seeds of either variant, and of the difference within a seed."""
    head = ("", *(f"{metric}, {score}" for score in SCORES.values() for metric in METRICS.values()))
    rows = [
        (
            name,
            *(
                _spread(measured["variants"][variant]["summary"][score][metric])
                for score in SCORES
                for metric in METRICS
            ),
        )
        for variant, name in VARIANTS.items()
    ]
    differences = [measured["difference"][score][metric] for score in SCORES for metric in METRICS]
    rows.append(("Difference within a seed", *(_spread(difference, sign=True) for difference in differences)))
    seeds = measured["variants"]["all_objectives"]["seeds"]
    steps = sorted({run["steps"] for variant in VARIANTS for run in measured["variants"][variant]["seeds"].values()})
    return tag(
        "section",
        tag("h2", "What the further objectives bring"),
        tag(
            "p",
            f"Zero-shot recall in percent, mean [least to most] over {len(seeds)} seeds, equal {measured['equal']} "
            f"({', '.join(f'{count:,}' for count in steps)} steps of {measured['preset']}), on {measured['test']['records']:,} "
            f"pictures. {_verdict(differences)} Measured by benchmarks.ablation, not in this run.",
            class_="lead",
        ),
        table(head, rows, label="Ablation", class_="numbers"),
        id="ablation",
    )


def _spread(summary: Mapping[str, float], *, sign: bool = False) -> str:
    form = "+.1f" if sign else ".1f"
    return f"{summary['mean']:{form}} [{summary['min']:{form}} to {summary['max']:{form}}]"


def _verdict(differences: list[Mapping[str, float]]) -> str:
    if all(difference["min"] > 0 for difference in differences):
        return "Every seed is better with all of them."
    if all(difference["max"] < 0 for difference in differences):
        return "Every seed is worse with all of them: in so short a training they do not pay."
    return "The seeds disagree on which is better: in so short a training the further objectives show no clear gain."
