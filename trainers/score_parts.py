"""Scores of matched pairs on disk while an evaluation runs, so that a killed one goes on with the batch it was at.

OUT/.match-<digest>/<first picture>.npy   the scores of one batch of pictures, one picture after the other

The digest is of everything that the scores are made from: what both towers made of the gallery, the pairs, the weights, and how
they are gone through. So parts of anything else are never taken, and neither the number of ranks nor `state_bytes` matters. What
both towers make of the gallery is computed again, at the price of embedding it once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from shards.errors import OstrakaError

_FOLDER = ".match-"


class ScoreParts:
    """The parts of one evaluation. Every rank adds those of its own batches."""

    def __init__(self, output: Path | None, *, made_from: Iterable[Tensor | bytes]) -> None:
        """Args:
        output: the folder of the evaluation; `None` keeps nothing.
        made_from: everything that the scores depend on.
        """
        hasher = xxhash.xxh3_64()
        for each in made_from:
            # As bytes: not every kind of number is known to numpy.
            hasher.update(each if isinstance(each, bytes) else each.contiguous().cpu().view(torch.uint8).numpy().data)
        self._folder = None if output is None else output / f"{_FOLDER}{hasher.hexdigest()}"

    def find(self, batch: range, count: int) -> Tensor | None:
        """Give the (count,) scores of a batch of pictures, on the CPU; `None` where they are not there or not whole."""
        try:
            scores = None if self._folder is None else np.load(self._file(self._folder, batch))
        except (OSError, ValueError, EOFError):
            return None
        return torch.from_numpy(scores) if scores is not None and scores.shape == (count,) else None

    def add(self, batch: range, scores: Tensor) -> None:
        """Keep the scores of a batch.

        Raises:
            OstrakaError: they cannot be written.
        """
        if self._folder is None:
            return
        path = self._file(self._folder, batch)
        unfinished = path.with_name(f".{path.name}-{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                np.save(file, scores.cpu().numpy())
                file.flush()
                os.fsync(file.fileno())  # a part that a power cut empties would be taken for whole
            unfinished.replace(path)
        except OSError as error:
            raise OstrakaError(
                f"{path}: cannot be written ({error.strerror or error}); free some room, or choose another output"
            ) from error

    @staticmethod
    def _file(folder: Path, batch: range) -> Path:
        return folder / f"{batch.start:012d}.npy"


def drop_parts(output: Path) -> None:
    """Remove the parts of every evaluation into a folder, once what they were for is written."""
    for folder in output.glob(f"{_FOLDER}*"):
        shutil.rmtree(folder, ignore_errors=True)
