"""Hard captions: for each picture, the captions of other pictures that CLIP finds closest to it.

A caption that may well be true of the picture is no negative: one that means nearly the same as one of its own captions, by the
cosine of their text embeddings, or that has the same words; and one of a picture that is nearly the same. Nor is one without any
word, such as a row of dots. The search is exact
and holds one block of captions at a time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from concepts.caption_column import CaptionBlock, Halves
from concepts.select import top_cosine

# Pictures and captions at a time: the memory of a search (at 512 dimensions 128 MiB), whatever the size of shards. The guard asks
# for every picture in every such block, so larger ones cost less: 65,536 captions a quarter of the time of 4,096.
ROWS, COLUMNS = 512, 65_536
GROWTH = 4  # how many times more captions are looked at where the guard left too few

_NO_WORD, _WORD = re.compile(r"\W+"), re.compile(r"\w")


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative:
    """A caption of another picture, and its cosine with this one."""

    text: str
    score: float
    source: str


@dataclass(frozen=True, slots=True)
class _Own:
    """A picture's own captions: what its negatives must not say."""

    key: str
    words: frozenset[str]
    vectors: Halves  # (C, D)
    picture: Halves  # (D,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guards:
    """Cosines above which a caption, by its own or by its picture's likeness, may be true."""

    caption: float
    picture: float


def mine_negatives(
    keys: Sequence[str],
    vectors: Halves,
    own: CaptionBlock,
    blocks: Iterable[CaptionBlock],
    *,
    top_k: int,
    guard_cosine: float,
    guard_picture: float = 1.0,
) -> list[list[Negative]]:
    """Find the hard captions of each picture.

    Args:
        keys: N pictures.
        vectors: (N, D) float16 embeddings of the pictures.
        own: the captions of these pictures; one without captions has nothing to guard against.
        blocks: all captions to choose from, in the order of the data. Where they are cut does not change the result.
        top_k: captions per picture at most; words that several captions share count once.
        guard_cosine: a caption is left out where its cosine with one of the picture's own captions is larger.
        guard_picture: a caption is left out where the cosine of its picture with this one is larger; 1: none is.

    Returns:
        Per picture its negatives, best first; equal scores in the order of the data.
    """
    guards = _Guards(caption=guard_cosine, picture=guard_picture)
    pictures = _owned(keys, vectors, own)
    best: list[list[Negative]] = [[] for _ in keys]
    for block in _gathered(blocks):
        for start in range(0, len(keys), ROWS):
            rows = slice(start, start + ROWS)
            found = _search(block, pictures[rows], vectors[rows], best[rows], top_k=top_k, guards=guards)
            best[rows] = [_merge(before, new, top_k) for before, new in zip(best[rows], found, strict=True)]
    return best


def _search(
    block: CaptionBlock,
    pictures: Sequence[_Own],
    vectors: Halves,
    best: Sequence[Sequence[Negative]],
    *,
    top_k: int,
    guards: _Guards,
) -> list[list[Negative]]:
    """Per picture, what a block may add to its best: looks at few captions first, at more where the guard left too few."""
    added: list[list[Negative]] = [[] for _ in pictures]
    floors = [mine[-1].score if len(mine) == top_k else -np.inf for mine in best]
    open_rows, looked_at = np.arange(len(pictures)), 2 * top_k
    while len(open_rows):
        found = top_cosine(vectors[open_rows], block.vectors, top_k=looked_at)
        still_open: list[int] = []
        for row, places, scores in zip(open_rows.tolist(), found.indices, found.scores, strict=True):
            hopeful = scores > floors[row]  # best first, so once one is hopeless the rest are too
            added[row] = _allowed(block, places[hopeful], scores[hopeful], pictures[row], guards)
            if len(added[row]) < top_k and hopeful.all() and looked_at < len(block.texts):
                still_open.append(row)
        open_rows = np.asarray(still_open, np.int64)
        looked_at *= GROWTH
    return added


def _gathered(blocks: Iterable[CaptionBlock]) -> Iterator[CaptionBlock]:
    """The same captions in blocks of at most `COLUMNS`, small ones put together."""
    held: list[CaptionBlock] = []
    for block in blocks:
        for part in _parts(block):
            if held and sum(len(each.texts) for each in held) + len(part.texts) > COLUMNS:
                yield _joined(held)
                held = []
            held.append(part)
    if held:
        yield _joined(held)


def _joined(blocks: Sequence[CaptionBlock]) -> CaptionBlock:
    if len(blocks) == 1:
        return blocks[0]
    unread = [np.full_like(each.vectors, np.nan) if each.pictures is None else each.pictures for each in blocks]
    return CaptionBlock(
        texts=[text for each in blocks for text in each.texts],
        sources=np.concatenate([each.sources for each in blocks]),
        vectors=np.concatenate([each.vectors for each in blocks]),
        pictures=None if all(each.pictures is None for each in blocks) else np.concatenate(unread),
    )


def _parts(block: CaptionBlock) -> Iterator[CaptionBlock]:
    for start in range(0, len(block.texts), COLUMNS):
        part = slice(start, start + COLUMNS)
        yield CaptionBlock(
            texts=block.texts[part],
            sources=block.sources[part],
            vectors=block.vectors[part],
            pictures=None if block.pictures is None else block.pictures[part],
        )


def cleaned(text: str) -> str:
    """The words of a caption, without case and punctuation; the caption itself where it has no word."""
    return _NO_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip() or text


def _owned(keys: Sequence[str], vectors: Halves, own: CaptionBlock) -> list[_Own]:
    places: dict[str, list[int]] = {key: [] for key in keys}
    for place, source in enumerate(own.sources):
        places[source].append(place)
    return [
        _Own(key, frozenset(cleaned(own.texts[place]) for place in mine), own.vectors[mine], vectors[row])
        for row, (key, mine) in enumerate(places.items())
    ]


def _allowed(
    block: CaptionBlock,
    places: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    picture: _Own,
    guards: _Guards,
) -> list[Negative]:
    """What the guard leaves of the candidates, each wording once."""
    others = block.sources[places] != picture.key
    places, scores = places[others], scores[others]
    if len(places) and len(picture.vectors):
        nearest = top_cosine(block.vectors[places], picture.vectors, top_k=1).scores[:, 0]
        places, scores = places[nearest <= guards.caption], scores[nearest <= guards.caption]
    if len(places) and block.pictures is not None and guards.picture < 1:
        alike = (
            _cosines(block.pictures[places], picture.picture) > guards.picture
        )  # a picture that could not be read is not
        places, scores = places[~alike], scores[~alike]
    return list(
        _distinct(
            (
                Negative(text=block.texts[place], score=score, source=block.sources[place])
                for place, score in zip(places.tolist(), scores.tolist(), strict=True)
            ),
            besides=picture.words,
        )
    )


def _cosines(vectors: Halves, one: Halves) -> npt.NDArray[np.float64]:
    """(N, D) and (D,) → (N,); as exact as `concepts.select`."""
    left, right = vectors.astype(np.float64), one.astype(np.float64)
    found: npt.NDArray[np.float64] = left @ right / (np.linalg.norm(left, axis=1) * np.linalg.norm(right))
    return found


def _merge(before: list[Negative], found: list[Negative], top_k: int) -> list[Negative]:
    """The best of both; the sort is stable, so among equals those of earlier blocks stay first."""
    if not found:
        return before
    return list(_distinct(sorted([*before, *found], key=lambda negative: -negative.score)))[:top_k]


def _distinct(negatives: Iterable[Negative], besides: frozenset[str] = frozenset()) -> Iterator[Negative]:
    seen = set(besides)
    for negative in negatives:
        words = cleaned(negative.text)
        if words not in seen and _WORD.search(words):
            seen.add(words)
            yield negative
