"""From a preset and dotted overrides to a validated config, and the text that explains a config's keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from shards.config import nearest, nested_model, validate
from shards.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)

PRESETS = Path(__file__).parent / "presets"


def load_config(
    model: type[ModelT], preset: str | Mapping[str, Any] | None, overrides: Sequence[str] = (), *, verb: str
) -> ModelT:
    """Build a verb's config: the preset's values, then the overrides, in order.

    Args:
        model: the verb's config class.
        preset: name of a file in `jobs/presets/<verb>/` (with or without `.yaml`), a path to a YAML file, or plain values.
        overrides: `dotted.key=value` words; values are read as YAML.
        verb: whose presets are meant.

    Raises:
        ConfigError: an unknown preset, an unreadable file or a key or value that the config does not take.
    """
    data: dict[str, Any] = {}
    if isinstance(preset, str):
        data = read_preset(preset, verb=verb)
    elif preset is not None:
        data = dict(preset)
    for override in overrides:
        apply_override(data, override)
    return validate(model, data)


def preset_names(verb: str) -> list[str]:
    """List the presets that come with a verb."""
    return sorted(path.stem for path in (PRESETS / verb).glob("*.yaml"))


def read_preset(name: str, *, verb: str) -> dict[str, Any]:
    """Read one preset as plain nested values."""
    candidates = [PRESETS / verb / f"{name}.yaml", PRESETS / verb / name, Path(name)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise ConfigError(f"no preset {name!r} for {verb!r} and no such file: {nearest(name, preset_names(verb))}")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); correct the file") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path}: holds {type(data).__name__} where keys with values are expected; see `jobs/presets/`"
        )
    return data


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set one `dotted.key=value` in nested plain values; a list takes a number as a key."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is no override: write dotted.key=value")
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        value = text  # a bare string such as `*.jpg` or `a: b` that happens to be no YAML
    *parents, last = key.split(".")
    here: Any = data
    for depth, part in enumerate(parents):
        if isinstance(here, list):
            here = here[_position(here, part, override)]
            continue
        if not isinstance(here.get(part), dict | list):
            if here.get(part) is not None:
                raise ConfigError(f"{override!r}: {'.'.join(parents[: depth + 1])!r} is a value, not a group of keys")
            here[part] = {}
        here = here[part]
    if isinstance(here, list):
        here[_position(here, last, override)] = value
    else:
        here[last] = value


def _position(items: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise ConfigError(f"{override!r}: {part!r} is no position in a list of {len(items)}; positions start at 0")
    return int(part)


def dump_config(config: BaseModel) -> str:
    """Write a resolved config as YAML, for `--dry-run` and for the folder of the output."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, type and default, description) of every key of a config, nested groups opened."""
    for name, field in model.model_fields.items():
        inner = nested_model(field.annotation)
        container = inner is not None and "dict" in str(field.annotation).lower()
        if inner is not None and (
            container or field.default_factory is not None or isinstance(field.default, BaseModel)
        ):
            yield from describe_keys(inner, f"{prefix}{name}." + ("<name>." if container else ""))
        elif inner is not None and field.is_required():
            yield from describe_keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _default_text(field), " ".join((field.description or "").split())


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True) if field.default_factory is not None else field.default
    if default is PydanticUndefined:
        return "required"
    return "unset" if default is None else str(default)
