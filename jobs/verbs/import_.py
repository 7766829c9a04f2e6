"""`import`: released weights become a run folder to start from, to evaluate and to predict with."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from shards.config import Config as BaseConfig
from shards.config import validate
from shards.errors import ConfigError
from trainers.config import LocalPath

HELP = "released weights to ours; prints what was missing, unexpected and resized"

# The released tasks that trainers/tasks/ knows under another name: by what a record says, not by the dataset.
_TASK_KINDS = {"nlvr2": "statement", "nlvr2_assignment": "pretraining"}


class Config(BaseConfig):
    """Which file becomes what."""

    family: str = "vicha"
    """the model line, a folder of model/families/"""
    task: str = "pretraining"
    """what the model is for; a file of pretraining becomes any task's model, its tensors renamed as the task needs them"""
    checkpoint: str | None = None
    """a released file: a torch file or safetensors; only tensors are read of it, never code"""
    vision: str | None = None
    """in place of `checkpoint`: weights of a DeiT or ViT, by path or by timm's name, to start pretraining from"""
    text: str | None = None
    """with `vision`: weights of a BERT, by path or by hub name"""
    output: LocalPath
    """the run folder to make; `train init=` and `evaluate checkpoint=` take it"""
    tokenizer: str = "bert-base-uncased"
    """the vocabulary that the weights were trained with, by path or hub name"""
    settings: dict[str, Any] = Field(default_factory=dict)
    """keys of the family's config that shall differ from the published ones, such as settings.image_size=384"""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        foundation = self.vision is not None and self.text is not None
        if (self.checkpoint is None) == (not foundation) or (self.vision is None) != (self.text is None):
            raise ValueError(
                "give checkpoint=… (a released file), or both vision=… and text=… (what pretraining starts from)"
            )
        if foundation and self.task != "pretraining":
            raise ValueError(f"vision and text start pretraining, not task={self.task}; give checkpoint=…")
        return self


def run(config: Config, *, dry_run: bool) -> int:
    """Import, and print the report."""
    from model.families import load_family
    from model.tokenizer import load_tokenizer
    from trainers.imported import ImportedConfig, write_imported

    try:
        kind = load_family({"kind": config.family})
        tensors, settings = _read(config)
        model_config = validate(kind.Config, settings, where="settings")
        if dry_run:
            print(f"{len(tensors)} tensors make this model:\n{model_config.model_dump_json(indent=1)}")
            return 0
        tokenizer = load_tokenizer(config.tokenizer)
        kind.build_processor(model_config, tokenizer)  # says whether the vocabulary is the weights' own
        family = kind.build(model_config)
        report = _of_family(config.family, "published").import_published(family, tensors)
    except ValueError as error:
        raise ConfigError(f"import: {error}") from error
    origins = tuple(name for name in (config.checkpoint, config.vision, config.text) if name is not None)
    task = {"kind": _TASK_KINDS.get(config.task, config.task)}
    imported = ImportedConfig(imported_from=origins, task=task, family=model_config.model_dump(mode="json"))
    path = write_imported(Path(config.output), family, imported, tokenizer, report=report)
    for line in report.lines():
        print(line)
    print(f"{config.family} for {config.task} -> {path}")
    return 0


def _read(config: Config) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The tensors of whatever is to be imported, under released names, and the config keys of the model that they make."""
    import argparse

    from model.checkpoints import read_tensors

    if config.checkpoint is not None:
        # Some released files hold their training's arguments beside the weights; this is a plain container of values.
        tensors = read_tensors(config.checkpoint, allowed=(argparse.Namespace,))
        released = _of_family(config.family, "released")
        return tensors, released.infer_settings(tensors, task=config.task, settings=config.settings)
    foundations = _of_family(config.family, "foundations")
    assert config.vision is not None
    assert config.text is not None
    tensors = foundations.foundation(_vision(config.vision), _text(config.text))
    return tensors, foundations.foundation_settings(tensors, config.settings)


def _of_family(family: str, module: str) -> Any:
    name = f"model.families.{family}.{module}"
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f"family={family!r} has no importer for this yet (no module {module!r} in its folder)")
    return importlib.import_module(name)


def _vision(path_or_name: str) -> Mapping[str, Any]:
    from model.checkpoints import read_tensors

    if Path(path_or_name).exists():
        return read_tensors(path_or_name)
    import timm

    try:
        return dict(timm.create_model(path_or_name, pretrained=True).state_dict())
    except (RuntimeError, OSError) as error:
        raise ConfigError(
            f"vision={path_or_name!r} is neither a file nor a model that timm can load ({_short(error)}); give a file"
        ) from error


def _text(path_or_name: str) -> Mapping[str, Any]:
    from model.checkpoints import read_tensors

    if Path(path_or_name).is_file():
        return read_tensors(path_or_name)
    from transformers import AutoModelForMaskedLM

    try:
        return dict(AutoModelForMaskedLM.from_pretrained(path_or_name).state_dict())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"text={path_or_name!r} is neither a file nor a model that the hub or its cache resolves ({_short(error)}); "
            "give a file or a folder"
        ) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
