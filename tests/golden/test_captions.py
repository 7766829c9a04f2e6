"""Caption metrics against the COCO caption evaluation: the words it cuts, and every number but METEOR's, which needs Java."""

from __future__ import annotations

from typing import Any

import pytest

from trainers.metrics.caption_tokens import caption_tokens
from trainers.metrics.captions import Scored, bleu, cider, rouge_l

pytestmark = pytest.mark.golden("metrics/captions")


def _tokens(row: Any) -> list[str]:
    text: str = row[0] if isinstance(row, list) else row
    return text.split()


def test_captions_are_cut_into_the_words_of_the_evaluation(case: Any) -> None:
    expected = case.json("expected.json")
    for row in case.json("predictions.json"):
        assert caption_tokens(row["caption"]) == _tokens(expected["tokenized_predictions"][str(row["image_id"])])
    cut: dict[str, list[list[str]]] = {}
    for row in case.json("references.json")["annotations"]:
        cut.setdefault(str(row["image_id"]), []).append(caption_tokens(row["caption"]))
    assert cut == {image: [text.split() for text in texts] for image, texts in expected["tokenized_references"].items()}


def test_every_metric_equals_the_evaluation_over_the_corpus_and_per_picture(case: Any) -> None:
    expected = case.json("expected.json")
    images = list(expected["per_image"])
    candidates = [_tokens(expected["tokenized_predictions"][image]) for image in images]
    references = [[text.split() for text in expected["tokenized_references"][image]] for image in images]
    found: dict[str, Scored] = {f"BLEU-{order}": scored for order, scored in bleu(candidates, references).items()}
    found |= {"ROUGE-L": rouge_l(candidates, references)}
    found |= dict.fromkeys(("CIDEr", "CIDEr-D"), cider(candidates, references))
    found |= {"CIDEr-original-unclipped": cider(candidates, references, variant="original")}
    assert found.keys() == expected["corpus"].keys() - {"METEOR"}
    for name, scored in found.items():
        assert scored.corpus == pytest.approx(expected["corpus"][name], rel=1e-6), name
        each = [expected["per_image"][image][name] for image in images]
        assert list(scored.each) == pytest.approx(each, rel=1e-6, abs=1e-15), name
