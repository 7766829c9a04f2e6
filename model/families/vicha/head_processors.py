"""From questions, texts with classes and statements about two pictures to the batches of the fine-tuned models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.examples import Classify, Compare, Example, Generate, UnfitError, stack_images
from model.families.vicha.answers import RankTokens
from model.families.vicha.batch import AnswersBatch, ClassesBatch, CompareBatch
from model.families.vicha.config import Config
from model.families.vicha.heads import AnswersHead, ClassesHead
from model.families.vicha.processor import PictureTextProcessor, of_kind
from model.family import Rank
from model.objectives.answers import answer_texts
from model.text_cleaning import clean_caption, clean_question
from model.tokenizer import SEP, WordPiece, pad

Draws = list[NDArray[np.float64]]  # for each picture, the numbers that choose its concepts


class HeadProcessor(PictureTextProcessor):
    """What the three share: pictures with concepts, and texts padded to the longest of the batch.

    Padding of texts is masked everywhere, so their length changes no number; that of concepts is seen by the picture
    tower, and follows `concepts.…_padding`.
    """

    def pixels(self, examples: Sequence[Example], *, pictures: int = 1) -> Tensor:
        """Stack the pictures of each example: (B, 3, H, W), or (B, pictures, 3, H, W) where there are several.

        Raises:
            UnfitError: an example has fewer pictures, or one has another size than the view says.
        """
        for example in examples:
            if len(example.images) < pictures:
                raise UnfitError(f"{example.key}: has {len(example.images)} pictures where {pictures} are needed")
        self.check_sizes(examples)
        stacked = [stack_images(tuple(examples), position) for position in range(pictures)]
        return stacked[0] if pictures == 1 else torch.stack(stacked, dim=1)

    def texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Cut cleaned texts into tokens: (B, T) ids and mask."""
        rows = self.tokenizer.encode_batch(texts, max_tokens=self.config.cleaning.max_tokens)
        return self.pad(rows, self.config.cleaning.max_tokens, "longest")

    def captions(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Clean sentences as captions are cleaned, and cut them into tokens."""
        return self.texts([clean_caption(text, max_words=self.config.cleaning.max_words) for text in texts])

    def draw(self, seeds: Sequence[int], *, sets: int = 1) -> list[Draws]:
        """Draw concepts for `sets` pictures of each example, from its seed alone."""
        wanted = (self.config.concepts.draw if self.config.concepts else None) or 0
        drawn = [np.random.default_rng(seed).random((sets, wanted)) for seed in seeds]
        return [[each[place] for each in drawn] for place in range(sets)]


class ClassesProcessor(HeadProcessor):
    """Texts about a picture, each with one of the head's classes."""

    def __init__(self, config: Config, tokenizer: WordPiece) -> None:
        super().__init__(config, tokenizer)
        assert isinstance(config.head, ClassesHead)
        self.classes = config.head.classes

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> ClassesBatch:
        """Make a batch of `Classify` examples.

        Raises:
            UnfitError: an example is of another kind or names other classes than the head, or in training none.
            ValueError: its picture does not fit.
        """
        found = of_kind(examples, Classify, seeds)
        for example in found:
            if example.classes != self.classes:
                raise UnfitError(
                    f"{example.key}: classes {example.classes} where the model tells apart {self.classes}; "
                    "set family.head.classes to the task's"
                )
        text_ids, text_mask = self.captions([example.text for example in found])
        concept_ids, concept_mask = self.concepts(
            [each.concepts for each in found], self.draw(seeds)[0] if train else None
        )
        return ClassesBatch(
            keys=tuple(example.key for example in found),
            pixels=self.pixels(found),
            text_ids=text_ids,
            text_mask=text_mask,
            concept_ids=concept_ids,
            concept_mask=concept_mask,
            labels=_labels(found, [each.label for each in found], train=train),
            weights=_weights(found),
        )


class CompareProcessor(HeadProcessor):
    """Sentences about two pictures, true or false."""

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> CompareBatch:
        """Make a batch of `Compare` examples.

        Raises:
            UnfitError: an example is of another kind, has not two pictures, or in training no label.
            ValueError: a picture is of another size.
        """
        found = of_kind(examples, Compare, seeds)
        text_ids, text_mask = self.captions([example.text for example in found])
        first, second = self.draw(seeds, sets=2) if train else (None, None)
        concept_ids, concept_mask = self.concepts([each.concepts for each in found], first)
        second_ids, second_mask = self.concepts([each.second_concepts for each in found], second)
        return CompareBatch(
            keys=tuple(example.key for example in found),
            pixels=self.pixels(found, pictures=2),
            text_ids=text_ids,
            text_mask=text_mask,
            concept_ids=concept_ids,
            concept_mask=concept_mask,
            second_concept_ids=second_ids,
            second_concept_mask=second_mask,
            labels=_labels(found, [None if each.label is None else int(each.label) for each in found], train=train),
            weights=_weights(found),
        )


class AnswersProcessor(HeadProcessor):
    """Questions about a picture, with weighted answers to learn."""

    def __init__(self, config: Config, tokenizer: WordPiece) -> None:
        super().__init__(config, tokenizer)
        assert isinstance(config.head, AnswersHead)
        self.head = config.head

    def __call__(self, examples: Sequence[Example], seeds: Sequence[int], *, train: bool = True) -> AnswersBatch:
        """Make a batch of `Generate` examples; without answers where none of them has any.

        Raises:
            UnfitError: an example is of another kind, or in training one has no answer.
            ValueError: its picture does not fit.
        """
        found = of_kind(examples, Generate, seeds)
        words = self.head.max_words if train else self.head.eval_max_words
        text_ids, text_mask = self.texts([clean_question(example.prompt, max_words=words) for example in found])
        concept_ids, concept_mask = self.concepts(
            [each.concepts for each in found], self.draw(seeds)[0] if train else None
        )
        batch = AnswersBatch(
            keys=tuple(example.key for example in found),
            pixels=self.pixels(found),
            text_ids=text_ids,
            text_mask=text_mask,
            concept_ids=concept_ids,
            concept_mask=concept_mask,
        )
        return self._with_answers(batch, found) if train else batch

    def request(self, request: Rank) -> RankTokens:
        """Cut the candidates of a request into tokens."""
        ids, mask = self._answers(request.candidates)
        return RankTokens(candidates=request.candidates, keep=request.keep, ids=ids, mask=mask)

    def _with_answers(self, batch: AnswersBatch, examples: Sequence[Generate]) -> AnswersBatch:
        for example in examples:
            if not example.targets:
                raise UnfitError(
                    f"{example.key}: has no answer to learn; leave questions without answers out of training"
                )
        targets = [(row, target) for row, example in enumerate(examples) for target in example.targets]
        ids, mask = self._answers([target.text for _, target in targets])
        texts = answer_texts(ids, mask)
        return replace(
            batch,
            answer_ids=ids,
            answer_mask=mask,
            answer_owners=torch.tensor([row for row, _ in targets]),
            answer_weights=torch.tensor([target.weight * examples[row].weight for row, target in targets]),
            target_positions=texts.positions,
            target_ids=texts.targets,
        )

    def _answers(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Answers end with a literal [SEP]; they are cut only where the model has no more positions."""
        rows = self.tokenizer.encode_batch([text + SEP for text in texts], max_tokens=self.config.text.max_positions)
        return pad(rows, pad_id=self.tokenizer.pad_id)


def _labels(examples: Sequence[Example], labels: Sequence[int | None], *, train: bool) -> Tensor | None:
    """Stack labels; `None` where any is unknown, as all are in a test split.

    Raises:
        UnfitError: one is unknown in training.
    """
    if train and None in labels:
        raise UnfitError(
            f"{examples[labels.index(None)].key}: has no label to learn; train on a split whose labels are published"
        )
    known = [label for label in labels if label is not None]
    return torch.tensor(known) if len(known) == len(labels) else None


def _weights(examples: Sequence[Example]) -> Tensor | None:
    weights = [example.weight for example in examples]
    return None if set(weights) == {1.0} else torch.tensor(weights)
