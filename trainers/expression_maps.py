"""Going through an exam by looking where in its picture each expression is seen, and which proposed box that chooses."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from shards.errors import ConfigError, DatasetError
from shards.records import Caption, Grounding, Record
from trainers.assembly import TrainedRun
from trainers.augment import EvalView
from trainers.config import AskConfig
from trainers.exam import Crew, Exam, Place, Remembering
from trainers.gather import gather_items
from trainers.tasks.grounding import GroundingTask

EXPRESSIONS = (Grounding, Caption)  # a caption is an expression that nobody has drawn a box for
DEPTH = 255  # how finely a stored map tells shares of its peak apart

Boxes = Sequence[Sequence[float]]  # (x0, y0, width, height, …) in pixels
Proposals = Mapping[str, Boxes]  # by the id of the picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Where one expression is seen."""

    peak: tuple[int, int]  # x and y in pixels of the stored picture
    map: npt.NDArray[np.uint8]  # (n, n) for n patches per side: shares of the peak, in 255ths
    ranking: tuple[int, ...]  # numbers of the proposed boxes, best first
    scores: tuple[float, ...]  # of the proposed boxes, in their own order
    best: int | None  # the first of the ranking, where it holds anything of the map

    def shares(self) -> list[list[int]]:
        """The map as plain numbers, row by row."""
        rows: list[list[int]] = self.map.tolist()
        return rows


def open_grounding(config: AskConfig, run: TrainedRun) -> Any:
    """The family's module that maps texts onto pictures.

    Raises:
        ConfigError: it has none, or the model was fine-tuned for something else.
    """
    kind = run.config.family["kind"]
    name = f"model.families.{kind}.grounding"
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"family {kind!r} has no maps of where a text is seen; ground with another")
    if GroundingTask.emits not in run.family.serves or run.config.family.get("head") is not None:
        raise ConfigError(
            f"checkpoint={config.checkpoint!r} is a model with a head of its own, which says nothing of pairs; ground with "
            "a run of pretraining, retrieval or grounding"
        )
    return importlib.import_module(name)


def read_proposals(path: str | None) -> dict[str, Boxes]:
    """Read {picture id: [[x, y, width, height, …], …]}; boxes without area are left out.

    Raises:
        ConfigError: the file cannot be read, or is of another form.
    """
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {
            str(picture): tuple(box for box in boxes if box[2] > 0 and box[3] > 0) for picture, boxes in content.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise ConfigError(
            f"task.proposals={path!r} cannot be read ({error}); give JSON of the form {{picture id: [[x, y, width, height]]}}"
        ) from error


def proposals_of(exam: Exam, proposals: Proposals, *, where: str) -> list[Boxes]:
    """The proposed boxes of each example.

    Raises:
        ConfigError: there are proposals, and none is of these pictures.
    """
    found = [proposals.get(place.record.origin.id, ()) for place in exam.places]
    if proposals and not any(found):
        raise ConfigError(
            f"task.proposals: none of its pictures is in {where}; its ids must be those of the records' origin, "
            f"such as {exam.places[0].record.origin.id!r}"
        )
    return found


def map_expressions(
    run: TrainedRun,
    exam: Exam,
    boxes: Sequence[Boxes],
    chosen: range,
    *,
    config: AskConfig,
    crew: Crew,
) -> list[Seen]:
    """Look at some expressions of an exam, each rank at its share; every rank gets all of them.

    Args:
        run: whose family maps.
        exam: of expressions; its task says which map.
        boxes: those proposed for each example of the exam.
        chosen: which examples.
        config: how the examples are batched.
        crew: who looks.

    Raises:
        DamagedRecordError: a picture cannot be read; it stops every rank, with its name.
    """
    assert isinstance(exam.task, GroundingTask)
    settings = exam.task.config
    grounding = open_grounding(config, run)
    mapper = grounding.match_maps if settings.score == "match" else grounding.contrast_maps
    view = Remembering(EvalView(run.processor.view.image_size))
    own = crew.share(chosen, size=config.batch_size)
    found: list[Seen] = []
    crew.say("maps", chosen.start, len(exam))
    with crew.group.together():
        for part in own:
            examples = exam.examples(part, view)
            batch = run.processor(examples, [0] * len(examples), train=False).to(crew.group.device)
            for number, relevance in zip(part, mapper(run.family, batch, layer=settings.layer), strict=True):
                found.append(_look(grounding, relevance, size_of(exam.places[number].record), boxes[number]))
            crew.say("maps", part.stop, len(exam))
    return gather_items(
        crew.group, found, [number - chosen.start for part in own for number in part], total=len(chosen)
    )


def size_of(record: Record) -> tuple[int, int]:
    """Height and width of the stored picture.

    Raises:
        DatasetError: the record does not say.
    """
    media = record.media[0]
    if media.height is None or media.width is None:
        raise DatasetError(f"record {record.key!r} does not say its picture's size; write the dataset again")
    return media.height, media.width


def map_rows(
    places: Sequence[Place], seen: Sequence[Seen], boxes: Sequence[Boxes], *, named: int
) -> Iterator[dict[str, Any]]:
    """Describe what was seen: `key`, `annotation`, `id`, `text`, `peak`, `ranked` of {box, score} and `map`.

    A box is x, y, width, height in pixels; a map has a row for each row of patches, of shares of the peak in 255ths.
    """
    for place, found, proposed in zip(places, seen, boxes, strict=True):
        annotation = place.annotation
        assert isinstance(annotation, EXPRESSIONS)
        yield {
            "key": place.key,
            "annotation": place.number,
            "id": annotation.id,
            "text": annotation.text,
            "peak": list(found.peak),
            "ranked": [
                {"box": [float(side) for side in proposed[number][:4]], "score": round(found.scores[number], 5)}
                for number in found.ranking[:named]
            ],
            "map": found.shares(),
        }


def _look(grounding: Any, relevance: Tensor, size: tuple[int, int], boxes: Boxes) -> Seen:
    """Read a map, (n, n), of a picture of this height and width."""
    height, width = size
    large = grounding.enlarge(relevance[None], height=height, width=width)[0].cpu()
    peak = divmod(int(large.argmax()), width)
    ranking = grounding.rank_boxes(large, [box[:4] for box in boxes])
    peak_share = relevance.clamp(min=0) / relevance.max().clamp(min=1e-12)
    return Seen(
        peak=(peak[1], peak[0]),
        map=(peak_share * DEPTH).round().byte().cpu().numpy(),
        ranking=tuple(ranking.scores.argsort(descending=True, stable=True).tolist()),
        scores=tuple(ranking.scores.tolist()),
        best=ranking.best,
    )
