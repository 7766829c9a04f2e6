"""Wrong captions and wrong answers, drawn as OFA and UnIVAL draw them; the generator's address makes each draw repeatable."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from shards.errors import DatasetError
from shards.pools import ANSWERS_FILE, CAPTIONS_FILE, OTHER, Pools

OBJECT_SHARE = 0.4  # of captions that name an object, those where it is replaced and not the whole caption
CONFIDENCE_MARGIN = 0.1
COUNTS = "how many"  # the question type whose answers are numbers


def negative_caption(caption: str, objects: Sequence[str], pools: Pools, rng: np.random.Generator) -> str:
    """Draw a caption that does not belong to the picture.

    Args:
        caption: the right one.
        objects: those that the picture is known to show; only one that the caption names can be replaced.
        pools: captions and object names to draw from.
        rng: keyed by (seed, epoch, record key).

    Raises:
        DatasetError: no other caption is in the pool.

    Source: OFA (Wang et al., 2022), image-text matching.
    """
    # The released code also draws an object that the caption does not name, and then hands out the right caption as wrong.
    named = [(name, pattern) for name in objects if (pattern := _whole(name)).search(caption)]
    if named and len(pools.objects) > 1 and rng.random() < OBJECT_SHARE:
        name, pattern = named[int(rng.integers(len(named)))]
        other = _another(pools.objects, name, rng)
        changed = pattern.sub(lambda _: other, caption)
        if changed != caption:
            return changed
    return _another(pools.captions, caption, rng, what=CAPTIONS_FILE)


def negative_answer(answer: str, pools: Pools, rng: np.random.Generator, *, confidence: float = 1.0) -> str:
    """Draw a wrong answer: mostly one of the same type where the right one is sure, one of no type otherwise.

    Args:
        answer: the right one.
        pools: answers by type.
        rng: keyed by (seed, epoch, record key).
        confidence: of the right answer, in [0, 1].

    Raises:
        DatasetError: no other answer is in the pool.

    Source: OFA (Wang et al., 2022), image-text matching over questions.
    """
    doubt = rng.random()
    kind = pools.types.get(answer)
    if kind is None or confidence <= doubt + CONFIDENCE_MARGIN:
        return _another(pools.answers.get(OTHER, ()), answer, rng, what=f"{ANSWERS_FILE} under {OTHER!r}")
    if kind == COUNTS and answer.isascii() and answer.isdigit() and doubt > 0.5:
        # The released code means to give 1 for 0, but compares a text with a number and so can give -1.
        return "1" if int(answer) == 0 else str(int(answer) + int(rng.choice((-1, 1))))
    alike = pools.answers[kind]
    if len(alike) < 2:
        alike = pools.answers.get(OTHER, ())
    return _another(alike, answer, rng, what=f"{ANSWERS_FILE} under {kind!r}")


def _another(pool: Sequence[str], true: str, rng: np.random.Generator, *, what: str = "object.txt") -> str:
    """Draw one that is not `true`. As published, the last is held back for when the draw hits the true one."""
    if len(pool) > 1:
        drawn = pool[int(rng.integers(len(pool) - 1))]
        if drawn != true:
            return drawn
    if pool and pool[-1] != true:
        return pool[-1]
    raise DatasetError(f"the pool {what} has nothing but {true!r} to draw from; make or import a larger one")


def _whole(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
