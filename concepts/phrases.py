"""What a caption names: the head noun of each run of nouns. A trained tagger finds them where one is at hand, rules otherwise."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from concepts.lexicon import VERSION, guess_classes, is_word
from shards.config import Config
from shards.errors import ConfigError, MissingLibraryError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

logger = logging.getLogger(__name__)

RULES = "rules"
RULES_NAME = f"{RULES}-{VERSION}"
INSTALLED = "en_core_web_sm"
# Heads of noun runs need part-of-speech tags only. Measured on captions, dependency heads are no better and cost 2.5 times as much.
NEEDLESS = ["parser", "ner", "lemmatizer", "trainable_lemmatizer", "senter", "entity_linker", "textcat"]


class PhraseConfig(Config):
    """How nouns are found in captions."""

    tagger: str | None = None
    """spaCy pipeline as a folder or an installed package; `rules` for the built-in word lists; unset: en_core_web_sm where it is
    installed, else the rules."""
    batch_size: PositiveInt = 256
    """captions per tagging batch"""


class PhraseExtractor:
    """Finds head nouns. `name` says which tagger runs: counts depend on it, so it is stored beside everything counted."""

    def __init__(self, config: PhraseConfig) -> None:
        """Load the tagger.

        Raises:
            ConfigError: the configured pipeline is neither a folder nor a package, or it assigns no parts of speech.
            MissingLibraryError: spaCy is not installed.
        """
        self.config = config
        self.name, self._nlp = _load(config.tagger)

    def nouns(self, texts: Sequence[str]) -> list[list[str]]:
        """List the head nouns of each text: the last noun of every run of nouns, lower-cased, in order, repeats kept."""
        rules = self.name == RULES_NAME
        docs = self._nlp.pipe(texts, batch_size=self.config.batch_size)
        return [list(_run_heads(doc, _noun_by_rules(doc) if rules else _noun_by_tags(doc))) for doc in docs]


def _run_heads(doc: Doc, is_noun: Sequence[bool]) -> Iterator[str]:
    for place, token in enumerate(doc):
        ends_run = is_noun[place] and not (place + 1 < len(is_noun) and is_noun[place + 1])
        if ends_run and len(token.text) > 1 and is_word(token.text):
            yield token.lower_


def _noun_by_tags(doc: Doc) -> list[bool]:
    return [token.pos_ in ("NOUN", "PROPN") for token in doc]


def _noun_by_rules(doc: Doc) -> list[bool]:
    return [guess == "noun" for guess in guess_classes([token.text for token in doc])]


def _load(tagger: str | None) -> tuple[str, Language]:
    try:
        import spacy
    except ImportError as problem:
        raise MissingLibraryError(
            "finding nouns in captions needs spaCy; install the extra: ostraka[text]"
        ) from problem
    wanted = tagger or (INSTALLED if spacy.util.is_package(INSTALLED) else RULES)
    if wanted == RULES:
        if tagger is None:
            logger.warning(
                "no part-of-speech tagger at hand (%s is not installed and phrases.tagger is unset): nouns are found by word "
                "lists and endings, which is rougher",
                INSTALLED,
            )
        return RULES_NAME, spacy.blank("en")
    if not (Path(wanted).is_dir() or spacy.util.is_package(wanted)):
        raise ConfigError(
            f"phrases.tagger: {wanted!r} is neither a folder nor an installed spaCy package; give one of these, or `rules`"
        )
    try:
        nlp = spacy.load(wanted, exclude=NEEDLESS)
    except (OSError, ValueError) as problem:
        reason = " ".join(str(problem).split())[:200]
        raise ConfigError(
            f"phrases.tagger: spaCy cannot load {wanted!r} ({reason}); give another pipeline, or `rules`"
        ) from problem
    if not any(token.pos_ for token in nlp("a dog")):
        raise ConfigError(
            f"phrases.tagger: {wanted!r} assigns no parts of speech; give a pipeline with a tagger, or `rules`"
        )
    return _name_of(nlp), nlp


def _name_of(nlp: Language) -> str:
    """Name a pipeline by what it is and not by where it lies, so that a moved folder keeps its results."""
    meta = nlp.meta
    weights = hashlib.blake2b(nlp.to_bytes(exclude=["vocab"]), digest_size=4).hexdigest()
    return f"{meta['lang']}_{meta['name']}-{meta['version']}-{weights}"
