"""Which nouns become concepts: counted per shard, merged exactly, cut by frequency, kept with where they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from pydantic import AliasChoices, Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from shards.config import Config, digest
from shards.errors import ConfigError, DatasetError, InputError
from shards.storage import Storage

SCHEMA = 1
# What taggers find in captions and what names no thing: places within the picture, the picture itself, colours.
STOP = (
    "top", "front", "back", "side", "left", "right", "middle", "center", "bottom", "background", "foreground", "close-up",
    "closeup", "view", "picture", "image", "photo", "photograph", "shot", "other", "others", "lot", "lots", "bunch", "couple",
    "group", "kind", "type", "way", "part", "piece", "pair", "number", "variety", "thing", "something", "someone", "time",
    "red", "green", "blue", "yellow", "black", "white", "brown", "pink", "purple", "gray", "grey", "tan", "wooden",
)  # fmt: skip


class VocabularyConfig(Config):
    """Where the nouns are counted, and which of them stay."""

    datasets: tuple[str, ...] = Field(default=(), validation_alias=AliasChoices("datasets", "from"))
    """datasets whose captions are counted (also spelt `vocabulary.from`); unset: every dataset that is annotated"""
    texts: tuple[str, ...] = ()
    """caption files or folders of them, counted as well: COCO or list JSON, CSV or TSV, Flickr tokens, one caption per line"""
    file: str | tuple[str, ...] | None = None
    """a vocabulary.json of an earlier run, as it is, or several, whose counts are added and cut anew: nothing is counted"""
    lists: tuple[str, ...] = ()
    """files of names that become concepts however seldom they were counted, such as the objects of a detection set"""
    count: bool = True
    """false: the vocabulary is `lists` alone"""
    min_count: NonNegativeInt = 2
    """a noun stays when its count reaches this"""
    count_from_zero: bool = False
    """count the first occurrence as 0, as ViCHA's release does: its threshold t is then min_count=t+1"""
    fold_plurals: bool = True
    """count a plural as its singular (its lemma) where the singular was seen too; false: surface forms"""
    cap: PositiveInt | None = None
    """keep at most this many, the most frequent ones"""
    stop: tuple[str, ...] = STOP
    """nouns that never become concepts"""

    @field_validator("datasets", "texts", "lists", "stop", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_an_origin(self) -> Self:
        if not self.count and not self.lists and self.file is None:
            raise ValueError("count=false leaves no concept at all; name files of them by lists=…, or leave count out")
        return self


@dataclass(frozen=True)
class Vocabulary:
    """The concepts, most frequent first; among equals, the one seen first.

    Attributes:
        phrases: distinct, lower-case.
        counts: how often each was seen, by the rule it was counted with.
        origin: tagger, rule and texts behind it; not part of its identity.
    """

    phrases: tuple[str, ...]
    counts: tuple[int, ...]
    origin: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.phrases)

    @cached_property
    def digest(self) -> str:
        """Names the phrases and their order."""
        return digest({"phrases": list(self.phrases), "counts": list(self.counts)})

    def to_bytes(self) -> bytes:
        """Write as JSON that a person can read: one phrase with its count per line."""
        lines = [
            f"  {json.dumps([phrase, count], ensure_ascii=False)}"
            for phrase, count in zip(self.phrases, self.counts, strict=True)
        ]
        head = json.dumps(
            {"schema": SCHEMA, "digest": self.digest, "origin": dict(self.origin)}, ensure_ascii=False, sort_keys=True
        )
        return (head[:-1] + ', "phrases": [\n' + ",\n".join(lines) + "\n]}\n").encode()


def count_phrases(phrase_lists: Iterable[Sequence[str]]) -> dict[str, int]:
    """Count every occurrence; keys in the order in which they were first seen."""
    counts: dict[str, int] = {}
    for phrases in phrase_lists:
        for phrase in phrases:
            counts[phrase] = counts.get(phrase, 0) + 1
    return counts


def merge_counts(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add partial counts. Given in the order of the data, the result equals counting everything at once, its order too."""
    total: dict[str, int] = {}
    for part in parts:
        for phrase, count in part.items():
            total[phrase] = total.get(phrase, 0) + count
    return total


def build_vocabulary(
    counts: Mapping[str, int],
    config: VocabularyConfig,
    *,
    names: Iterable[str] = (),
    origin: Mapping[str, Any] | None = None,
) -> Vocabulary:
    """Choose the concepts from exact counts.

    Args:
        counts: occurrences of each noun, keys in the order of first sight, which breaks ties.
        config: the rule; where the counts come from does not matter here.
        names: of external lists; they stay whatever their count, and those never counted come last, in their order.
        origin: what to store as the vocabulary's origin.

    Raises:
        ConfigError: no noun is left.

    Source: ViCHA (Shukor et al., 2022), concept extraction; its counter starts at 0 (held by the golden case `visual_concepts`).
    """
    folded = fold_plurals(counts) if config.fold_plurals else dict(counts)
    stop = frozenset(config.stop)
    first = 1 if config.count_from_zero else 0
    listed = dict.fromkeys(names)
    kept = [
        (phrase, count - first)
        for phrase, count in folded.items()
        if phrase in listed or (count - first >= config.min_count and phrase not in stop)
    ]
    kept.sort(key=lambda item: -item[1])  # stable: equals stay in the order of first sight
    kept += [(name, 0) for name in listed if name not in folded]
    kept = kept[: config.cap]
    if not kept:
        raise ConfigError(
            f"no noun out of {len(counts):,} different ones reaches vocabulary.min_count={config.min_count}; "
            "lower it, or count over more captions (vocabulary.texts)"
        )
    return Vocabulary(
        phrases=tuple(phrase for phrase, _ in kept), counts=tuple(count for _, count in kept), origin=origin or {}
    )


def fold_plurals(counts: Mapping[str, int]) -> dict[str, int]:
    """Add the count of each plural to its singular, where that singular was counted as well; other words stay as they are."""
    target = {phrase: next((form for form in singulars(phrase) if form in counts), phrase) for phrase in counts}
    folded: dict[str, int] = {}
    for phrase, count in counts.items():
        folded[target[phrase]] = folded.get(target[phrase], 0) + count
    return folded


IRREGULAR_PLURALS = {
    "men": "man", "women": "woman", "children": "child", "people": "person", "feet": "foot", "teeth": "tooth", "mice": "mouse",
    "geese": "goose", "oxen": "ox", "knives": "knife", "wives": "wife", "wolves": "wolf", "leaves": "leaf", "shelves": "shelf",
    "loaves": "loaf", "calves": "calf", "halves": "half", "scarves": "scarf", "hooves": "hoof", "thieves": "thief",
}  # fmt: skip
# Their form without -s is another thing.
NEVER_SINGULAR = frozenset({
    "glasses", "sunglasses", "goggles", "pants", "shorts", "jeans", "trousers", "tights", "scissors", "pliers", "tongs",
    "binoculars", "headphones", "clothes", "stairs", "woods", "sands", "waters", "arms", "goods", "grounds", "gas",
    "lens", "news", "series", "species", "tennis", "lotus", "octopus", "iris", "canvas", "atlas",
})  # fmt: skip


def singulars(word: str) -> list[str]:
    """The possible singulars of a word, most likely first; empty where it looks like no plural."""
    if word in IRREGULAR_PLURALS:
        return [IRREGULAR_PLURALS[word]]
    for suffix in ("men", "women"):  # firemen, policewomen
        if word.endswith(suffix) and word != suffix:
            return [word.removesuffix("en") + "an"]
    if word in NEVER_SINGULAR or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return []
    if word.endswith("ies"):
        return [word[:-3] + "y", word[:-1]]
    if word.endswith(("ches", "shes", "xes", "sses", "zes", "oes")):
        return [word[:-2], word[:-1]]
    return [word[:-1], word[:-2]] if word.endswith("ses") else [word[:-1]]


def merge_vocabularies(
    vocabularies: Sequence[Vocabulary], config: VocabularyConfig, *, names: Iterable[str] = ()
) -> Vocabulary:
    """Add the counts of several vocabularies, such as those of several datasets, and cut the sum by the rule.

    What a vocabulary had cut off is not there to be added, so count over all datasets at once where sums have to be exact. A
    vocabulary that was counted from zero lacks one occurrence of each of its phrases.

    Raises:
        ConfigError: no phrase is left.
    """
    counts = merge_counts(dict(zip(each.phrases, each.counts, strict=True)) for each in vocabularies)
    origin = {
        "tagger": vocabularies[0].origin.get("tagger"),
        "merged": [{"digest": each.digest, "origin": dict(each.origin)} for each in vocabularies],
    }
    return build_vocabulary(counts, config.model_copy(update={"count_from_zero": False}), names=names, origin=origin)


def read_vocabulary(storage: Storage, name: str) -> Vocabulary:
    """Read a vocabulary that `Vocabulary.to_bytes` wrote.

    Raises:
        InputError: no such file, or it is no vocabulary.
        DatasetError: its digest does not fit its phrases: it was edited or is damaged.
    """
    where = storage.path(name)
    try:
        data = json.loads(storage.read(name))
        pairs = [(str(phrase), int(count)) for phrase, count in data["phrases"]]
        stored, origin = data["digest"], dict(data["origin"])
    except FileNotFoundError as problem:
        raise InputError(f"{where}: no such vocabulary file; give the vocabulary.json of an earlier run") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise InputError(
            f"{where}: this is no vocabulary.json of ours ({problem}); give the one of an earlier run"
        ) from problem
    vocabulary = Vocabulary(
        phrases=tuple(phrase for phrase, _ in pairs), counts=tuple(count for _, count in pairs), origin=origin
    )
    if vocabulary.digest != stored or len(set(vocabulary.phrases)) != len(pairs) or not pairs:
        raise DatasetError(
            f"{where}: the phrases do not fit their digest {stored}; the file was edited or damaged: count again"
        )
    return vocabulary
