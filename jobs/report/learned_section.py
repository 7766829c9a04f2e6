"""What was learned about a dataset as a whole: its words, how well captions fit, what a filter keeps, what negatives there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from concepts.annotate import VOCABULARY_FILE
from concepts.vocabulary import read_vocabulary
from jobs.report.histograms import Split, draw_histogram, draw_ranking
from jobs.report.learned import SIMILARITY, LearnedColumns, column_name
from jobs.report.markup import Markup, tag
from jobs.report.overlays import clipped
from jobs.report.pictures import picture_uri
from jobs.report.room import Room
from shards.errors import OstrakaError
from shards.pools import decode_pools
from shards.reader import Dataset
from shards.sidecar import Sidecar

SHARDS_READ = 64  # of a column, spread evenly: more would not change a histogram
WORDS = 40  # of the vocabulary
GROUPS, ALIKE = 8, 6  # groups of near duplicates, and pictures of one
EXAMPLES = 8  # of each pool
_TILE = 128  # pixels of the longer side of a copy


def learned_section(dataset: Dataset, columns: LearnedColumns, *, room: Room) -> Markup | None:
    """Charts and tables of a dataset's columns; None where it has none that can be read."""
    charts = [*_vocabulary(dataset, columns.concepts), *_similarity(dataset, columns), *_swap_kinds(dataset, columns)]
    parts = [*_pools(dataset, columns.pools), *_near_duplicates(dataset, columns, room)]
    if not charts and not parts:
        return None
    others = f" Not shown: {', '.join(columns.others)}." if columns.others else ""
    return tag(
        "section",
        tag("h2", f"Learned about {dataset.card.name} · {dataset.card.split}"),
        tag("p", f"From the columns beside the shards; nothing was written into them.{others}", class_="lead"),
        tag("div", *charts, class_="curves") if charts else None,
        *parts,
        class_="follows",
    )


def _shards(dataset: Dataset) -> range:
    """Shards spread evenly over a dataset."""
    return range(0, len(dataset.manifest), max(1, -(-len(dataset.manifest) // SHARDS_READ)))


def _vocabulary(dataset: Dataset, concepts: Sidecar | None) -> Iterator[Markup]:
    if concepts is None:
        return
    best: Counter[str] = Counter()
    for table in _tables(dataset, concepts, ("phrases",)):
        best.update(row[0] for row in table["phrases"].to_pylist() if row)
    try:
        vocabulary = read_vocabulary(dataset.storage, f"{concepts.folder}/{VOCABULARY_FILE}")
    except OstrakaError:  # concepts that came with the raw data have none
        vocabulary = None
    if vocabulary is not None and vocabulary.counts[0] > 0:
        counts = dict(zip(vocabulary.phrases, vocabulary.counts, strict=True))
        yield draw_ranking(f"Vocabulary of {column_name(concepts)}, by count in the texts", counts, most=WORDS)
    if best:
        yield draw_ranking("Most often a picture's best concept", best, most=WORDS)


def _similarity(dataset: Dataset, columns: LearnedColumns) -> Iterator[Markup]:
    if columns.similarity is None:
        return
    looked = _shards(dataset)
    cosines = _flat(dataset, columns.similarity, SIMILARITY, looked)
    if not np.isfinite(cosines).any():
        return
    drawn = False
    for chosen in columns.filters:
        kept = _flat(dataset, chosen, "keep", looked).astype(bool)
        if len(kept) != len(cosines):  # a filter that is not finished
            continue
        finite = np.isfinite(cosines)
        outcome = chosen.card.get("outcome") or {}
        split = Split(
            marked=tuple(kept[finite].tolist()), name=f"kept by {column_name(chosen)}", cut=outcome.get("cut")
        )
        yield draw_histogram("Similarity of captions", cosines[finite].tolist(), unit="", split=split)
        drawn = True
    if not drawn:
        yield draw_histogram("Similarity of captions", cosines[np.isfinite(cosines)].tolist(), unit="")


def _swap_kinds(dataset: Dataset, columns: LearnedColumns) -> Iterator[Markup]:
    if columns.swaps is None:
        return
    kinds: Counter[str] = Counter()
    for table in _tables(dataset, columns.swaps, ("kinds",)):
        kinds.update(kind.replace("_", " ") for row in table["kinds"].to_pylist() for kind in row)
    if kinds:
        yield draw_ranking(f"Wrong captions of {column_name(columns.swaps)} by exchange", kinds)


def _pools(dataset: Dataset, column: Sidecar | None) -> Iterator[Markup]:
    if column is None:
        return
    try:
        pools = decode_pools(
            lambda name: dataset.storage.read(f"{column.folder}/{name}"), where=dataset.storage.path(column.folder)
        )
    except OstrakaError:
        return
    entries: list[tuple[str, Sequence[str]]] = [("captions", pools.captions), ("objects", pools.objects)]
    entries += [(f"answers to “{clipped(kind, 60)}”", texts) for kind, texts in list(pools.answers.items())[:EXAMPLES]]
    rows = [
        tag("div", tag("dt", f"{len(texts):,} {name}"), tag("dd", " · ".join(_examples(texts))))
        for name, texts in entries
        if texts
    ]
    rest = len(pools.answers) - EXAMPLES
    yield tag("h3", f"Pools of {column_name(column)} to draw negatives from")
    yield tag("dl", *rows, class_="ledger")
    if rest > 0:
        yield tag("p", f"… and answers of {rest:,} more types of question.", class_="quiet")


def _examples(texts: Sequence[str]) -> list[str]:
    step = max(1, len(texts) // EXAMPLES)
    return [clipped(text, 100) for text in texts[::step][:EXAMPLES]] + (["…"] if len(texts) > EXAMPLES else [])


def _near_duplicates(dataset: Dataset, columns: LearnedColumns, room: Room) -> Iterator[Markup]:
    """The largest groups of pictures that a filter found to be nearly the same, the one that is kept first."""
    for column in columns.filters:
        groups: dict[str, list[str]] = {}
        for table in _tables(dataset, column, None):
            if "duplicate_of" not in table.column_names:
                break
            for key, first in zip(table["key"].to_pylist(), table["duplicate_of"].to_pylist(), strict=True):
                if first is not None:
                    groups.setdefault(first, []).append(key)
        if not groups:
            continue
        largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:GROUPS]
        count = (column.card.get("outcome") or {}).get("groups", len(groups))
        yield tag("h3", f"Near duplicates by {column_name(column)}")
        yield tag(
            "p",
            f"{count:,} groups of pictures whose embeddings hang together by cosines from "
            f"{column.card['rule']['likeness']:g}; of each the first is kept.",
            class_="quiet",
        )
        drawn = [_group(dataset, [first, *more], room) for first, more in largest]
        yield tag("ul", *(each for each in drawn if each is not None), class_="alike")


def _group(dataset: Dataset, keys: Sequence[str], room: Room) -> Markup | None:
    pictures: list[Markup] = []
    for key in keys[:ALIKE]:
        try:
            record = dataset.record(*dataset.locate(key))
        except (OstrakaError, KeyError):
            continue
        member = next((media.member for media in record.media if media.kind == "image"), None)
        uri = None if member is None else picture_uri(record.payload[member], where=key, longest=_TILE)
        if uri is not None and len(uri) < room.left:
            pictures.append(tag("img", src=uri, alt=key, title=key, loading="lazy"))
            room.spend(pictures[-1])
    more = len(keys) - len(pictures)
    rest = tag("span", f"+ {more:,}", class_="quiet") if more else None
    return tag("li", *pictures, rest) if pictures else None


def _tables(dataset: Dataset, column: Sidecar, fields: Sequence[str] | None) -> Iterator[Any]:
    """The parts of a column that can be read, of shards spread evenly."""
    for shard in _shards(dataset):
        try:
            yield column.table(shard, fields=fields)
        except OstrakaError:
            continue


def _flat(dataset: Dataset, column: Sidecar, name: str, shards: Sequence[int]) -> npt.NDArray[np.float64]:
    """The values of a column of lists in a row, those of shards that are there; null becomes NaN."""
    parts = [np.zeros(0)]
    for shard in shards:
        try:
            values = column.table(shard, fields=(name,))[name].combine_chunks().flatten()
        except OstrakaError:
            continue
        parts.append(np.asarray(values.to_numpy(zero_copy_only=False), np.float64))
    return np.concatenate(parts)
