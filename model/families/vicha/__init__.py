"""ViCHA (Shukor, Couairon, Cord, 2022): contrast, hierarchical alignment, matching, masked words and masked pictures.

One config for the whole line. Without a head it is the model on pairs: pretraining has all objectives, retrieval and
grounding are `contrast.targets: identity` with `hierarchy`, `masked_text` and `masked_image` null; ALBEF is
`concepts: null` besides. `head.kind` makes of it one of the fine-tuned models: `answers` (VQA), `classes` (SNLI-VE),
`compare` (NLVR2), or `assign`, the pretraining on two pictures that goes before `compare`. Each begins with the weights of
the stage before (`init=…`); what has another name there finds it (`adopt`). Defaults are the published pretraining.

Where the released code does something a reader would not expect, we do the same by default, because released weights
were trained so, and name the choice:

| released behaviour | option that changes it |
| --- | --- |
| pictures see padded concepts, so padding changes results; it differs in training and evaluation | `concepts.…_padding` |
| concepts are drawn with replacement in training | `concepts.draw: null` shows all of them |
| the class token gets no position when patches are masked | `masked_image.class_position: true` |
| soft targets grow over the first epoch only when a switch says so | `contrast.ramp`, `head.distil.ramp` |
| the temperature is clamped in pretraining, not in fine-tuning | `contrast.temperature_range: null` (fine-tuning) |
| the twin runs with dropout, like the student | `text.dropout: 0` |

Its errors are not repeated unless asked for by name:

| released error | here | as released |
| --- | --- | --- |
| pictures of 380 pixels are cut into patches of 16, and the last 12 rows and columns are never seen | refused | `border: ignore` |
| of several processes, all but the first name wrong columns in the hierarchy | each its own | `hierarchy.rank_targets: first` |
| VQA computes the twin's answers and never weighs them in: costs for nothing | they count | `head.soft_answers: ignored` |
| a ranked answer's first token counts twice, in favour of likely beginnings | once | `head.first_token: twice` |
| NLVR2's teacher with concepts sees by the student's picture tower | by its own | `head.teacher_pictures: student` |
| the twin is copied before the weights are read, and starts untrained | copied after | none |
| a batch without any masked word gives NaN | zero | none |
| a batch whose pictures are all the same has no negative to draw | such rows do not count | none |
| the queue stops training where the batch does not divide its length | it wraps | none |
"""

from __future__ import annotations

from model.families.vicha.config import Config
from model.families.vicha.heads import AnswersHead, AssignHead, ClassesHead, CompareHead
from model.family import Family, Processor
from model.tokenizer import WordPiece

__all__ = ["Config", "build", "build_processor"]


def build(config: Config) -> Family:
    """Build the family with fresh weights from torch's global generator: the model on pairs, or a head's own."""
    family: Family
    match config.head:
        case None:
            from model.families.vicha.model import Vicha

            family = Vicha(config)
        case AnswersHead():
            from model.families.vicha.answers import VichaAnswers

            family = VichaAnswers(config)
        case ClassesHead():
            from model.families.vicha.classes import VichaClasses

            family = VichaClasses(config)
        case CompareHead():
            from model.families.vicha.compare import VichaCompare

            family = VichaCompare(config)
        case AssignHead():
            from model.families.vicha.assign import VichaAssign

            family = VichaAssign(config)
    return family


def build_processor(config: Config, tokenizer: WordPiece) -> Processor:
    """Build what turns examples into this family's batches.

    Raises:
        ValueError: the tokenizer's vocabulary is not the one the family is built for.
    """
    from model.families.vicha.head_processors import AnswersProcessor, ClassesProcessor, CompareProcessor
    from model.families.vicha.processor import VichaProcessor

    match config.head:
        case AnswersHead():
            return AnswersProcessor(config, tokenizer)
        case ClassesHead():
            return ClassesProcessor(config, tokenizer)
        case CompareHead():
            return CompareProcessor(config, tokenizer)
        case AssignHead() | None:
            return VichaProcessor(config, tokenizer)
