"""The concepts of a photo that lies in no dataset: chosen by the CLIP and from the bank that a run's data had theirs from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from concepts.annotate import BANK_FILE, VOCABULARY_FILE
from concepts.bank import read_bank
from concepts.embed import ClipEmbedder, EmbedderConfig
from concepts.select import NOTHING, select_concepts
from concepts.vocabulary import read_vocabulary
from shards.errors import ConfigError
from shards.reader import open_dataset
from shards.sidecar import Sidecar, open_sidecar

if TYPE_CHECKING:
    from trainers.assembly import TrainedRun

logger = logging.getLogger(__name__)


class GivenConcepts:
    """Chooses concepts as the column did that a run was trained with."""

    def __init__(self, embedder: EmbedderConfig | None) -> None:
        """Args:
        embedder: the CLIP that made the column; unset: none are chosen, and that is said.
        """
        self._embedder = embedder

    def __call__(self, run: TrainedRun, pictures: Sequence[bytes]) -> list[tuple[str, ...]]:
        """Choose the concepts of each picture, best first.

        Args:
            run: that was trained with concepts.
            pictures: encoded files.

        Raises:
            ConfigError: the CLIP is another than the column's.
            DatasetError: the column, or what it was chosen from, is no longer there.
        """
        if self._embedder is None:
            logger.warning(
                "this run was trained with concepts, and looks at the given pictures without any: name the CLIP that chose "
                "them by embedder.model=… embedder.pretrained=…, or give phrases=…"
            )
            return [()] * len(pictures)
        stream = next(stream for stream in run.config.streams.values() if stream.concepts is not None)
        assert stream.concepts is not None
        dataset = open_dataset(stream.dataset, cache=run.config.cache)
        column = open_sidecar(dataset, stream.concepts)
        card = column.card
        embedder = ClipEmbedder(self._embedder)
        _check_same(embedder, column)
        vocabulary = read_vocabulary(dataset.storage, f"{column.folder}/{VOCABULARY_FILE}")
        bank = read_bank(dataset.storage, f"{column.folder}/{BANK_FILE}", vocabulary=vocabulary, digest=card["bank"])
        chosen = select_concepts(
            embedder.images(pictures),
            bank,
            card["top_k"],
            min_score=card["min_score"],
            max_likeness=card["max_likeness"],
        )
        return [tuple(bank.phrases[place] for place in row if place != NOTHING) for row in chosen.indices]


def _check_same(embedder: ClipEmbedder, column: Sidecar) -> None:
    made_by = column.card.get("embedder")
    if not isinstance(made_by, dict) or "bank" not in column.card:
        raise ConfigError(
            f"embedder: {column.folder} does not say by which CLIP its concepts were chosen; give phrases=… instead"
        )
    differ = [name for name in ("model_config", "weights") if made_by.get(name) != embedder.card[name]]
    if differ:
        raise ConfigError(
            f"embedder: {embedder.card['model']} is not the CLIP that chose the concepts in {column.folder}, "
            f"{made_by.get('model')}: they differ in {' and '.join(differ)}; name that one"
        )
