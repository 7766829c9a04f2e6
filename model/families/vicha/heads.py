"""What a fine-tuned model of the line answers with, in place of the objectives on pairs: one config per task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from model.config import Config


class DistilConfig(Config):
    """Soft targets from a momentum twin while fine-tuning; the defaults are published."""

    alpha: float = Field(default=0.4, ge=0, le=1)  # share of the twin's prediction in the targets
    ramp: Literal["first_epoch", "none"] = "first_epoch"  # alpha rises from 0 during the first epoch
    momentum: float = Field(default=0.995, ge=0, le=1)


class AnswersHead(Config):
    """Questions about pictures, answered by a decoder (VQA)."""

    kind: Literal["answers"] = "answers"
    layers: PositiveInt | None = None  # of the decoder; `None` takes as many as the fusion tower has
    distil: DistilConfig | None = DistilConfig()  # `None`: no twin at all
    # The released code computes the twin's answers and then forgets to weigh them in.
    soft_answers: Literal["used", "ignored"] = "used"
    # The released ranking adds the probability of an answer's first token to that of the whole answer, which holds it.
    first_token: Literal["once", "twice"] = "once"
    max_words: PositiveInt = 30  # of a question in training
    eval_max_words: PositiveInt = 50


class ClassesHead(Config):
    """One of a few classes for a text about a picture (visual entailment)."""

    kind: Literal["classes"] = "classes"
    classes: tuple[str, ...] = Field(default=("contradiction", "neutral", "entailment"), min_length=2)
    distil: DistilConfig | None = DistilConfig(ramp="none")


class CompareHead(Config):
    """Whether a sentence about two pictures is true (NLVR2)."""

    kind: Literal["compare"] = "compare"
    distil: DistilConfig | None = DistilConfig()
    # The released model with concepts lets the teacher see pictures through the student's picture tower.
    teacher_pictures: Literal["twin", "student"] = "twin"


class AssignHead(Config):
    """Which of two pictures a caption describes, if any: the pretraining before `compare` (text assignment)."""

    kind: Literal["assign"] = "assign"
    temperature: PositiveFloat = 0.07  # of the similarity by which other pictures are drawn
    neither: float = Field(default=1 / 3, gt=0, lt=1)  # share of captions that are shown two other pictures


Head = Annotated[AnswersHead | ClassesHead | CompareHead | AssignHead, Field(discriminator="kind")]
