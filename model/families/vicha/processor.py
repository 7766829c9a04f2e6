"""From pairs to a ViCHA batch: texts and concepts to ids, and every random choice of the step.

What the other processors of the line share with this one is the base class; they are in `head_processors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.examples import Example, Paired, UnfitError, View, stack_images
from model.families.vicha.batch import PairBatch
from model.families.vicha.config import Config, Padding
from model.families.vicha.heads import AssignHead
from model.family import Rank
from model.text_cleaning import clean_caption
from model.tokenizer import WordPiece, pad

ExampleT = TypeVar("ExampleT", bound=Example)


@dataclass(frozen=True, slots=True)
class Draws:
    """All that one example draws, from its own seed and for its own length: neither the batch nor a rank changes it."""

    match: NDArray[np.float32]  # (2,)
    words: NDArray[np.float64]  # (3, T) for each token: is it hidden, how is it shown, which word instead
    concepts: NDArray[np.float64]  # (n,) which concepts are drawn
    patches: NDArray[np.float32]  # (P,)
    assign: NDArray[np.float32]  # (3,)


class PictureTextProcessor:
    """Holds the tokenizer and the family's config; makes token ids of texts and concepts. Runs in loader workers."""

    def __init__(self, config: Config, tokenizer: WordPiece) -> None:
        if len(tokenizer) != config.text.vocab_size:
            raise ValueError(
                f"the vocabulary has {len(tokenizer)} words and the family is built for {config.text.vocab_size}; "
                f"name the vocabulary that its weights were trained with, or set text.vocab_size={len(tokenizer)} for new ones"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.view = View(image_size=config.image_size, mean=config.pixel_mean, std=config.pixel_std)

    def request(self, request: Rank) -> Rank:
        """Nothing to prepare where candidates are numbers to the model, as classes are."""
        return request

    def check_sizes(self, examples: Sequence[Example]) -> None:
        """Refuse a picture of another size by its example's key.

        Raises:
            ValueError: a picture is not as the view says.
        """
        size = self.config.image_size
        for example in examples:
            for image in example.images:
                if image.shape != (3, size, size):
                    raise ValueError(
                        f"{example.key}: picture of shape {tuple(image.shape)} where (3, {size}, {size}) is expected; "
                        "crop and resize it to the processor's view"
                    )

    def concepts(
        self, words: Sequence[Sequence[str]], draws: Sequence[NDArray[np.float64]] | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Cut concepts into tokens.

        Args:
            words: of each picture, best first.
            draws: for each picture `concepts.draw` uniform numbers, which choose its concepts in training; `None` in
                evaluation.

        Returns:
            (B, K) ids and mask, or `None` twice where the family sees no concepts.
        """
        settings = self.config.concepts
        if settings is None:
            return None, None
        chosen = [tuple(each) for each in words]
        if draws is not None and settings.draw is not None:
            chosen = [
                tuple(each[int(place * len(each))] for place in draw) if each else ()
                for each, draw in zip(chosen, draws, strict=True)
            ]
        joint = " " if settings.separator == "space" else " [SEP] "
        rows = self.tokenizer.encode_batch([joint.join(each) for each in chosen], max_tokens=settings.max_tokens)
        padding = settings.eval_padding if draws is None else settings.train_padding
        return self.pad(rows, settings.max_tokens, padding)

    def pad(self, rows: Sequence[Sequence[int]], longest: int, padding: Padding) -> tuple[Tensor, Tensor]:
        """Stack rows of ids, to the longest of them or to a fixed length."""
        return pad(rows, pad_id=self.tokenizer.pad_id, length=longest if padding == "fixed" else None)


class VichaProcessor(PictureTextProcessor):
    """Makes batches of pairs."""

    def __init__(self, config: Config, tokenizer: WordPiece) -> None:
        super().__init__(config, tokenizer)
        self.patches = (config.image_size // config.patch_size) ** 2

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> PairBatch:
        """Make a batch of pairs.

        Args:
            examples: `Paired`, all with one picture or (for embedding texts) all without.
            seeds: one number per example; all its draws come from it.
            train: whether to draw concepts, hide words and patches; else texts are padded to their fixed lengths, so
                that states of different batches can be put together.

        Raises:
            ValueError: an example is no pair, weighs other than 1, or has a picture of another size; or there is not
                one seed per example.
        """
        pairs = of_kind(examples, Paired, seeds)
        for pair in pairs:
            if pair.weight != 1.0:
                raise ValueError(f"{pair.key}: weighs {pair.weight}, but pairs are not weighted; weight the stream")
        self.check_sizes(pairs)
        texts = [clean_caption(pair.text, max_words=self.config.cleaning.max_words) for pair in pairs]
        rows = self.tokenizer.encode_batch(texts, max_tokens=self.config.cleaning.max_tokens)
        wrong = self._wrong_texts(pairs) if train else []
        ids, mask = self.pad([*rows, *wrong], self.config.cleaning.max_tokens, "longest" if train else "fixed")
        text_ids, text_mask = ids[: len(pairs)], mask[: len(pairs)]
        draws = [self._draw(seed, len(row)) for seed, row in zip(seeds, rows, strict=True)] if train else []
        concept_ids, concept_mask = self.concepts(
            [pair.concepts for pair in pairs], [draw.concepts for draw in draws] if train else None
        )
        masked_ids, positions, targets = self._hide_words(text_ids, rows, draws)
        return PairBatch(
            keys=tuple(pair.key for pair in pairs),
            pixels=stack_images(tuple(pairs)) if pairs[0].images else None,
            text_ids=text_ids,
            text_mask=text_mask,
            identity=torch.tensor([pair.identity for pair in pairs], dtype=torch.long),
            concept_ids=concept_ids,
            concept_mask=concept_mask,
            masked_ids=masked_ids,
            masked_positions=positions,
            masked_targets=targets,
            patch_noise=_stacked([draw.patches for draw in draws]) if self.config.masked_image else None,
            match_noise=_stacked([draw.match for draw in draws]),
            wrong_ids=ids[len(pairs) :] if wrong else None,
            wrong_mask=mask[len(pairs) :] if wrong else None,
            is_wrong=torch.tensor([bool(pair.wrong_text) for pair in pairs]) if wrong else None,
            assign_noise=_stacked([draw.assign for draw in draws])
            if isinstance(self.config.head, AssignHead)
            else None,
        )

    def _wrong_texts(self, pairs: Sequence[Paired]) -> list[list[int]]:
        """Cut the wrong texts into tokens; a pair without one gets an empty text, and a batch without any no row at all."""
        if not any(pair.wrong_text for pair in pairs):
            return []
        texts = [clean_caption(pair.wrong_text, max_words=self.config.cleaning.max_words) for pair in pairs]
        return [list(row) for row in self.tokenizer.encode_batch(texts, max_tokens=self.config.cleaning.max_tokens)]

    def _draw(self, seed: int, tokens: int) -> Draws:
        rng = np.random.default_rng(seed)
        wanted = self.config.concepts.draw if self.config.concepts else None
        # In this order and always all of them, the patches last: an objective that is left out changes no other's draws.
        return Draws(
            match=rng.random(2, dtype=np.float32),
            words=rng.random((3, tokens)),
            concepts=rng.random(wanted or 0),
            patches=rng.random(self.patches, dtype=np.float32),
            assign=rng.random(3, dtype=np.float32),
        )

    def _hide_words(
        self, text_ids: Tensor, rows: Sequence[Sequence[int]], draws: Sequence[Draws]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        settings = self.config.masked_text
        if settings is None or not draws:
            return None, None, None
        hidden = text_ids.clone()
        places: list[int] = []
        for row, (ids, draw) in enumerate(zip(rows, draws, strict=True)):
            chosen, shown, word = draw.words
            chosen[0] = 1.0  # the class token is never hidden
            for place in np.flatnonzero(chosen < settings.probability).tolist():
                places.append(row * text_ids.shape[1] + place)
                if shown[place] < settings.mask_share:
                    hidden[row, place] = self.tokenizer.mask_id
                elif shown[place] < settings.mask_share + settings.random_share:
                    hidden[row, place] = int(word[place] * len(self.tokenizer))
            assert len(ids) == len(chosen)
        positions = torch.tensor(places, dtype=torch.long)
        return hidden, positions, text_ids.flatten()[positions]


def of_kind(examples: Sequence[Example], kind: type[ExampleT], seeds: Sequence[int]) -> list[ExampleT]:
    """Check that all examples are of one kind and have a seed each.

    Raises:
        UnfitError: one is of another kind.
        ValueError: there is not one seed per example.
    """
    if len(seeds) != len(examples):
        raise ValueError(f"{len(seeds)} seeds given for {len(examples)} examples; give one each")
    found = [example for example in examples if isinstance(example, kind)]
    if len(found) != len(examples):
        odd = next(example for example in examples if not isinstance(example, kind))
        raise UnfitError(
            f"{odd.key}: this vicha reads {kind.__name__} examples, not {type(odd).__name__}; choose a task that fits its head"
        )
    return found


def _stacked(rows: Sequence[NDArray[np.float32]]) -> Tensor | None:
    return torch.from_numpy(np.stack(rows)) if rows else None
