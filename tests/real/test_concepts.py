"""Nouns and vocabularies of real captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concepts.captions import caption_files, read_captions
from concepts.phrases import RULES, PhraseConfig, PhraseExtractor
from concepts.pictures import prepare_picture
from concepts.vocabulary import VocabularyConfig, build_vocabulary, count_phrases, merge_counts

THINGS = {"dog", "man", "woman", "table", "street", "train", "horse", "bus", "cat", "tree", "water", "car"}
NO_THINGS = {"the", "with", "standing", "sitting", "red", "very", "through", "and", "is", "sits", "quickly", "holding"}


@pytest.fixture(scope="module")
def captions(real_data: Path) -> dict[str, list[str]]:
    return {
        str(path.relative_to(real_data)): read_captions(path)
        for path in caption_files([str(real_data / "text_captions")])
    }


def test_every_caption_file_is_read_whatever_its_layout(captions: dict[str, list[str]], real_data: Path) -> None:
    # The files' own structure says how many captions there are: annotations of the JSON, lines of the others.
    for name, found in captions.items():
        path = real_data / name
        text = path.read_text(encoding="utf-8")
        if path.name.startswith("captions_val"):
            assert len(found) == len(json.loads(text)["annotations"])
        elif path.suffix == ".token" or path.name.endswith(".token.txt"):
            assert len(found) == len(text.splitlines())
            assert not any("#" in caption[:40] and ".jpg" in caption[:40] for caption in found)
        assert not any("http" in caption and "://" in caption and " " not in caption for caption in found), name
        assert sum(len(caption.split()) > 2 for caption in found) > 0.95 * len(found), name
    assert sum(map(len, captions.values())) > 100_000


def test_a_vocabulary_of_real_captions_holds_things(captions: dict[str, list[str]]) -> None:
    extractor = PhraseExtractor(PhraseConfig(tagger=RULES))
    parts = [count_phrases(extractor.nouns(found[::10])) for found in captions.values()]
    vocabulary = build_vocabulary(merge_counts(parts), VocabularyConfig(min_count=3))
    assert set(vocabulary.phrases[:500]) >= THINGS
    assert not NO_THINGS & set(vocabulary.phrases)
    assert vocabulary.counts == tuple(sorted(vocabulary.counts, reverse=True))


def test_the_rules_agree_with_a_trained_tagger(captions: dict[str, list[str]], real_data: Path) -> None:
    folder = real_data.parent / "models" / "en_ud_ewt"
    if not folder.is_dir():
        pytest.skip(f"no tagger at {folder}")
    texts = [caption for found in captions.values() for caption in found[::300]]
    tagged, ruled = (PhraseExtractor(PhraseConfig(tagger=name)).nouns(texts) for name in (str(folder), RULES))
    shared = sum(len(set(one) & set(other)) for one, other in zip(tagged, ruled, strict=True))
    # The tagger itself is right for about 92 of 100 head nouns, so the two cannot agree much better than this.
    assert shared > 0.8 * sum(len(set(row)) for row in ruled)
    assert shared > 0.8 * sum(len(set(row)) for row in tagged)


def test_real_photos_decode_to_the_pixels_of_pillow(real_data: Path) -> None:
    photos = sorted((real_data / "coco2017").rglob("*.jpg"))[:20]
    assert photos
    for photo in photos:
        with Image.open(photo) as picture:
            expected = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(prepare_picture(photo.read_bytes(), np.asarray), expected)
