"""What a caption names. A trained tagger tells the classes of its words where one is at hand, rules otherwise."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from concepts.lexicon import VERSION, Guess, guess_classes
from concepts.patterns import PhraseKind, find_phrases
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
_LETTERS = 16  # per word, more than any English text has on average
LONGEST_PHRASE = 80  # letters; what is longer is no phrase but a run of letters, and would become a concept
_LOOKED_AT = 2000  # characters from which a script is told
_LAST_LATIN = "\u024f"
NEEDLESS = ["parser", "ner", "lemmatizer", "trainable_lemmatizer", "senter", "entity_linker", "textcat"]


class PhraseConfig(Config):
    """How nouns are found in captions."""

    tagger: str | None = None
    """spaCy pipeline as a folder or an installed package; `rules` for the built-in word lists; unset: en_core_web_sm where it is
    installed, else the rules."""
    kinds: tuple[PhraseKind, ...] = Field(default=("noun",), min_length=1)
    """`noun`: the head of each run of nouns; `attribute`: "red car"; `relation`: "man riding horse"; ViCHA uses nouns alone"""
    max_words: PositiveInt = 256
    """words of a text that are read; what is behind them is left out, and such texts are counted"""
    batch_size: PositiveInt = 256
    """captions per tagging batch"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTally:
    """How many of some texts were out of the ordinary.

    Attributes:
        texts: all of them.
        empty: hold no letter.
        cut: longer than `max_words`.
        foreign: most of their letters are none of the Latin script, which no tagger here reads.
    """

    texts: int = 0
    empty: int = 0
    cut: int = 0
    foreign: int = 0

    def __add__(self, other: TextTally) -> TextTally:
        return TextTally(
            texts=self.texts + other.texts,
            empty=self.empty + other.empty,
            cut=self.cut + other.cut,
            foreign=self.foreign + other.foreign,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """A text cut into words, punctuation among them.

    Attributes:
        words: in lower case.
        starts: the character of the text at which each begins.
        classes: of each word.
    """

    words: tuple[str, ...]
    starts: tuple[int, ...]
    classes: tuple[Guess, ...]


def tally_texts(texts: Sequence[str], *, max_words: int) -> TextTally:
    """Count what is out of the ordinary."""
    plain = [text.isascii() for text in texts]
    foreign = [not ascii and _is_foreign(text) for text, ascii in zip(texts, plain, strict=True)]
    return TextTally(
        texts=len(texts),
        empty=sum(not any(map(str.isalpha, text)) for text in texts),
        cut=sum(_cut(text, max_words) is not text for text in texts),
        foreign=sum(foreign),
    )


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
        return self.phrases(texts, kinds=("noun",))

    def phrases(self, texts: Sequence[str], *, kinds: Sequence[PhraseKind] | None = None) -> list[list[str]]:
        """List the phrases of each text, lower-cased, repeats kept; of a text of other scripts, none. None is longer than
        `LONGEST_PHRASE`.

        Args:
            texts: captions, questions or expressions.
            kinds: which phrases; unset: those of the config.
        """
        wanted = kinds or self.config.kinds
        bounded = [
            "" if not text.isascii() and _is_foreign(text) else _cut(text, self.config.max_words) for text in texts
        ]
        if self.name == RULES_NAME:
            make_doc = self._nlp.make_doc
            rows = ([token.text for token in make_doc(text)] for text in bounded)
            found = (find_phrases([word.lower() for word in row], guess_classes(row), wanted) for row in rows)
        else:
            docs = self._nlp.pipe(bounded, batch_size=self.config.batch_size)
            found = (find_phrases([token.lower_ for token in doc], _classes_by_tags(doc), wanted) for doc in docs)
        return [[phrase for phrase in phrases if len(phrase) <= LONGEST_PHRASE] for phrases in found]

    def tagged(self, texts: Sequence[str]) -> list[Tagged]:
        """Say the words of each text and their classes; of a text of other scripts or beyond `max_words`, none.

        Words stand where the text has them, so that one can be exchanged and the rest left as it is.
        """
        limit = self.config.max_words
        bounded = [
            "" if (not text.isascii() and _is_foreign(text)) or _cut(text, limit) is not text else text
            for text in texts
        ]
        docs = (
            (self._nlp.make_doc(text) for text in bounded)
            if self.name == RULES_NAME
            else self._nlp.pipe(bounded, batch_size=self.config.batch_size)
        )
        by_rules = self.name == RULES_NAME
        found: list[Tagged] = []
        for doc in docs:
            kept = [
                place for place, token in enumerate(doc) if not token.is_space
            ]  # "a  dog" holds a token of one blank
            words = [doc[place].text for place in kept]
            tags = () if by_rules else _classes_by_tags(doc)
            classes = guess_classes(words) if by_rules else [tags[place] for place in kept]
            found.append(
                Tagged(
                    words=tuple(word.lower() for word in words),
                    starts=tuple(doc[place].idx for place in kept),
                    classes=tuple(classes),
                )
            )
        return found


_CLASSES: dict[str, Guess] = {
    "NOUN": "noun",
    "PROPN": "noun",
    "ADJ": "adjective",
    "VERB": "verb",
    "AUX": "verb",
    "DET": "determiner",
    "NUM": "determiner",
    "ADP": "preposition",
}


def _classes_by_tags(doc: Doc) -> list[Guess]:
    return [_CLASSES.get(token.pos_, "other") for token in doc]


def _cut(text: str, max_words: int) -> str:
    """The first words of a text, itself where it has no more; a run of characters without spaces counts by its length."""
    longest = max_words * _LETTERS
    if len(text) <= 2 * max_words:  # too short for that many words
        return text
    words = text[:longest].split(maxsplit=max_words)
    if len(words) <= max_words and len(text) <= longest:
        return text
    return " ".join(words[:max_words])


def _is_foreign(text: str) -> bool:
    letters = [letter for letter in text[:_LOOKED_AT] if letter.isalpha()]
    return sum(letter > _LAST_LATIN for letter in letters) > len(letters) / 2


@cache  # a command makes several extractors, and one warning will do
def _tell_of_rules() -> None:
    logger.warning(
        "no part-of-speech tagger at hand (%s is not installed and phrases.tagger is unset): nouns are found by word lists and "
        "endings, which is rougher",
        INSTALLED,
    )


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
            _tell_of_rules()
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
