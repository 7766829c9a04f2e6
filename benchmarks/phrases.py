"""How right and how fast each way of finding nouns is: precision and recall on hand-labelled captions, captions per second of CPU.

    python -m benchmarks.phrases tagger=FOLDER treebank=FILE captions=FILE

`tagger` is a trained spaCy pipeline to compare the built-in rules with (repeat it for several); `treebank` a CoNLL-U file that a
pipeline is trained on first, by `benchmarks.treebank_tagger` (`steps=` of it); `captions` any caption file for the speeds, which
default to the labelled ones over and over. `two_workers` tells how much two processes do in the time of one. TextBlob's pattern
tagger, whose lexicon comes with its wheel, takes part where it is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.rounds import spread
from benchmarks.treebank_tagger import STEPS, accuracy, read_treebank, split, train_tagger
from concepts.captions import read_captions
from concepts.lexicon import Guess
from concepts.patterns import find_phrases
from concepts.phrases import RULES, PhraseConfig, PhraseExtractor

LABELLED = Path(__file__).parent.parent / "tests" / "concepts" / "head_nouns.tsv"
TIMED = 10_000  # captions of one timing
ROUNDS = 3
REPEATS = 4  # of the captions in each worker, so that handing them over counts little
Finder = Callable[[Sequence[str]], list[list[str]]]


def read_labelled(path: Path = LABELLED) -> list[tuple[str, tuple[str, ...]]]:
    """Read captions with the heads of their noun phrases."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = (line.split("\t") for line in lines)
    return [(caption, tuple(nouns.split())) for _, caption, nouns in rows]


def precision_and_recall(found: Sequence[Sequence[str]], labelled: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Shares of the found nouns that are labelled, and of the labelled ones that are found; a repeat counts as often as it is."""
    right = sum((Counter(one) & Counter(other)).total() for one, other in zip(found, labelled, strict=True))
    return right / max(1, sum(map(len, found))), right / max(1, sum(map(len, labelled)))


def measure_quality(finder: Finder) -> dict[str, Any]:
    """Precision, recall and their harmonic mean on the labelled captions, and what went wrong."""
    labelled = read_labelled()
    found = finder([caption for caption, _ in labelled])
    precision, recall = precision_and_recall(found, [nouns for _, nouns in labelled])
    pairs = [(Counter(mine), Counter(theirs)) for mine, (_, theirs) in zip(found, labelled, strict=True)]
    return {
        "captions": len(labelled),
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(2 * precision * recall / max(1e-9, precision + recall), 3),
        "wrong": sorted(word for mine, theirs in pairs for word in (mine - theirs).elements()),
        "missed": sorted(word for mine, theirs in pairs for word in (theirs - mine).elements()),
    }


def measure_speed(finder: Finder, captions: Sequence[str]) -> dict[str, float]:
    """Captions per second of this process's CPU time."""
    finder(captions[:200])
    speeds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        finder(captions)
        speeds.append(len(captions) / (time.process_time() - started))
    return spread(speeds)


def measure_two_workers(tagger: str, captions: Sequence[str]) -> dict[str, Any]:
    """How much two processes find in the time of one; both waited for, start-up left out."""
    halves = [list(captions), list(captions)]
    ratios = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_find_all, [tagger] * 4, [list(captions[:50])] * 4))
        for _ in range(ROUNDS):
            started = time.perf_counter()
            pool.submit(_find_all, tagger, halves[0]).result()
            alone = time.perf_counter() - started
            started = time.perf_counter()
            list(pool.map(_find_all, [tagger] * 2, halves))
            ratios.append(2 * alone / (time.perf_counter() - started))
    return {"speedup": spread(ratios), "load_average": os.getloadavg()[0], "processors": os.cpu_count()}


_extractors: dict[str, PhraseExtractor] = {}


def _find_all(tagger: str, captions: Sequence[str]) -> int:
    if tagger not in _extractors:
        _extractors[tagger] = PhraseExtractor(PhraseConfig(tagger=tagger))
    return sum(len(found) for _ in range(REPEATS) for found in _extractors[tagger].nouns(captions))


def train_on(treebanks: Sequence[Path], folder: Path, *, steps: int) -> tuple[str, dict[str, Any]]:
    """Train a pipeline into a folder; its path, and how right it is on what was held out."""
    started = time.process_time()
    learned, held = split([doc for path in treebanks for doc in read_treebank(path)])
    nlp = train_tagger(learned, steps=steps)
    told = {"trained_on": len(learned), "accuracy_on_held_out": round(accuracy(nlp, held), 4)}
    nlp.meta["name"] = "treebank"
    nlp.to_disk(folder)
    return str(folder), {**told, "training_cpu_s": round(time.process_time() - started, 1)}


def textblob_finder() -> Finder | None:
    """The nouns by the Penn tags of TextBlob's pattern tagger; None where it is not installed."""
    try:
        tag = import_module("textblob.en").tag
    except ImportError:
        return None

    def classes(tagged: Sequence[tuple[str, str]]) -> list[Guess]:
        return ["noun" if name.startswith("NN") else "other" for _, name in tagged]

    def find(texts: Sequence[str]) -> list[list[str]]:
        found = []
        for text in texts:
            tagged = [(word.lower(), name) for word, name in tag(text)]
            found.append(find_phrases([word for word, _ in tagged], classes(tagged), ("noun",)))
        return found

    return find


def main() -> None:
    """Measure every tagger at hand; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "settings", nargs="*", help="tagger=FOLDER treebank=FILE (repeat them for several), captions=FILE"
    )
    settings = [re.split("=", each, maxsplit=1) for each in parser.parse_args().settings]
    steps = int(dict(settings).get("steps", STEPS))
    files = [Path(value) for key, value in settings if key == "captions"]
    texts = [text for file in files for text in read_captions(file)] or [caption for caption, _ in read_labelled()]
    captions = (texts * (TIMED // len(texts) + 1))[:TIMED]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        taggers: list[tuple[str, dict[str, Any]]] = [
            (RULES, {}),
            *((value, {}) for key, value in settings if key == "tagger"),
        ]
        treebanks = [Path(value) for key, value in settings if key == "treebank"]
        if treebanks:
            taggers.append(train_on(treebanks, Path(folder), steps=steps))
        for tagger, told in taggers:
            extractor = PhraseExtractor(PhraseConfig(tagger=tagger))
            every = PhraseExtractor(PhraseConfig(tagger=tagger, kinds=("noun", "attribute", "relation")))
            result[extractor.name] = {
                **told,
                **measure_quality(extractor.nouns),
                "captions_per_cpu_s": measure_speed(extractor.nouns, captions),
                "captions_per_cpu_s_with_attributes_and_relations": measure_speed(every.phrases, captions),
                "two_workers": measure_two_workers(tagger, captions),
            }
    blob = textblob_finder()
    if blob is not None:
        result["textblob"] = {**measure_quality(blob), "captions_per_cpu_s": measure_speed(blob, captions[:2000])}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
