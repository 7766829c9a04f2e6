"""A box that finds pictures by concept: small copies with their concepts, searched by a script of the page itself."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from jobs.report.learned import Learned, LearnedColumns
from jobs.report.markup import Markup, tag
from jobs.report.overlays import clipped
from jobs.report.pictures import annotation_text, picture_uri, sample_rows
from jobs.report.room import Room
from shards.errors import DatasetError
from shards.reader import Dataset
from shards.records import Record

SCRIPT = Path(__file__).with_name("search.js")
FIRST = 24  # pictures that are seen before anything is asked
COMMON = 12  # frequent concepts that are offered
_TILE = 128  # pixels of the longer side of a copy
_LONGEST = 80  # letters of a concept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    markup: Markup
    concepts: tuple[str, ...]


def search_section(dataset: Dataset, columns: LearnedColumns, *, pictures: int, room: Room, name: str) -> Markup | None:
    """Small copies of pictures spread evenly over a dataset, with a box to find them by their concepts.

    Args:
        dataset: of pictures.
        columns: of it; without concepts there is nothing to search by.
        pictures: how many at most.
        room: for the copies; those that would not fit are left out, and the page says so.
        name: of this section in links.

    Returns:
        The section; None where there is nothing to find.
    """
    if columns.concepts is None or not pictures:
        return None
    tiles: list[_Tile] = []
    for shard, row in sample_rows(dataset, pictures):
        try:
            record = dataset.record(shard, row)
        except DatasetError:
            continue  # `verify` names what is damaged
        tile = _tile(record, columns.of(shard, record.key))
        if tile is None:
            continue
        if len(tile.markup.encode()) > room.left:
            break
        room.spend(tile.markup)
        tiles.append(tile)
    if not tiles:
        return None
    counts = Counter(phrase for tile in tiles for phrase in tile.concepts)
    common = [phrase for phrase, _ in counts.most_common(COMMON)]
    spread = "" if len(tiles) == len(dataset) else f" of the {len(dataset):,}, spread evenly"
    box = f"{name}-box"
    return tag(
        "section",
        tag("h2", f"Find pictures of {dataset.card.name} · {dataset.card.split} by concept"),
        tag(
            "p",
            f"{len(tiles):,} pictures{spread}, by {len(counts):,} concepts. Several words are looked for together. "
            "The key / leads here, Enter to the first picture, Escape clears; a picture opens its caption and concepts.",
            class_="lead",
        ),
        tag(
            "form",
            tag("label", "Concept", for_=box),
            tag("input", type="search", id=box, autocomplete="off", spellcheck="false", aria_controls=f"{name}-found"),
            role="search",
            hidden=True,
        ),
        tag("p", class_="told", role="status"),
        tag("p", class_="hints"),
        tag("ol", *(tile.markup for tile in tiles), class_="found", id=f"{name}-found"),
        tag("button", f"Show all {len(tiles):,} pictures", type="button", class_="more", hidden=True),
        id=name,
        class_="find",
        data_first=FIRST,
        data_common=json.dumps(common, ensure_ascii=False),
    )


def _tile(record: Record, learned: Learned) -> _Tile | None:
    """One picture with what it is found by; None where it has no concepts, is no picture, or cannot be shown."""
    member = next((media.member for media in record.media if media.kind == "image"), None)
    if member is None or not learned.concepts:
        return None
    uri = picture_uri(record.payload[member], where=record.key, longest=_TILE)
    if uri is None:
        return None
    said = clipped(annotation_text(record.annotations[0]), 200) if record.annotations else record.key
    concepts = [(clipped(phrase, _LONGEST), round(score, 3)) for phrase, score in learned.concepts.items()]
    scored = any(score for _, score in concepts)
    names = ", ".join(f"{phrase} {score:.2f}" if scored else phrase for phrase, score in concepts)
    markup = tag(
        "li",
        tag(
            "details",
            tag("summary", tag("img", src=uri, alt=said, loading="lazy")),
            tag("p", said),
            tag("p", names, class_="quiet"),
        ),
        tag("p", class_="because"),
        data_concepts=json.dumps(concepts, ensure_ascii=False, separators=(",", ":")),
    )
    return _Tile(markup=markup, concepts=tuple(phrase for phrase, _ in concepts))
