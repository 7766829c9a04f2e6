"""WordPiece tokenizer in the way of ALBEF and ViCHA: lower case, `[CLS]` first, and no `[SEP]` at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

import torch
from torch import Tensor

PAD, UNK, CLS, SEP, MASK = SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILE = "vocab.txt"

_KNOWN, _LONGEST_KNOWN = 1 << 16, 32  # words whose pieces are remembered, and the letters of the longest: about 10 MB
# In every trained vocabulary, so that what a later task asks or answers ("how many? 3") can be spelled, if only by letters.
ALPHABET = frozenset(ascii_lowercase + digits)


class WordPiece:
    """Texts to token ids and back. `[SEP]` and the other special words are kept whole where a text spells them."""

    def __init__(self, words: Sequence[str]) -> None:
        """Build from a vocabulary; a word's place is its id.

        Raises:
            ValueError: a special word is missing, `[PAD]` is not the first, or a word occurs twice.
        """
        ids = {word: place for place, word in enumerate(words)}
        missing = [word for word in SPECIALS if word not in ids]
        if missing or len(ids) != len(words) or words[0] != PAD:
            raise ValueError(
                f"not a WordPiece vocabulary of this line: it must begin with {PAD}, hold {', '.join(SPECIALS)} and no word "
                f"twice ({f'missing {missing}' if missing else f'{len(words)} words, {len(ids)} different'})"
            )
        self.words = tuple(words)
        self.ids = ids
        self._backend = _backend(ids)
        self._known: dict[str, Sequence[int]] = {}

    def __len__(self) -> int:
        return len(self.words)

    def __reduce__(self) -> tuple[Any, ...]:
        return WordPiece, (self.words,)  # loader workers get the vocabulary and build their own backend

    @property
    def pad_id(self) -> int:
        return self.ids[PAD]

    @property
    def cls_id(self) -> int:
        return self.ids[CLS]

    @property
    def sep_id(self) -> int:
        return self.ids[SEP]

    @property
    def mask_id(self) -> int:
        return self.ids[MASK]

    def encode(self, text: str, *, max_tokens: int | None = None) -> list[int]:
        """`[CLS]` and the pieces of a text, cut to `max_tokens` (the class token counted)."""
        return self.encode_batch([text], max_tokens=max_tokens)[0]

    def encode_batch(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
        """Encode many texts."""
        return [
            [self.cls_id, *chain.from_iterable(map(self._pieces_of, text.split(" ")))][:max_tokens] for text in texts
        ]

    def _pieces_of(self, word: str) -> Sequence[int]:
        """The ids of what stands between two blanks.

        A blank always parts words, and nothing before it changes what is behind it. So a word has the same pieces wherever it
        stands, and texts, made of few different words, are looked up in a sixteenth of the time that cutting them takes.
        """
        found = self._known.get(word)
        if found is None:
            found = self._backend.encode(word, add_special_tokens=False).ids
            if len(word) <= _LONGEST_KNOWN:
                if len(self._known) >= _KNOWN:
                    self._known.clear()
                self._known[word] = found
        return found

    def encode_pair(self, first: str, second: str) -> list[int]:
        """`[CLS]` first `[SEP]` second `[SEP]`: a pair, unlike a single text, does end with `[SEP]`."""
        return [*self.encode(first), self.sep_id, *self.encode(second)[1:], self.sep_id]

    def decode(self, ids: Iterable[int]) -> str:
        """Join pieces to a readable text without special words."""
        pieces = [self.words[place] for place in ids if self.words[place] not in SPECIALS]
        return " ".join(pieces).replace(" ##", "")

    def save(self, path: str | Path) -> Path:
        """Write the vocabulary, one word per line: to the file given, or to `vocab.txt` in the folder given."""
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        file.write_text("".join(f"{word}\n" for word in self.words), encoding="utf-8")
        return file


def pad(rows: Sequence[Sequence[int]], *, pad_id: int = 0, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Stack rows of ids.

    Args:
        rows: one list of ids per text, none longer than `length`.
        pad_id: what fills them up.
        length: tokens per row; `None` takes the longest.

    Returns:
        (B, T) int64 ids and the (B, T) bool mask of real tokens.
    """
    width = length or max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = True
    return ids, mask


def load_tokenizer(path_or_name: str | Path) -> WordPiece:
    """Load a vocabulary file, a folder that holds `vocab.txt`, or a published tokenizer by name.

    A name such as `bert-base-uncased` is resolved by transformers: from its cache, else from the model hub.

    Raises:
        ValueError: the file is not such a vocabulary, or the name cannot be resolved.
    """
    path = Path(path_or_name)
    file = path / FILE if path.is_dir() else path
    if file.is_file():
        return WordPiece(file.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    from transformers import AutoTokenizer

    try:
        vocabulary = AutoTokenizer.from_pretrained(str(path_or_name)).get_vocab()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer {str(path_or_name)!r} is neither a vocabulary file nor a name that the hub or its cache resolves; "
            "give the path of a vocab.txt, or train one on the captions"
        ) from error
    return WordPiece(sorted(vocabulary, key=vocabulary.__getitem__))


def train_wordpiece(texts: Iterable[str], *, vocab_size: int, path: str | Path, min_frequency: int = 2) -> Path:
    """Train a vocabulary on texts and write it, one word per line.

    The same texts give the same file on every machine: words are counted here, and all characters are put into the
    vocabulary beforehand, because the trainer otherwise numbers them in the order of a randomised hash table.

    Args:
        texts: any number of texts; only their word counts are held in memory.
        vocab_size: words at most, the special ones included; letters, digits and the characters of the texts are always
            kept.
        path: the file to write, or an existing folder for its `vocab.txt`.
        min_frequency: how often a piece must occur to become a word.

    Returns:
        The path of the file.

    Raises:
        ValueError: there is no text to train on.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece as WordPieceModel
    from tokenizers.trainers import WordPieceTrainer

    backend = _backend({word: place for place, word in enumerate(SPECIALS)})
    counts: Counter[str] = Counter()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    if not counts:
        raise ValueError("no text to train a vocabulary on; check that the dataset has captions")
    starts = sorted({word[0] for word in counts} | ALPHABET)
    inner = sorted({f"##{letter}" for letter in ALPHABET.union(*(word[1:] for word in counts))})
    trainer = WordPieceTrainer(
        vocab_size=max(vocab_size, len(SPECIALS) + len(starts) + len(inner)),
        min_frequency=min_frequency,
        special_tokens=[*SPECIALS, *starts, *inner],
        show_progress=False,
    )
    model = Tokenizer(WordPieceModel(unk_token=UNK))
    model.train_from_iterator(_repeated(counts), trainer)
    vocabulary = model.get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    return WordPiece(words).save(path)


def _repeated(counts: Counter[str]) -> Iterable[str]:
    """Give each word as often as it was counted, in an order of its own."""
    for word, count in sorted(counts.items()):
        for _ in range(count):
            yield word


def _backend(ids: dict[str, int]) -> Any:
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordPiece as WordPieceModel
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    backend = Tokenizer(WordPieceModel(ids, unk_token=UNK, max_input_chars_per_word=100))
    backend.normalizer = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True)
    backend.pre_tokenizer = BertPreTokenizer()
    backend.add_special_tokens([AddedToken(word, normalized=False, special=True) for word in SPECIALS])
    return backend
