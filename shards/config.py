"""The base of every configuration outside `model/`, the digest that goes with what a config produced, and clear validation."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import xxhash
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from shards.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)

_NOWHERE = object()


class Config(BaseModel):
    """A frozen configuration: unknown keys are errors, defaults live here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


def canonical_json(value: BaseModel | Mapping[str, Any] | list[Any]) -> bytes:
    """Write a value as JSON whose bytes depend on nothing but the value: sorted keys, no spaces, UTF-8."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def digest(value: BaseModel | Mapping[str, Any] | list[Any]) -> str:
    """Name a value by 16 hex digits (xxh3-64 of its canonical JSON)."""
    return xxhash.xxh3_64_hexdigest(canonical_json(value))


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of everything in nested plain values; what holds nothing is a value itself."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    empty = True
    for name, inner in items:
        empty = False
        yield from leaves(inner, f"{key}.{name}" if key else str(name))
    if empty:
        yield key, value


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """Finish an error sentence: the closest known names, or all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(candidate) for candidate in close) + "?"
    return "known: " + ", ".join(names) if names else "nothing is known here"


def validate(model: type[ModelT], data: Mapping[str, Any], *, where: str = "") -> ModelT:
    """Build a config from plain data; every mistake becomes one sentence that names the key.

    Args:
        model: the config class (any pydantic model, also one of `model/`).
        data: nested plain values, as YAML or the command line gives them.
        where: dotted prefix of `data` in the whole config, for the message.

    Raises:
        ConfigError: an unknown key (the nearest known ones are named), a missing one, or a value out of its range.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("; ".join(_sentences(error, model, data, where))) from error


def _sentences(error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], where: str) -> list[str]:
    sentences = []
    for problem in error.errors():
        location = _location(problem["loc"], data, missing=problem["type"] == "missing")
        key = ".".join(([where] if where else []) + location) or where or model.__name__
        if problem["type"] == "extra_forbidden":
            parent = _model_at(model, location[:-1])
            known = parent.model_fields if parent else ()
            sentences.append(f"unknown key {key!r}: {nearest(location[-1], known)}")
        elif problem["type"] == "missing":
            parent = _model_at(model, location[:-1])
            field = parent.model_fields.get(location[-1]) if parent else None
            sentences.append(f"missing key {key!r}: {_how_to_set(key, field)}")
        elif problem["type"] == "value_error":
            named = f"{key}: " if location or where else ""  # keys that do not go together name themselves
            sentences.append(f"{named}{problem['ctx']['error']}")
        else:
            sentences.append(f"{key}: {_expected(problem, key)}, not {problem['input']!r}")
    return sentences


def _how_to_set(key: str, field: FieldInfo | None) -> str:
    """What to write for a key: a value, keys of its own, or keys of each of the groups that are named in it."""
    plain = None if field is None else typing.get_origin(field.annotation) or field.annotation
    if field is None or not isinstance(plain, type) or not issubclass(plain, dict | BaseModel):
        return f"set it as {key}=…"
    named = ".<name>" if issubclass(plain, dict) and nested_models(field.annotation) else ""
    return f"set its keys, {key}{named}.<key>=…"


def _expected(problem: ErrorDetails, key: str) -> str:
    """What a key takes, in the words of the command line where pydantic's are those of Python."""
    kind = problem["type"]
    if kind in ("dict_type", "mapping_type", "model_type", "model_attributes_type"):
        return f"takes keys of its own, {key}.<key>=…"
    if kind in ("tuple_type", "list_type"):
        return f"takes a list, {key}='[…, …]'"
    if kind == "too_short":
        return f"takes at least {problem['ctx']['min_length']}"
    for prefix, words in (("int_", "a whole number"), ("float_", "a number"), ("bool_", "true or false")):
        if kind.startswith(prefix):
            return f"takes {words}"
    return f"{problem['msg'][0].lower()}{problem['msg'][1:]}"


def _location(parts: tuple[int | str, ...], data: Any, *, missing: bool) -> list[str]:
    """The keys of a mistake as they were written: without the names that pydantic adds for the members of a union."""
    keys: list[str] = []
    for number, part in enumerate(parts):
        inside = data.get(part, _NOWHERE) if isinstance(data, Mapping) else _NOWHERE
        if isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            inside = data[part]
        if inside is not _NOWHERE:
            data = inside
        elif not (missing and number == len(parts) - 1):
            continue
        keys.append(str(part))
    return keys


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    """Follow a location of dotted keys down the nested config classes; None where it leaves them."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None:
            return None
        if part not in current.model_fields:
            continue  # a key of a mapping, or the tag pydantic adds for a member of a union
        current = nested_model(current.model_fields[part].annotation)
    return current


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The first config class inside an annotation such as `Inner | None` or `dict[str, Inner]`; None where there is none."""
    return next(iter(nested_models(annotation)), None)


def nested_models(annotation: Any) -> list[type[BaseModel]]:
    """All config classes inside an annotation, in their order; several where a group is one of several kinds."""
    if isinstance(annotation, types.GenericAlias) or typing.get_origin(annotation) is not None:
        return [model for part in typing.get_args(annotation) for model in nested_models(part)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []
