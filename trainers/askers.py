"""What each kind of task is asked for, example by example: a ranking, a map, or what is nearest. No truth is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import xxhash

from shards.config import digest
from shards.errors import ConfigError, DatasetError
from shards.reader import Dataset, open_dataset
from shards.records import Annotation, Caption
from shards.sidecar import Sidecar
from trainers.assembly import TrainedRun
from trainers.config import PredictConfig
from trainers.exam import Crew, Exam, list_places, shown_concepts, tell_of_missing_concepts, trained_concepts
from trainers.expression_maps import (
    EXPRESSIONS,
    map_expressions,
    map_rows,
    open_grounding,
    proposals_of,
    read_proposals,
)
from trainers.gallery import Gallery, GalleryText, list_gallery
from trainers.pairing import SECOND_PHRASES
from trainers.predictions import Kind
from trainers.ranking import choice_of, rank_examples, ranking_rows
from trainers.rerank import DIRECTIONS, Direction
from trainers.retrieval import check_compares, compare, nearest_rows
from trainers.shelf import GivenNotes, GivenRecords, Notes, Questioned, Shelf, given_pictures
from trainers.task import RankedTask
from trainers.tasks.grounding import GroundingTask

# Chooses the concepts of pictures, given as encoded bytes, as a run's dataset had them chosen: one tuple of phrases each.
ConceptChooser: TypeAlias = Callable[[TrainedRun, Sequence[bytes]], Sequence[tuple[str, ...]]]


class Asker(Protocol):
    """Goes through a number of examples, some at a time."""

    kind: ClassVar[Kind]

    @property
    def basis(self) -> Mapping[str, Any]:
        """What the predictions depend on beside the config, as plain values: other contents are other predictions."""
        ...

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def rows(self, chosen: range, crew: Crew) -> list[dict[str, Any]]:
        """Predict for some examples; every rank must call it with the same ones, and gets all rows."""
        ...


class RankingAsker:
    """Ranks candidates for each annotation."""

    kind: ClassVar[Kind] = "ranking"

    def __init__(self, config: PredictConfig, run: TrainedRun, task: RankedTask, choose: ConceptChooser | None) -> None:
        self._config, self._run = config, run
        shelf, notes = _open(config, run, choose, pictures=task.pictures)
        shelf = _asked(shelf, [task.ask(text) for text in (*config.question, *config.text)])
        self.exam = Exam(shelf, notes, task, list_places(shelf, (task.asks,), limit=config.limit))
        self._choice = choice_of(config, run, task)
        self.basis: Mapping[str, Any] = {
            **_seen(config, notes),
            "candidates": digest(list(self._choice.candidates)),
        }

    def __len__(self) -> int:
        return len(self.exam)

    def rows(self, chosen: range, crew: Crew) -> list[dict[str, Any]]:
        config = self._config
        found = rank_examples(self._run, self.exam, self._choice, chosen, config=config, crew=crew, named=config.named)
        return list(ranking_rows(self.exam, self._choice.candidates, chosen, found))


class MapAsker:
    """Maps each expression onto its picture."""

    kind: ClassVar[Kind] = "map"

    def __init__(
        self, config: PredictConfig, run: TrainedRun, task: GroundingTask, choose: ConceptChooser | None
    ) -> None:
        self._config, self._run = config, run
        open_grounding(config, run)
        shelf, notes = _open(config, run, choose, pictures=1)
        shelf = _asked(shelf, [Caption(text=text) for text in config.text])
        self._exam = Exam(shelf, notes, task, list_places(shelf, EXPRESSIONS, limit=config.limit))
        self._boxes = proposals_of(self._exam, read_proposals(task.config.proposals), where=shelf.path)
        self.basis: Mapping[str, Any] = {
            **_seen(config, notes),
            "proposals": digest([[list(box) for box in boxes] for boxes in self._boxes]),
        }

    def __len__(self) -> int:
        return len(self._exam)

    def rows(self, chosen: range, crew: Crew) -> list[dict[str, Any]]:
        seen = map_expressions(self._run, self._exam, self._boxes, chosen, config=self._config, crew=crew)
        own = slice(chosen.start, chosen.stop)
        return list(map_rows(self._exam.places[own], seen, self._boxes[own], named=self._config.named))


class NearestAsker:
    """Finds the nearest texts of pictures and the nearest pictures of texts; all at once, since all is compared with all."""

    kind: ClassVar[Kind] = "nearest"

    def __init__(self, config: PredictConfig, run: TrainedRun, choose: ConceptChooser | None) -> None:
        check_compares(config, run)
        self._config, self._run = config, run
        self._gallery, self._directions = _compared(config, run, choose)
        self.basis: Mapping[str, Any] = _seen(config, self._gallery.concepts)

    def __len__(self) -> int:
        sizes = {"text_to_image": len(self._gallery.texts), "image_to_text": len(self._gallery.keys)}
        return sum(sizes[direction] for direction in self._directions)

    def rows(self, chosen: range, crew: Crew) -> list[dict[str, Any]]:
        assert chosen == range(len(self))
        config = self._config
        found = compare(self._run, self._gallery, config=config, crew=crew, directions=self._directions).found
        named = min(config.named, config.k_test or config.named)  # what was not re-ranked has no score beside what was
        return [
            {"direction": direction, **query, "ranked": ranked}
            for direction in self._directions
            for query, ranked in nearest_rows(self._gallery, found, direction, named=named)
        ]


def _compared(
    config: PredictConfig, run: TrainedRun, choose: ConceptChooser | None
) -> tuple[Gallery, Sequence[Direction]]:
    """What is compared with what, and who asks: whatever is given; else all of the dataset both ways."""
    shelf, notes = _open(config, run, choose, pictures=1)
    gallery = list_gallery(shelf, notes, limit=config.limit)
    texts, directions = gallery.texts, DIRECTIONS
    if config.text:
        texts = tuple(
            GalleryText(text=text, annotation=number, key=None, image=None) for number, text in enumerate(config.text)
        )
        directions = DIRECTIONS if config.picture else ("text_to_image",)
    elif config.picture:
        dataset = _dataset(config)
        texts = list_gallery(dataset, None, limit=config.limit).apart()
        directions = ("image_to_text",)
    if not texts:
        raise DatasetError(f"{config.dataset}: has no caption to compare pictures with; give text=…")
    return gallery.with_texts(texts), directions


def _open(
    config: PredictConfig, run: TrainedRun, choose: ConceptChooser | None, *, pictures: int
) -> tuple[Shelf, Notes | None]:
    """The pictures to look at, and their concepts where the model reads any."""
    if not config.picture:
        dataset = _dataset(config)
        return dataset, shown_concepts(config, run, dataset)
    given = given_pictures(config.picture, together=pictures)
    return given, _given_concepts(config, run, given, choose)


def _given_concepts(
    config: PredictConfig, run: TrainedRun, given: GivenRecords, choose: ConceptChooser | None
) -> Notes | None:
    """The concepts of given pictures: those given with them, else chosen as the run's dataset had them chosen."""
    records = list(given.records())
    if config.phrases:
        return GivenNotes({record.key: _concept_row([config.phrases] * len(record.media)) for record in records})
    if choose is None or trained_concepts(run) is None:
        tell_of_missing_concepts(run, "give phrases=…")
        return None
    chosen = iter(choose(run, [record.payload[media.member] for record in records for media in record.media]))
    return GivenNotes({record.key: _concept_row([next(chosen) for _ in record.media]) for record in records})


def _concept_row(phrases: Sequence[Sequence[str]]) -> Mapping[str, Any]:
    """A row as a concepts sidecar has it, for a record of one or two pictures."""
    first, *second = phrases
    return {"phrases": first, **({SECOND_PHRASES: second[0]} if second else {})}


def _seen(config: PredictConfig, notes: Notes | None) -> dict[str, Any]:
    """Which pictures were given, by content, and which column of concepts was read with a dataset's."""
    pictures = [xxhash.xxh3_64_hexdigest(Path(path).read_bytes()) for path in config.picture]
    return {"pictures": pictures, "concepts": notes.folder if isinstance(notes, Sidecar) else None}


def _asked(shelf: Shelf, annotations: Sequence[Annotation]) -> Shelf:
    """The records with what is asked of them here; with their own annotations where nothing is."""
    return Questioned(shelf, annotations) if annotations else shelf


def _dataset(config: PredictConfig) -> Dataset:
    if config.dataset is None:
        raise ConfigError("name the dataset=… to look at")
    return open_dataset(config.dataset, annotations=config.annotations, cache=config.cache)
