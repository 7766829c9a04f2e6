"""Train a part-of-speech tagger for captions on a treebank that you have, in minutes on one core, and say how right it is.

    python -m benchmarks.treebank_tagger treebank=en_ewt-ud-train.conllu output=tagger

`treebank` is a CoNLL-U file, such as those of Universal Dependencies (repeat it for several); `output` becomes a spaCy pipeline,
which `phrases.tagger=FOLDER` takes. Every tenth sentence is held out, unless `held_out=FILE` gives others. What such a pipeline
has learned stands under the licence of the treebank. `python -m benchmarks.phrases treebank=FILE` compares it with the other ways.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.errors import ConfigError, InputError, MissingLibraryError

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc
    from spacy.training import Example

HELD_OUT = 10  # of so many sentences one is held out
STEPS, SEED = 1500, 0
WORDS = 1000  # of one step, about
DROPOUT = 0.1
LEARN_RATE = 0.001
# A small model in the manner of spaCy's own: hashed forms of each word, then a window of four words to either side.
WIDTH, DEPTH = 96, 4
FORMS = {"NORM": 5000, "PREFIX": 1000, "SUFFIX": 2500, "SHAPE": 1000}


def read_treebank(path: Path) -> list[Doc]:
    """Read the sentences of a CoNLL-U file with their universal parts of speech.

    Raises:
        MissingLibraryError: spaCy is not installed.
        InputError: the file cannot be read, or is no treebank with parts of speech.
    """
    try:
        from spacy.training.converters import conllu_to_docs
    except ImportError as problem:
        raise MissingLibraryError("training a tagger needs spaCy; install the extra: ostraka[text]") from problem
    try:
        docs = list(conllu_to_docs(path.read_text(encoding="utf-8-sig"), n_sents=1, no_print=True))
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({problem}); give a CoNLL-U file") from problem
    except (ValueError, IndexError, KeyError) as problem:
        raise InputError(f"{path}: no CoNLL-U ({problem}); give a treebank of Universal Dependencies") from problem
    docs = [doc for doc in docs if len(doc)]
    if not any(token.pos_ for doc in docs for token in doc):
        raise InputError(f"{path}: no word has a universal part of speech (fourth column); give a treebank with them")
    return docs


def train_tagger(sentences: Sequence[Doc], *, steps: int = STEPS, seed: int = SEED) -> Language:
    """Train a pipeline that tells parts of speech; the same sentences, steps and seed give the same one.

    Args:
        sentences: with their words and parts of speech.
        steps: of about a thousand words each.
        seed: of the weights, the order and the dropout.
    """
    import spacy
    from spacy.util import fix_random_seed

    fix_random_seed(seed)
    nlp = spacy.blank("en")
    embed = {
        "@architectures": "spacy.MultiHashEmbed.v2",
        "width": WIDTH,
        "attrs": list(FORMS),
        "rows": list(FORMS.values()),
    }
    encode = {"@architectures": "spacy.MaxoutWindowEncoder.v2", "width": WIDTH, "depth": DEPTH, "window_size": 1}
    tok2vec = {
        "@architectures": "spacy.Tok2Vec.v2",
        "embed": {**embed, "include_static_vectors": False},
        "encode": {**encode, "maxout_pieces": 3},
    }
    nlp.add_pipe("morphologizer", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": tok2vec}})
    examples = [_example(nlp, doc) for doc in sentences]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = LEARN_RATE
    for batch, _ in zip(_batches(examples, random.Random(seed)), range(steps), strict=False):
        nlp.update(batch, drop=DROPOUT, sgd=optimizer)
    with nlp.use_params(optimizer.averages):
        return spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())


def accuracy(nlp: Language, sentences: Sequence[Doc]) -> float:
    """The share of words whose part of speech is told rightly, given the words."""
    from spacy.tokens import Doc

    right = total = 0
    for doc in sentences:
        told = nlp(
            Doc(nlp.vocab, words=[token.text for token in doc], spaces=[bool(token.whitespace_) for token in doc])
        )
        right += sum(one.pos_ == other.pos_ for one, other in zip(told, doc, strict=True))
        total += len(doc)
    return right / max(1, total)


def split(sentences: Sequence[Doc]) -> tuple[list[Doc], list[Doc]]:
    """Sentences to learn from, and every tenth to be held out."""
    held = [doc for place, doc in enumerate(sentences) if place % HELD_OUT == HELD_OUT - 1]
    return [doc for place, doc in enumerate(sentences) if place % HELD_OUT != HELD_OUT - 1], held


def _example(nlp: Language, doc: Doc) -> Example:
    from spacy.tokens import Doc as Words
    from spacy.training import Example

    words, spaces = [token.text for token in doc], [bool(token.whitespace_) for token in doc]
    known = Words(nlp.vocab, words=words, spaces=spaces, pos=[token.pos_ for token in doc])
    return Example(Words(nlp.vocab, words=words, spaces=spaces), known)


def _batches(examples: Sequence[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Batches of about so many words, over and over, in another order each time."""
    while True:
        order = list(examples)
        rng.shuffle(order)
        batch: list[Example] = []
        words = 0
        for example in order:
            batch.append(example)
            words += len(example.reference)
            if words >= WORDS:
                yield batch
                batch, words = [], 0
        if batch:
            yield batch


def main() -> None:
    """Train, save, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", help="treebank=FILE output=FOLDER [held_out=FILE steps= seed=]")
    pairs = [each.split("=", 1) for each in parser.parse_args().settings]
    treebanks = [value for key, value in pairs if key == "treebank"]
    said = {key: value for key, value in pairs if key != "treebank"}
    if not treebanks or "output" not in said:
        raise ConfigError("give treebank=FILE and output=FOLDER")
    sentences = [doc for path in treebanks for doc in read_treebank(Path(path))]
    learned, held = split(sentences)
    if "held_out" in said:
        learned, held = sentences, read_treebank(Path(said["held_out"]))
    started = time.process_time()
    nlp = train_tagger(learned, steps=int(said.get("steps", STEPS)), seed=int(said.get("seed", SEED)))
    result: dict[str, Any] = {
        "sentences": len(learned),
        "held_out": len(held),
        "accuracy": round(accuracy(nlp, held), 4),
        "cpu_s": round(time.process_time() - started, 1),
    }
    nlp.meta["name"] = "treebank"
    nlp.to_disk(said["output"])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
