"""The demo's rendered world as datasets with concepts, made in a folder by the very functions of the verbs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from concepts.embed import EmbedderConfig
from jobs.demo.clip import MODEL_CONFIG, clip_files
from jobs.demo.raw import DemoRawConfig, RawSplit, Split, raw_splits, write_demo_raw
from jobs.verbs.concepts import Config as ConceptsConfig
from jobs.verbs.concepts import annotate
from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units

SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What was made and where."""

    raw: DemoRawConfig
    embedder: EmbedderConfig
    datasets: dict[Split, Path]

    @property
    def splits(self) -> dict[Split, RawSplit]:
        return {split: files for split, files in raw_splits(self.raw).items() if split in SPLITS}

    def conversion(self, split: Split, output: Path) -> ConvertConfig:
        """The demo's own conversion, into any folder."""
        files = self.splits[split]
        source = {"kind": "coco_captions", "annotations": str(files.annotations), "media": str(files.media)}
        values = {"source": {**source, "split": split}, "output": str(output), "name": "demo", "records_per_shard": 250}
        return ConvertConfig.model_validate(values).absolute()


def make_world(folder: Path, *, scale: float, threads: int = 1) -> World:
    """Write raw data, shards and a concepts sidecar; the CLIP has the demo's shape and random weights."""
    raw = DemoRawConfig.model_validate({"output": str(folder / "raw"), "scale": scale})
    write_demo_raw(raw)
    model, weights = write_random_clip(folder / "clip")
    world = World(
        raw=raw,
        embedder=EmbedderConfig(model=str(model), pretrained=str(weights), threads=threads, device="cpu"),
        datasets={split: folder / "data" / split for split in SPLITS},
    )
    for split, output in world.datasets.items():
        convert(world.conversion(split, output))
    annotate(
        ConceptsConfig.model_validate(
            {
                "dataset": [str(path) for path in world.datasets.values()],
                "embedder": world.embedder.model_dump(),
                "vocabulary": {"datasets": [str(world.datasets["train"])]},
                "phrases": {"tagger": "rules"},
            }
        )
    )
    return world


def convert(config: ConvertConfig) -> None:
    """Convert every unit in this process."""
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    finish(config, units)


def write_random_clip(folder: Path) -> tuple[Path, Path]:
    """Write model config and weights of an untrained open_clip model: as quick as a trained one, and made in a second."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model_path, weights_path = clip_files(folder)
    model_path.write_text(json.dumps(MODEL_CONFIG), encoding="utf-8")
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL_CONFIG)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights_path)
    return model_path, weights_path
