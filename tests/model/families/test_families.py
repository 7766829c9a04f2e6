"""Families are found by folder and built from plain values."""

from __future__ import annotations

import pytest

from model.families import family_kinds, load_family
from model.tokenizer import SPECIALS, WordPiece


def test_every_kind_offers_a_config_a_family_and_a_processor() -> None:
    for kind in family_kinds():
        module = load_family({"kind": kind})
        assert module.Config(kind=kind).kind == kind
        assert callable(module.build)
        assert callable(module.build_processor)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'vicha'"):
        load_family({"kind": "vica"})
    with pytest.raises(ValueError, match=r"known: .*vicha"):
        load_family({})


def test_a_processor_with_another_vocabulary_is_refused() -> None:
    module = load_family({"kind": "vicha"})
    tokenizer = WordPiece([*SPECIALS, "a"])
    with pytest.raises(ValueError, match="vocabulary has 6 words and the family is built for 30522"):
        module.build_processor(module.Config(), tokenizer)
    module.build_processor(module.Config().with_vocabulary(6), tokenizer)
