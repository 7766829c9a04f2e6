"""BLEU, ROUGE-L and CIDEr of generated captions, number for number as the COCO caption evaluation gives them.

All take captions that are cut into words already (`caption_tokens`): one candidate per picture, any number of references.
METEOR and SPICE are programs in Java with data of their own, and are not here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Words = Sequence[str]
Grams = Mapping[tuple[str, ...], float]

ORDERS = (1, 2, 3, 4)
# The evaluation's guards against dividing by zero; they show in the scores of single captions.
TINY, SMALL = 1e-15, 1e-9
BETA = 1.2  # weight of recall over precision in ROUGE-L
SIGMA = 6.0  # width, in words, of CIDEr-D's penalty for another length
SCALE = 10.0


@dataclass(frozen=True, slots=True)
class Scored:
    """A metric over a corpus, and of each of its pictures."""

    corpus: float
    each: tuple[float, ...]


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[int, Scored]:
    """Compare by clipped n-grams (Papineni et al., 2002), at orders 1 to 4.

    Args:
        candidates: N captions.
        references: for each, the captions that people gave.

    Returns:
        By order; the corpus value sums counts over all pictures and takes each picture's closest reference length.

    Raises:
        ValueError: the numbers of candidates and references differ, or a picture has no reference.
    """
    _check(candidates, references)
    counts = [_matches(candidate, refs) for candidate, refs in zip(candidates, references, strict=True)]
    lengths = [
        (len(candidate), min((abs(len(ref) - len(candidate)), len(ref)) for ref in refs)[1])
        for candidate, refs in zip(candidates, references, strict=True)
    ]
    each = [_bleu(count, *length) for count, length in zip(counts, lengths, strict=True)]
    total = [
        (sum(count[place][0] for count in counts), sum(count[place][1] for count in counts))
        for place in range(len(ORDERS))
    ]
    corpus = _bleu(total, sum(length for length, _ in lengths), sum(length for _, length in lengths))
    return {order: Scored(corpus[place], tuple(scores[place] for scores in each)) for place, order in enumerate(ORDERS)}


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Scored:
    """Compare by longest common subsequences (Lin, 2004): the best precision and the best recall over the references.

    Raises:
        ValueError: as for `bleu`.
    """
    _check(candidates, references)
    each = []
    for candidate, refs in zip(candidates, references, strict=True):
        common = [_common_subsequence(candidate, ref) for ref in refs]
        precision = max(common) / max(1, len(candidate))
        recall = max(shared / max(1, len(ref)) for shared, ref in zip(common, refs, strict=True))
        weighed = recall + BETA**2 * precision
        each.append((1 + BETA**2) * precision * recall / weighed if precision > 0 and recall > 0 else 0.0)
    return Scored(sum(each) / len(each), tuple(each))


def cider(
    candidates: Sequence[Words],
    references: Sequence[Sequence[Words]],
    *,
    variant: Literal["d", "original"] = "d",
) -> Scored:
    """Compare by n-grams weighed by how rare they are (Vedantam et al., 2015).

    Args:
        candidates: N captions.
        references: for each, the captions that people gave; document frequencies are counted over them.
        variant: `d` clips counts and punishes another length, which is what is reported as CIDEr everywhere; `original`
            is the plain cosine of the paper's first definition.

    Returns:
        Scores in the usual scale, where 1 is "100".

    Raises:
        ValueError: as for `bleu`.
    """
    _check(candidates, references)
    frequency: Counter[tuple[str, ...]] = Counter()
    for refs in references:
        frequency.update({gram for ref in refs for gram in _grams(ref)})
    documents = math.log(len(references))

    def weigh(words: Words) -> tuple[Grams, list[float]]:
        grams = {gram: count * (documents - math.log(max(1, frequency[gram]))) for gram, count in _grams(words).items()}
        squares = [0.0] * len(ORDERS)
        for gram, value in grams.items():
            squares[len(gram) - 1] += value * value
        return grams, [math.sqrt(square) for square in squares]

    each = []
    for candidate, refs in zip(candidates, references, strict=True):
        own, norms = weigh(candidate)
        total = 0.0
        for ref in refs:
            other, other_norms = weigh(ref)
            products = [0.0] * len(ORDERS)
            for gram, value in own.items():
                if gram in other:
                    kept = min(value, other[gram]) if variant == "d" else value
                    products[len(gram) - 1] += kept * other[gram]
            cosines = [
                product / (norm * other_norm) if norm > 0 and other_norm > 0 else 0.0
                for product, norm, other_norm in zip(products, norms, other_norms, strict=True)
            ]
            # Length is counted in pairs of words, as in the reference.
            apart = max(0, len(candidate) - 1) - max(0, len(ref) - 1)
            penalty = math.exp(-(apart**2) / (2 * SIGMA**2)) if variant == "d" else 1.0
            total += penalty * sum(cosines) / len(ORDERS)
        each.append(SCALE * total / len(refs))
    return Scored(sum(each) / len(each), tuple(each))


def _check(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if len(candidates) != len(references) or not candidates:
        raise ValueError(
            f"{len(candidates)} captions against references of {len(references)} pictures; give one caption per picture"
        )
    empty = next((place for place, refs in enumerate(references) if not refs), None)
    if empty is not None:
        raise ValueError(f"picture {empty} has no reference caption; leave out pictures that nobody described")


def _grams(words: Words) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[place : place + order]) for order in ORDERS for place in range(len(words) - order + 1))


def _matches(candidate: Words, refs: Sequence[Words]) -> list[tuple[int, int]]:
    """For each order, how many n-grams match (no oftener than in any one reference), and how many there are."""
    most: Counter[tuple[str, ...]] = Counter()
    for ref in refs:
        most |= _grams(ref)
    matched = [0] * len(ORDERS)
    for gram, count in _grams(candidate).items():
        matched[len(gram) - 1] += min(count, most[gram])
    return [(matched[place], max(0, len(candidate) - place)) for place in range(len(ORDERS))]


def _bleu(counts: Sequence[tuple[int, int]], length: int, reference_length: int) -> list[float]:
    """The scores of orders 1 to 4 from (matching, all) n-grams and both lengths."""
    product, scores = 1.0, []
    ratio = (length + TINY) / (reference_length + SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    for place, (matching, made) in enumerate(counts):
        product *= (matching + TINY) / (made + SMALL)
        scores.append(product ** (1 / (place + 1)) * brevity)
    return scores


def _common_subsequence(first: Words, second: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        above = 0
        for place, other in enumerate(second, start=1):
            before = row[place]
            row[place] = above + 1 if word == other else max(before, row[place - 1])
            above = before
    return row[-1]
