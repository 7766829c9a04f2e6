"""What feeds the device: the training loader over generated shards, and the share of a step that is spent waiting for it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.generated import WORDS, write_generated_photos
from benchmarks.rounds import spread

WORKERS_PER_GPU = 8


def measure_loader(*, photos: int, batch: int, image_size: int, rounds: int, workers: int) -> dict[str, Any]:
    """Convert generated photos to shards, and read them as pretraining does: decode, crop, flip, tokens, hidden words.

    RandAugment is drawn by the workers and done by the device, as the loader can.

    Returns:
        Pictures per second of wall time with `workers` processes, and with one that does all in turn.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_generated_photos(folder, count=photos)
        found = {
            "one_process_per_s": _rates(folder, batch=batch, image_size=image_size, rounds=rounds, workers=0),
            "workers": workers,
            "pictures_per_s": _rates(folder, batch=batch, image_size=image_size, rounds=rounds, workers=workers),
        }
    return {**found, "cpus": len(os.sched_getaffinity(0))}


def waiting(*, step_per_s: float, loader_per_s: float, loader_workers: int, workers: int) -> dict[str, float]:
    """Compute how much of a step's time is waiting, from rates that were measured apart from one another.

    A loader that runs ahead hides all of its time but what it needs beyond the step's own.

    Args:
        step_per_s: pictures per second of the training step alone.
        loader_per_s: of the loader alone, measured with `loader_workers`, each on a CPU core of its own.
        loader_workers: as measured.
        workers: of one device in the run that is asked about.
    """
    rate = loader_per_s / loader_workers * workers
    return {
        "workers_per_gpu": workers,
        "loader_per_s": round(rate, 1),
        "step_per_s": round(step_per_s, 1),
        "loader_to_step": round(rate / step_per_s, 3),
        "share_of_step_time_waiting": round(max(0.0, 1.0 - rate / step_per_s), 4),
    }


def quickest_step(steps: Mapping[str, Any]) -> float | None:
    """Pictures per second of the quickest of our measured steps; `None` where none was measured."""
    rates = [
        way["pictures_per_s"]["median"]
        for name, way in steps["ways"].items()
        if name.startswith("ours") and "pictures_per_s" in way
    ]
    return max(rates, default=None)


def wait_of(step_per_s: float | None, loader: Mapping[str, Any]) -> dict[str, Any]:
    """Say how long a step would wait for the measured loader: by what one process reads, and by what all read together."""
    if step_per_s is None or "one_process_per_s" not in loader:
        return {"absent": "it takes a measured step, or --step-per-s, and a measured loader"}
    measured = {
        "from_one_process": (loader["one_process_per_s"]["median"], 1),
        "from_all_workers": (loader["pictures_per_s"]["median"], loader["workers"]),
    }
    return {
        name: waiting(step_per_s=step_per_s, loader_per_s=rate, loader_workers=count, workers=WORKERS_PER_GPU)
        for name, (rate, count) in measured.items()
    }


def _rates(folder: Path, *, batch: int, image_size: int, rounds: int, workers: int) -> dict[str, float]:
    """Pictures per second of `rounds` epochs, after one that starts the workers."""
    from benchmarks.converters import ours as conversion
    from model.tokenizer import train_wordpiece
    from shards.stream import RecordStream
    from trainers.assembly import build_model, open_streams
    from trainers.augment import TrainView
    from trainers.config import TrainConfig
    from trainers.loader import Loader
    from trainers.mixing import lay_order
    from trainers.tasks import load_task

    if not (folder / "data").exists():
        conversion(folder, folder / "data", ())()
        train_wordpiece([" ".join(WORDS)] * 50, vocab_size=200, path=folder / "vocab.txt")
    vocabulary = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config = TrainConfig.model_validate(
        {
            "output": str(folder / "run"),
            "streams": {"photos": {"dataset": str(folder / "data")}},
            # Only its processor is used: depths that cost nothing to build.
            "family": {
                **{"kind": "vicha", "image_size": image_size, "concepts": None, "hierarchy": None},
                "vision": {"depth": 1, "width": 24, "heads": 2},
                "text": {"vocab_size": vocabulary, "layers": 2, "fusion_layer": 1, "width": 24, "heads": 2},
            },
            "augment": {"randaugment": {"count": 2, "level": 7}, "augment_on": "device"},
            "batch_size": batch,
            "epochs": rounds + 1,
        }
    )
    data, task = open_streams(config), load_task(config.task)
    order = lay_order(config, data, task)
    processor = build_model(config.family, folder / "vocab.txt", seed=0).processor
    loader = Loader(
        RecordStream(order, data.datasets, count=task.count, sidecars=data.sidecars),
        task=task,
        processor=processor,
        view=TrainView(processor.view.image_size, config.augment),
        workers=workers,
    )
    steps = loader.steps(0, order.steps_of(rounds + 1))
    rates: list[float] = []
    counted, began = 0, time.perf_counter()
    for number, step in enumerate(steps, start=1):
        counted += len(step.names)
        if number % order.steps_per_epoch == 0:
            rates.append(counted / (time.perf_counter() - began))
            counted, began = 0, time.perf_counter()
    return spread(rates[1:])  # the first epoch starts the workers
