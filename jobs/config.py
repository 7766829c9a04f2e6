"""From a preset and dotted overrides to a validated config, and the text that explains a config's keys."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from shards.config import nearest, nested_models, validate
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
    data = read_preset(preset, verb=verb) if isinstance(preset, str) else dict(preset or {})
    for override in overrides:
        apply_override(data, override)
    return validate(model, data)


def split_words(words: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """Tell the preset, which may come first, from the overrides."""
    return (words[0], words[1:]) if words and "=" not in words[0] else (None, words)


def read_values(words: Sequence[str], *, verb: str) -> dict[str, Any]:
    """Read what the words of a command set, preset and overrides, as plain nested values; whether they fit is not asked."""
    preset, overrides = split_words(words)
    data = read_preset(preset, verb=verb) if preset is not None else {}
    for override in overrides:
        apply_override(data, override)
    return data


def preset_names(verb: str) -> list[str]:
    """List the presets that come with a verb."""
    return sorted(path.stem for path in (PRESETS / verb).glob("*.yaml"))


def read_preset(name: str, *, verb: str) -> dict[str, Any]:
    """Read one preset as plain nested values."""
    candidates = [PRESETS / verb / f"{name}.yaml", PRESETS / verb / name, Path(name)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None and not preset_names(verb):
        raise ConfigError(f"{verb!r} has no presets: write {name!r} as the value of a key, <key>={name}")
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
    """Yield (dotted key, default, description) of every key of a config, nested groups opened.

    Of a group that is one of several kinds, the keys of the first are followed by those that only the others take.
    """
    for name, field in model.model_fields.items():
        groups = nested_models(field.annotation)
        container = "dict" in str(field.annotation).lower()
        if groups and (
            container
            or field.is_required()
            or field.default_factory is not None
            or isinstance(field.default, BaseModel)
        ):
            inside = f"{prefix}{name}." + ("<name>." if container else "")
            rows = {row[0]: row for group in reversed(groups) for row in describe_keys(group, inside)}
            first = [key for key, _, _ in describe_keys(groups[0], inside)]
            yield from (rows[key] for key in dict.fromkeys([*first, *rows]))
        else:
            yield f"{prefix}{name}", _default_text(field), _meaning(field)


def value_text(value: Any) -> str:
    """Write a value as it would be typed behind `key=`."""
    if value is None:
        return "unset"
    plain = to_jsonable_python(value, fallback=str)
    return (
        yaml.safe_dump(plain, default_flow_style=True, width=math.inf, allow_unicode=True).removesuffix("...\n").strip()
    )


def _meaning(field: FieldInfo) -> str:
    """The description, and the values to choose from where it does not name them all."""
    says = " ".join((field.description or "").split())
    choices = [value_text(choice) for choice in _choices(field.annotation)]
    if not choices or all(choice in says for choice in choices):
        return says
    return f"{says.removesuffix('.')}{'; ' if says else ''}one of {', '.join(choices)}"


def _choices(annotation: Any) -> Iterator[Any]:
    """The values of the `Literal` inside an annotation such as `Literal["a", "b"] | None`; nothing where it takes others, too."""
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        parts = [part for part in typing.get_args(annotation) if part is not types.NoneType]
        if len(parts) == 1:
            yield from _choices(parts[0])


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return value_text(field.get_default(call_default_factory=True))
