"""Where a run's vocabulary comes from: earlier runs, lists of names, or the texts of datasets and files, counted by workers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from concepts.captions import caption_files, read_captions
from concepts.name_lists import read_names
from concepts.nouns import NounCount, NounCounter, ShardUnit, TextUnit
from concepts.phrases import PhraseConfig, PhraseExtractor, TextTally
from concepts.vocabulary import (
    Vocabulary,
    VocabularyConfig,
    build_vocabulary,
    merge_counts,
    merge_vocabularies,
    read_vocabulary,
)
from jobs.executors import Executor
from jobs.progress import progress
from shards.config import digest
from shards.reader import Dataset, open_dataset
from shards.stores import open_storage

logger = logging.getLogger(__name__)

CAPTIONS_PER_UNIT = 5_000


def find_vocabulary(
    rules: VocabularyConfig, phrases: PhraseConfig, datasets: Sequence[Dataset], executor: Executor
) -> Vocabulary:
    """Read the vocabulary that is named, or count one over the datasets and caption files that are named.

    Args:
        rules: which, and how it is cut.
        phrases: how phrases are found in texts.
        datasets: those that are counted where `rules` name none.
        executor: counts the shards.
    """
    lists = [(Path(path), read_names(Path(path))) for path in rules.lists]
    names = dict.fromkeys(name for _, found in lists for name in found)
    if rules.file is not None:
        return _read_vocabularies(rules, names)
    sources = {"lists": [{"name": path.name, "digest": digest(list(found))} for path, found in lists]}
    if not rules.count:
        return build_vocabulary({}, rules, names=names, origin=sources)
    counted = [open_dataset(path) for path in rules.datasets] or list(datasets)
    tagger = PhraseExtractor(phrases).name
    texts = [(path, read_captions(path)) for path in caption_files(rules.texts)]
    units: list[ShardUnit | TextUnit] = [
        ShardUnit(dataset.path, shard) for dataset in counted for shard in range(len(dataset.manifest))
    ]
    for _, captions in texts:
        # Counts of loose captions are kept beside the first dataset's nouns, so that they too are counted only once.
        units += [
            TextUnit(counted[0].path, tuple(captions[start : start + CAPTIONS_PER_UNIT]))
            for start in range(0, len(captions), CAPTIONS_PER_UNIT)
        ]
    counts = _count(executor, partial(NounCounter, phrases, tagger=tagger), units)
    tally = sum((count.tally for count in counts), TextTally())
    if tally.empty or tally.cut or tally.foreign:
        logger.warning(
            "of %d texts, %d hold no word, %d are of another script and were left out, and %d were cut to %d words",
            tally.texts,
            tally.empty,
            tally.foreign,
            tally.cut,
            phrases.max_words,
        )
    origin = {
        "tagger": tagger,
        "phrases": phrases.model_dump(mode="json", include={"kinds", "max_words"}),
        "captions": tally.texts,
        "unusual": {"empty": tally.empty, "cut": tally.cut, "foreign": tally.foreign},
        "datasets": [{"name": f"{each.card.name}-{each.card.split}", "digest": each.digest} for each in counted],
        "texts": [{"name": path.name, "digest": digest(captions)} for path, captions in texts],
        "rules": rules.model_dump(mode="json", include={"min_count", "count_from_zero", "fold_plurals", "cap", "stop"}),
        **sources,
    }
    return build_vocabulary(merge_counts(count.counts for count in counts), rules, names=names, origin=origin)


def _read_vocabularies(rules: VocabularyConfig, names: Iterable[str]) -> Vocabulary:
    """One vocabulary as it was, or several as one."""
    files = [rules.file] if isinstance(rules.file, str) else list(rules.file or ())
    found = []
    for file in files:
        folder, _, name = file.rpartition("/")
        found.append(read_vocabulary(open_storage(folder or "."), name))
    listed = list(names)
    return found[0] if len(found) == 1 and not listed else merge_vocabularies(found, rules, names=listed)


def _count(executor: Executor, factory: Any, units: Sequence[ShardUnit | TextUnit]) -> list[NounCount]:
    """Count every unit; the results come back in the order of the units, whichever finished first."""
    results: dict[ShardUnit | TextUnit, NounCount] = {}
    with progress("nouns", total=len(units), unit="units") as bar:
        for outcome in executor.run(factory, units, stateful=True):
            results[outcome.unit] = outcome.result
            bar.advance(captions=outcome.result.captions)
    return [results[unit] for unit in units]
