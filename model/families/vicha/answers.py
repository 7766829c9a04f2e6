"""ViCHA fine-tuned to answer questions about pictures in words, and to rank a list of answers (VQA)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softmax

from model.examples import Example, Generate, UnfitError
from model.families.vicha.batch import AnswersBatch
from model.families.vicha.config import Config
from model.families.vicha.finetuned import SIDES, Finetuned
from model.families.vicha.heads import AnswersHead
from model.families.vicha.towers import Reader, one_picture_fusion
from model.family import Losses, Rank, Ranking
from model.objectives.answers import AnswerTexts, answer_losses, answer_texts
from model.towers.decoder import WordDecoder
from model.towers.text import FusionTower

ROWS_PER_PASS = 512  # answers that the decoder ranks at once: at 30,000 words a few hundred MB of logits


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTokens(Rank):
    """A request to rank, its candidates cut into tokens."""

    ids: Tensor  # (C, T): class token, answer, [SEP], padding
    mask: Tensor  # (C, T) bool


class Answerer(Reader[FusionTower]):
    """A reader of questions, and a decoder of answers that attends to the questions' states."""

    def __init__(self, config: Config, layers: int) -> None:
        super().__init__(config, one_picture_fusion)
        self.decoder = WordDecoder(config.text, layers=layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersStep:
    """The loss of one step and what it was made of."""

    losses: Losses
    asked: Tensor  # (B, T, Dt) states of the questions
    decoded: Tensor  # (A, Ta, Dt) states of the answers
    answer_losses: Tensor  # (A,)
    logits: Tensor  # (M, V) at the positions that a real token follows
    twin_logits: Tensor | None  # (M, V)


class VichaAnswers(Finetuned[Answerer]):
    """The question reads the picture; a decoder with causal attention reads the question and writes the answer."""

    serves: ClassVar[frozenset[type[Example]]] = frozenset({Generate})

    def __init__(self, config: Config) -> None:
        assert isinstance(config.head, AnswersHead)
        layers = config.head.layers or config.text.layers - config.text.fusion_layer
        super().__init__(config, Answerer(config, layers), config.head.distil)
        self.head_config = config.head

    def losses(self, batch: AnswersBatch, *, soften: float) -> Losses:
        return self.step(batch, soften=soften).losses

    def step(self, batch: AnswersBatch, *, soften: float) -> AnswersStep:
        """Compute one step with everything it is made of; its loss is named `answers`.

        Raises:
            UnfitError: the batch has no answers.
        """
        texts, owners, weights = _answers(batch)
        soften = soften if self.head_config.soft_answers == "used" else 0.0
        self.move_twin()
        asked = self.ask(self.student, batch)
        decoded = self.student.decoder(texts.ids, texts.mask, asked, batch.text_mask, owners)
        logits, twin_logits = _logits(self.student, decoded, texts), None
        if self.twin is not None and soften > 0:
            with torch.no_grad():
                states = self.twin.decoder(texts.ids, texts.mask, self.ask(self.twin, batch), batch.text_mask, owners)
                twin_logits = _logits(self.twin, states, texts)
        each = answer_losses(logits, texts, twin_logits, soften=soften)
        # Divided by the questions, not the answers: the weights of a question's answers add up to one.
        return AnswersStep(
            losses=Losses({"answers": (each * weights).sum() / len(batch)}),
            asked=asked,
            decoded=decoded,
            answer_losses=each,
            logits=logits,
            twin_logits=twin_logits,
        )

    def ask(self, towers: Answerer, batch: AnswersBatch) -> Tensor:
        """(B, T, Dt) states of the questions, read against their pictures."""
        seen, _ = self.look(towers, batch.pictures)
        read = towers.text(batch.text_ids, batch.text_mask)
        return towers.fusion(read.top, read.mask, seen.top)  # type: ignore[no-any-return]

    def rank(self, batch: AnswersBatch, request: Rank) -> Ranking:
        """Keep the candidates whose first token is the likeliest, and rank these by the whole answer.

        Raises:
            ValueError: the request's candidates are not cut into tokens.
        """
        if not isinstance(request, RankTokens):
            raise ValueError("the candidates are texts; let the processor's `request` cut them into tokens")
        request = replace(
            request, ids=request.ids.to(batch.text_ids.device), mask=request.mask.to(batch.text_ids.device)
        )
        decoder, asked = self.student.decoder, self.ask(self.student, batch)
        questions, keep = len(batch), min(request.keep, len(request.ids))
        every = torch.arange(questions, device=asked.device)
        start = request.ids[:1, :1].expand(questions, 1)
        first = decoder(start, torch.ones_like(start, dtype=torch.bool), asked, batch.text_mask, every)[:, 0]
        likely = softmax(decoder.logits(first).float(), dim=1)[:, request.ids[:, 1]].topk(keep, dim=1)
        scores = -self._losses_of(request, likely.indices.flatten(), asked, batch.text_mask).view(questions, keep)
        if self.head_config.first_token == "twice":
            scores = scores + likely.values.log()
        best = softmax(scores, dim=1).topk(keep, dim=1)
        return Ranking(places=likely.indices.gather(1, best.indices), scores=best.values)

    def adopt_student(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The decoder starts as the fusion tower, with the text's embeddings and the head of masked words."""
        found = dict(tensors)
        own = self.state_dict()
        for side in SIDES:
            if any(name.startswith(f"{side}.decoder.") for name in tensors):
                continue
            origins = {"layers": "fusion.layers", "embedding": "text.embedding", "words": "words"}
            for part, origin in origins.items():
                for name, value in tensors.items():
                    ours = f"{side}.decoder.{part}." + name.removeprefix(f"{side}.{origin}.")
                    # Keys and values over pictures only fit where pictures are as wide as texts, as published.
                    if name.startswith(f"{side}.{origin}.") and ours in own and own[ours].shape == value.shape:
                        found[ours] = value
        return {
            name: value for name, value in found.items() if not name.startswith(tuple(f"{s}.words." for s in SIDES))
        }

    def _losses_of(self, request: RankTokens, chosen: Tensor, asked: Tensor, asked_mask: Tensor) -> Tensor:
        """(B * k,) losses of the chosen candidates, k in a row for each question."""
        owners = torch.arange(len(asked), device=asked.device).repeat_interleave(len(chosen) // len(asked))
        parts = []
        for rows, whose in zip(torch.split(chosen, ROWS_PER_PASS), torch.split(owners, ROWS_PER_PASS), strict=True):
            texts = answer_texts(request.ids[rows], request.mask[rows])
            decoded = self.student.decoder(texts.ids, texts.mask, asked, asked_mask, whose)
            parts.append(answer_losses(_logits(self.student, decoded, texts), texts, None, soften=0.0))
        return torch.cat(parts)


def _logits(towers: Answerer, states: Tensor, texts: AnswerTexts) -> Tensor:
    return towers.decoder.logits(states.flatten(0, 1)[texts.positions])


def _answers(batch: AnswersBatch) -> tuple[AnswerTexts, Tensor, Tensor]:
    if (
        batch.answer_ids is None
        or batch.answer_mask is None
        or batch.answer_owners is None
        or batch.answer_weights is None
        or batch.target_positions is None
        or batch.target_ids is None
    ):
        raise UnfitError("this batch holds questions without answers; train on a split whose answers are published")
    texts = AnswerTexts(
        ids=batch.answer_ids, mask=batch.answer_mask, positions=batch.target_positions, targets=batch.target_ids
    )
    return texts, batch.answer_owners, batch.answer_weights
