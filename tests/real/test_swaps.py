"""Exchanged words against SugarCrepe, whose wrong captions people checked: what is exchanged there and here, and in which place."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concepts.phrases import PhraseConfig, PhraseExtractor
from concepts.swaps import Scene, Usage, count_uses, make_swaps

DATA = Path(os.environ.get("OSTRAKA_DATA", Path(__file__).parents[3] / "shared" / "data"))
SUGARCREPE = DATA / "sugarcrepe"

pytestmark = pytest.mark.skipif(
    not (SUGARCREPE / "replace_obj.json").is_file(), reason="SugarCrepe is not under $OSTRAKA_DATA"
)
SLOTS = {"replace_obj": "object", "replace_att": "attribute", "replace_rel": "relation"}


def pairs(name: str) -> list[tuple[str, str]]:
    rows: dict[str, Any] = json.loads((SUGARCREPE / f"{name}.json").read_text(encoding="utf-8"))
    return [(row["caption"], row["negative_caption"]) for row in rows.values()]


def scenes(texts: list[str]) -> list[Scene]:
    tagged = PhraseExtractor(PhraseConfig(tagger="rules")).tagged(texts)
    return [Scene(text, words) for text, words in zip(texts, tagged, strict=True)]


def slot(scene: Scene, place: int) -> str:
    if any(place in run.attributes for run in scene.runs):
        return "attribute"
    if any(run.start <= place <= run.head for run in scene.runs):
        return "object"
    return "relation" if any(place in places for _, places, _ in scene.relations) else "none"


@pytest.mark.parametrize("name", SLOTS)
def test_the_one_word_that_people_exchanged_stands_where_we_exchange(name: str) -> None:
    right, wrong = (scenes([pair[side] for pair in pairs(name)]) for side in (0, 1))
    found: Counter[str] = Counter()
    for one, two in zip(right, wrong, strict=True):
        differ = [place for place, words in enumerate(zip(one.words, two.words, strict=False)) if len(set(words)) > 1]
        if len(one.words) == len(two.words) and len(differ) == 1:
            found[slot(one, differ[0])] += 1
    assert found.total() >= 5
    assert found.most_common(1)[0][0] == SLOTS[name]


def test_swaps_keep_the_words_of_the_caption_as_those_of_people_do() -> None:
    texts = [caption for path in sorted(SUGARCREPE.glob("*.json")) for caption, _ in pairs(path.stem)]
    real = scenes(texts)
    usage = Usage(count_uses(real), min_seen=1)
    made: Counter[str] = Counter()
    for number, scene in enumerate(real):
        for swap in make_swaps(scene, usage, shown=frozenset(scene.words), rng=np.random.default_rng(number)):
            made[swap.kind] += 1
            before, after = Counter(scene.words), Counter(scenes([swap.text])[0].words)
            for article in ("a", "an"):
                before.pop(article, None)
                after.pop(article, None)
            if swap.kind.startswith("swap"):
                assert before == after
            else:
                assert (before - after).total() == (after - before).total() == 1
    # So small a collection vouches for few exchanges; still there are some of each kind that needs one witness.
    assert {"replace_object", "replace_attribute", "replace_relation"} <= set(made)
