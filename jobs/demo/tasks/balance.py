"""Which of many things that could be said are said: each text with every answer equally often, so that none gives it away.

VQA v2 and NLVR2 were balanced in this way because models had learned to answer without looking. A reader who never sees a
picture is right on at most one in `answers` of what comes out here, whatever it knows of the texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def balanced(
    items: Sequence[T],
    rng: np.random.Generator,
    *,
    text: Callable[[T], str],
    answer: Callable[[T], Hashable],
    kind: Callable[[T], str],
    answers: int,
    limit: int,
) -> tuple[tuple[T, ...], ...]:
    """Choose groups of items with one text and as many different answers as a group has items.

    Args:
        items: all that could be said.
        rng: decides among what is equally good.
        text: what a reader without eyes knows of an item.
        answer: of an item.
        kind: of an item; every kind gets its even share of `limit`, and what one cannot fill the others may.
        answers: items per group.
        limit: at most so many items in all.

    Returns:
        The groups, by lot; fewer than `limit` allows where not every text can be answered in so many ways.
    """
    by_kind: defaultdict[str, list[tuple[T, ...]]] = defaultdict(list)
    for group in _groups(items, rng, text=text, answer=answer, answers=answers):
        by_kind[kind(group[0])].append(group)
    left = limit // answers
    chosen: list[tuple[T, ...]] = []
    # The scarcest kind first: what it leaves of its share goes to the others.
    for place, name in enumerate(sorted(by_kind, key=lambda name: (len(by_kind[name]), name))):
        groups = by_kind[name]
        share = left // (len(by_kind) - place)
        chosen += [groups[spot] for spot in shuffled(rng, len(groups))[:share]]
        left -= min(share, len(groups))
    return tuple(chosen[spot] for spot in shuffled(rng, len(chosen)))


def shuffled(rng: np.random.Generator, count: int) -> list[int]:
    """The numbers below `count` in a drawn order. It uses uniform draws only, whose stream numpy keeps stable."""
    return [int(spot) for spot in np.argsort(rng.random(count), kind="stable")]


def _groups(
    items: Sequence[T],
    rng: np.random.Generator,
    *,
    text: Callable[[T], str],
    answer: Callable[[T], Hashable],
    answers: int,
) -> list[tuple[T, ...]]:
    """Deal the items of each text into groups, from its fullest answers first, until fewer than `answers` are left."""
    piles: defaultdict[str, defaultdict[Hashable, list[T]]] = defaultdict(lambda: defaultdict(list))
    for spot in shuffled(rng, len(items)):
        item = items[spot]
        piles[text(item)][answer(item)].append(item)
    groups: list[tuple[T, ...]] = []
    for pile in piles.values():
        while True:
            fullest = sorted((each for each in pile.values() if each), key=len, reverse=True)[:answers]
            if len(fullest) < answers:
                break
            groups.append(tuple(each.pop() for each in fullest))
    return groups
