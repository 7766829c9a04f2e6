"""What the concepts and the two further objectives bring: retrieval by the full method beside smaller ones, over several seeds.

    python -m benchmarks.ablation --train runs/demo/data/train --test runs/demo/data/test --output runs/ablation \\
        [--variants without_concepts …] [--preset vicha_small] [--steps N] [--seeds 0 1 2] [--equal steps|time] \\
        [--set dotted.key=value …]

Trains `all_objectives` (contrast, matching, masked language, hierarchical alignment, masked image, and concepts) from scratch, and
beside it each of `--variants`: `without_hierarchy`, `without_masked_image` and `without_concepts` lack one component,
`three_objectives` all of them. Each is evaluated zero-shot on `--test`, by cosine and re-ranked by the match head. Every run is a
process of its own, `python -m jobs train …` and `evaluate …`, one after another, the variants of a seed side by side. What has its
scores is not run again.

`--equal steps` gives all the same number of steps. `--equal time` gives a smaller one as many steps as fit into the seconds that
the full one trained for with the same seed, by the speed of a short pilot run; `seconds` then shows how equal they came out.

How to read the result: percentages; under each variant, `seeds` holds every run's steps, training seconds (without start-up and
evaluation) and scores, and `summary` the mean, the sample standard deviation and the range over seeds of each metric.
`differences` is all_objectives minus the variant within each seed, summed up likewise: where a range holds zero, the seeds do not
agree on which is better. Both datasets need a concepts sidecar. `--set` changes the preset of all variants; it may add streams.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any, Literal

import yaml

from jobs.config import apply_override, read_preset
from shards.config import digest
from shards.errors import ConfigError, OstrakaError
from shards.reader import open_dataset
from shards.sidecar import open_sidecar

Component = Literal["hierarchy", "masked_image", "concepts"]  # keys of `family`; null leaves one out
FULL = "all_objectives"
LEFT_OUT: Mapping[str, tuple[Component, ...]] = {
    FULL: (),
    "without_hierarchy": ("hierarchy",),
    "without_masked_image": ("masked_image",),
    "without_concepts": ("concepts",),
    "three_objectives": ("hierarchy", "masked_image", "concepts"),
}
PILOT_STEPS = 60
INTERVALS = 20  # logged per run, at least
ROOT = Path(__file__).resolve().parent.parent

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What is compared, on what, for how long."""

    train: Path
    test: Path
    output: Path
    preset: str
    steps: int
    seeds: tuple[int, ...]
    variants: tuple[str, ...]  # keys of LEFT_OUT, but the full method
    equal: Literal["steps", "time"]
    overrides: tuple[str, ...]

    def values(self) -> dict[str, Any]:
        """The preset with the overrides that all variants share."""
        data = read_preset(self.preset, verb="train")
        for override in self.overrides:
            apply_override(data, override)
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training with its scores."""

    steps: int
    seconds: float
    scores: Mapping[str, Metrics]  # "cosine" and "reranked"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="dataset to train on, with a concepts sidecar")
    parser.add_argument("--test", type=Path, required=True, help="dataset to evaluate on, with a concepts sidecar")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs; running again goes on there")
    parser.add_argument("--preset", default="vicha_small", help="preset of `train`, and of `evaluate`")
    parser.add_argument("--steps", type=int, help="steps of the full method; default: the preset's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    smaller = [name for name in LEFT_OUT if name != FULL]
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=smaller,
        default=smaller,
        help="what stands beside the full method; default: all",
    )
    parser.add_argument("--equal", choices=("steps", "time"), default="steps", help="what all variants get alike")
    parser.add_argument("--set", nargs="+", default=[], metavar="key=value", help="overrides of the preset, for all")
    options = parser.parse_args(arguments)
    try:
        ablation = Ablation(
            train=options.train.absolute(),
            test=options.test.absolute(),
            output=options.output.absolute(),
            preset=options.preset,
            steps=options.steps or _preset_steps(options.preset),
            seeds=tuple(options.seeds),
            variants=tuple(name for name in smaller if name in options.variants),
            equal=options.equal,
            overrides=tuple(options.set),
        )
        print(json.dumps(ablate(ablation), indent=1))
    except OstrakaError as error:
        parser.exit(1, f"error: {error}\n")
    except subprocess.CalledProcessError as error:
        parser.exit(1, f"error: `{' '.join(error.cmd[1:])}` failed; the same command goes on from there\n")
    return 0


def _preset_steps(preset: str) -> int:
    steps = read_preset(preset, verb="train").get("steps")
    if steps is None:
        raise ConfigError(f"preset {preset!r} counts epochs, not steps; give --steps")
    return int(steps)


def ablate(ablation: Ablation) -> dict[str, Any]:
    """Run all variants for every seed and sum up."""
    runs: dict[str, dict[int, Run]] = {variant: {} for variant in (FULL, *ablation.variants)}
    for seed in ablation.seeds:
        full = runs[FULL][seed] = _run(ablation, FULL, seed=seed, steps=ablation.steps)
        for variant in ablation.variants:
            steps = ablation.steps if ablation.equal == "steps" else _steps_within(ablation, variant, full.seconds)
            runs[variant][seed] = _run(ablation, variant, seed=seed, steps=steps)
    return {
        "claim": "zero-shot retrieval by all five objectives with concepts, beside the same without some of them",
        "preset": ablation.preset,
        "overrides": ablation.overrides,
        "equal": ablation.equal,
        "train": _described(ablation.train),
        "test": _described(ablation.test),
        "variants": {
            variant: {
                "seeds": {
                    str(seed): {"steps": run.steps, "seconds": round(run.seconds, 1), **run.scores}
                    for seed, run in by_seed.items()
                },
                "summary": _summary([run.scores for run in by_seed.values()]),
            }
            for variant, by_seed in runs.items()
        },
        "differences": {
            variant: _summary([_minus(runs[FULL][seed].scores, runs[variant][seed].scores) for seed in ablation.seeds])
            for variant in ablation.variants
        },
    }


def _run(ablation: Ablation, variant: str, *, seed: int, steps: int) -> Run:
    """Train and evaluate, or find the scores of an earlier call."""
    words = _training_words(ablation, variant, seed=seed, steps=steps)
    folder = ablation.output / f"{variant}-seed{seed}-{_identity(ablation, words)}"
    scores = folder / "test" / "scores.json"
    if not scores.is_file():
        _train(ablation, words, folder)
        _jobs(
            "evaluate",
            ablation.preset,
            f"checkpoint={folder}",
            f"dataset={ablation.test}",
            f"output={scores.parent}",
        )
    found = json.loads(scores.read_text(encoding="utf-8"))
    return Run(
        steps=steps,
        seconds=sum(seconds for _, seconds in _intervals(folder)),
        scores={"cosine": _rounded(found["cosine"]), "reranked": _rounded(found["metrics"])},
    )


def _steps_within(ablation: Ablation, variant: str, seconds: float) -> int:
    """How many steps of a smaller variant fit into some seconds, by the median speed of a pilot run."""
    steps = min(PILOT_STEPS, ablation.steps)
    words = _training_words(ablation, variant, seed=ablation.seeds[0], steps=steps)
    folder = ablation.output / f"pilot-{_identity(ablation, words)}"
    _train(ablation, words, folder)
    step_s = median(spent / done for done, spent in _intervals(folder))
    return max(1, int(seconds / step_s))


def _training_words(ablation: Ablation, variant: str, *, seed: int, steps: int) -> tuple[str, ...]:
    """The overrides that say what a run is, wherever its files lie."""
    values = ablation.values()
    missing = [f"family.{component}=null" for component in LEFT_OUT[variant]]
    if "concepts" in LEFT_OUT[variant]:
        missing += [f"streams.{name}.concepts=null" for name in values["streams"]]
    words = [*ablation.overrides, *missing, f"seed={seed}", f"steps={steps}"]
    # As in a small demo: a short run still warms up, for the same share of its steps, and logs a curve.
    words.append(f"log_every={max(1, min(values.get('log_every', steps), steps // INTERVALS))}")
    warmup, preset_steps = values.get("schedule", {}).get("warmup_steps"), values.get("steps", steps)
    if warmup is not None and steps < preset_steps:
        words.append(f"schedule.warmup_steps={round(warmup * steps / preset_steps)}")
    return tuple(words)


def _identity(ablation: Ablation, words: Sequence[str]) -> str:
    """Name everything that the scores depend on, so that no other comparison's scores are taken for them."""
    values = ablation.values()
    (stream,) = read_preset(ablation.preset, verb="train")["streams"]
    column = values["streams"][stream].get("concepts")
    if column is None:
        raise ConfigError(f"preset {ablation.preset!r} trains without concepts; set streams.{stream}.concepts=concepts")
    datasets = [open_dataset(ablation.train), open_dataset(ablation.test)]
    return digest(
        {
            "preset": read_preset(ablation.preset, verb="train"),
            "evaluate": read_preset(ablation.preset, verb="evaluate"),
            "words": list(words),
            "data": [[dataset.digest, open_sidecar(dataset, column).folder] for dataset in datasets],
        }
    )[:8]


def _train(ablation: Ablation, words: Sequence[str], folder: Path) -> None:
    (stream,) = read_preset(ablation.preset, verb="train")["streams"]
    _jobs("train", ablation.preset, f"streams.{stream}.dataset={ablation.train}", *words, f"output={folder}")


def _jobs(verb: str, *words: str) -> None:
    """Run one command as a person would type it; its output goes to standard error, where no JSON is."""
    subprocess.run([sys.executable, "-m", "jobs", verb, *words], cwd=ROOT, stdout=sys.stderr, check=True)


def _intervals(folder: Path) -> list[tuple[int, float]]:
    """Steps and seconds of every logged interval of a run, from its own measurements."""
    batch_size = int(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["batch_size"])
    intervals: list[tuple[int, float]] = []
    before = 0
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["name"] == "images_per_s":
            steps = row["step"] - before
            intervals.append((steps, steps * batch_size / row["value"]))
            before = row["step"]
    return intervals


def _summary(scores: Sequence[Mapping[str, Metrics]]) -> dict[str, dict[str, Metrics]]:
    """Mean and spread of each metric over seeds."""
    return {
        ranking: {metric: _spread([each[ranking][metric] for each in scores]) for metric in scores[0][ranking]}
        for ranking in scores[0]
    }


def _spread(values: Sequence[float]) -> Metrics:
    spread = {"mean": fmean(values), "sd": stdev(values) if len(values) > 1 else 0.0}
    return _rounded({**spread, "min": min(values), "max": max(values)})


def _rounded(values: Mapping[str, float]) -> Metrics:
    return {name: round(value, 2) for name, value in values.items()}


def _minus(left: Mapping[str, Metrics], right: Mapping[str, Metrics]) -> dict[str, Metrics]:
    return {
        ranking: {metric: value - right[ranking][metric] for metric, value in metrics.items()}
        for ranking, metrics in left.items()
    }


def _described(path: Path) -> dict[str, Any]:
    card = open_dataset(path).card
    return {"name": f"{card.name}-{card.split}", "records": card.records, "digest": card.manifest_digest}


if __name__ == "__main__":
    sys.exit(main())
