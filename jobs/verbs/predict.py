"""What a run says of pictures that nobody has answered for: a dataset's, or a photo straight from its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from concepts.embed import EmbedderConfig
from jobs.progress import Stages
from shards.errors import OstrakaError
from trainers.config import PredictConfig

HELP = (
    "answers, labels, maps or nearest texts and pictures of a run, over a dataset without truth or for picture=photo.jpg; "
    "writes predictions.jsonl or .parquet, one row per record and annotation"
)

SHOWN = 40  # rows that are printed of given pictures and texts


class Config(PredictConfig):
    """What to ask of which run, and how concepts of given pictures are chosen."""

    embedder: EmbedderConfig | None = None
    """the CLIP that chose the concepts of the run's data: embedder.model=… embedder.pretrained=…, as `concepts` was told"""


def run(config: Config, *, dry_run: bool) -> int:
    """Predict, and print what was found of given pictures; of several processes under `torchrun` the first speaks."""
    from jobs.given_concepts import GivenConcepts
    from trainers.distributed import is_first_process
    from trainers.prediction import plan, predict

    if dry_run:
        print(plan(config))
        return 0
    units = {"rank": "examples", "texts": "texts", "text states": "texts", "maps": "expressions"}
    with Stages(units, unit="pictures") as stages:
        found = predict(config, on_progress=stages, choose_concepts=GivenConcepts(config.embedder))
    if is_first_process():
        maps = _paint(config, found.rows)
        for row in found.rows[:SHOWN]:
            print("\n".join(_told(row)))
        if len(found.rows) > SHOWN:
            print(f"… and {len(found.rows) - SHOWN:,} more")
        where = [str(path) for path in (found.file, found.submission, maps) if path is not None]
        done = "was done already" if found.was_done else f"by step {found.step:,} of {found.checkpoint}"
        counted = f"{found.count:,} prediction{'' if found.count == 1 else 's'}"
        print(f"{found.task}: {counted}, {done}" + (f" -> {', '.join(where)}" if where else ""))
    return 0


def _paint(config: Config, rows: Sequence[Mapping[str, Any]]) -> Path | None:
    """Paint the maps of given pictures over them, into the output's folder `maps`; None where there are none."""
    from jobs.report.heat import painted
    from trainers.shelf import given_pictures

    if config.output is None or not config.picture or not any("map" in row for row in rows):
        return None
    folder = Path(config.output) / "maps"
    pictures = {
        record.key: record.payload[record.media[0].member] for record in given_pictures(config.picture).records()
    }
    try:
        folder.mkdir(exist_ok=True)
        for row in rows:
            data = painted(pictures[row["key"]], row["map"], peak=row["peak"])
            (folder / f"{row['key']}-{row['annotation']}.jpg").write_bytes(data)
    except OSError as error:
        raise OstrakaError(f"{folder}: cannot be written ({error}); choose another output") from error
    return folder


def _told(row: Mapping[str, Any]) -> Iterator[str]:
    """Say one prediction to a person: what was asked, then what was found, best first."""
    place = " ".join(str(part) for part in (row.get("key"), row.get("text")) if part is not None)
    yield f"{place}:" if "peak" not in row else f"{place}: seen at x {row['peak'][0]}, y {row['peak'][1]}"
    for found in row["ranked"]:
        named = found.get("box") or [part for part in (found.get("key"), found.get("text")) if part is not None]
        yield f"  {found['score']:10.4f}  " + " ".join(str(part) for part in named)
