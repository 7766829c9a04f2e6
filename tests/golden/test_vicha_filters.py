"""ViCHA's two filters against the published script: the pairs that stay, in its order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from concepts.filters import best_of_all, best_of_each
from concepts.similarity import pair_cosines

pytestmark = pytest.mark.golden("vicha/visual_concepts")

CLOSE = 2e-3  # the script computes in float16


def test_the_filters_keep_the_published_pairs(case: Any) -> None:
    content = case.json("expected.json")
    rules = {name: wanted for name, wanted in content["expected"].items() if name.startswith("filter_")}
    assert rules
    pairs = [(row["image"], row["caption"]) for row in content["captions"]]
    images = list(dict.fromkeys(image for image, _ in pairs))
    owners = np.array([images.index(image) for image, _ in pairs])
    pictures = np.array([content["image_embeddings"][image][0] for image in images], np.float16)
    captions = np.array([content["caption_embeddings"][caption][0] for _, caption in pairs], np.float16)
    similarities = pair_cosines(pictures, owners, captions)
    for name, wanted in rules.items():
        scope, _, number = name.removeprefix("filter_").rpartition("_")
        share = float(number.replace("p", "."))
        places = {
            "global": lambda share=share: best_of_all(similarities, share),
            "per_image": lambda share=share: best_of_each(similarities, owners, share, keep_one=False),
        }[scope]()
        ours = {pairs[place]: similarities[place] for place in places.tolist()}
        theirs = {(row["image"], row["caption"]): row["sim"] for row in wanted}
        assert set(ours) == set(theirs)
        assert all(abs(ours[pair] - theirs[pair]) < CLOSE for pair in theirs)
        # The order counts where the gap is wider than float16 tells.
        told = [theirs[pair] for pair in ours] if scope == "global" else []
        assert all(later < earlier + 2 * CLOSE for earlier, later in pairwise(told))
