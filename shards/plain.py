"""Frozen dataclasses to plain JSON values and back, checked against their type hints.

Everything this room stores as JSON (record headers, commit records, the dataset card) passes through here, so that what is
written can always be read and what is read has the types that the code believes in.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from json.encoder import encode_basestring
from typing import Any, TypeVar, cast

T = TypeVar("T")
Parser = Callable[[Any], Any]
Writer = Callable[[Any], str]

# Made once: `json.dumps` with any option builds an encoder for every call.
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class PlainError(ValueError):
    """A plain value does not fit the type it should become; the message starts with the path to the value."""


def to_plain(value: Any) -> Any:
    """Turn dataclasses, mappings and sequences into JSON values; fields that are `None` are left out.

    A class with a `type` class variable says it first, so that a reader knows what follows.
    """
    if isinstance(value, (str, int, float)) or value is None:
        return value
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if not hasattr(value, "__dataclass_fields__") and isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    head: dict[str, Any] = {"type": value.type} if hasattr(value, "type") else {}
    for name in _stored_fields(cast(Hashable, type(value))):
        item = getattr(value, name)
        if item is not None:
            head[name] = item if type(item) is str else to_plain(item)
    return head


def checked_json(value: Any) -> str:
    """Write a dataclass as JSON text that `from_plain` is sure to read back: `to_plain` that sees to the type hints.

    Raises:
        PlainError: what `from_plain` would raise for the text; found on the way out, at a fraction of the cost of parsing it.
    """
    return _writer(cast(Hashable, type(value)))(value)


def from_plain(kind: type[T], value: Any) -> T:
    """Build a dataclass from plain JSON values.

    Raises:
        PlainError: a field is missing, unknown or of another type, or a number is not finite.
    """
    built: T = _parser(cast(Hashable, kind))(value)
    return built


@cache
def _stored_fields(kind: Hashable) -> tuple[str, ...]:
    # `field(metadata={"stored": False})` marks what is about this process only.
    return tuple(field.name for field in dataclasses.fields(cast(type, kind)) if field.metadata.get("stored", True))


@cache
def _parser(kind: Any) -> Parser:
    """Compile a type hint into a function once; a record header is then parsed in microseconds."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if kind is float:
        return _number
    if kind in (str, int, bool):
        return _exactly(kind)
    if origin is typing.Literal:
        return _one_of(arguments)
    if origin in (typing.Union, types.UnionType):
        return _optional(arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return _sequence(_parser(arguments[0]))
    if origin is tuple:
        return _fixed(tuple(_parser(argument) for argument in arguments))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_parser(arguments[1]))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind)
    raise TypeError(
        f"shards.plain cannot store a {kind!r}; use str, int, float, bool, tuples, mappings and dataclasses"
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise PlainError(f" is {value!r}, not a finite number")
    return float(value)


def _exactly(kind: type) -> Parser:
    def parse(value: Any) -> Any:
        if type(value) is not kind:
            raise PlainError(f" is {value!r}, not of type {kind.__name__}")
        return value

    return parse


def _one_of(choices: tuple[Any, ...]) -> Parser:
    def parse(value: Any) -> Any:
        if value not in choices:
            raise PlainError(f" is {value!r}, not one of {', '.join(map(str, choices))}")
        return value

    return parse


def _optional(arguments: tuple[Any, ...]) -> Parser:
    (inner_kind,) = [argument for argument in arguments if argument is not type(None)]
    inner = _parser(inner_kind)
    return lambda value: None if value is None else inner(value)


def _sequence(inner: Parser, *, into: Callable[[Iterable[Any]], Any] = tuple) -> Parser:
    def parse(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise PlainError(f" is {value!r}, not a list")
        try:
            return into(map(inner, value))
        except PlainError:
            return into(_at(f"[{place}]", inner, item) for place, item in enumerate(value))  # again, for the place

    return parse


def _fixed(inner: tuple[Parser, ...], *, into: Callable[[Iterable[Any]], Any] = tuple) -> Parser:
    def parse(value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != len(inner):
            raise PlainError(f" is {value!r}, not a list of {len(inner)}")
        return into(
            _at(f"[{place}]", parser, item) for place, (parser, item) in enumerate(zip(inner, value, strict=True))
        )

    return parse


def _mapping(inner: Parser) -> Parser:
    def parse(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise PlainError(f" is {value!r}, not an object")
        return {str(name): _at(f".{name}", inner, item) for name, item in value.items()}

    return parse


def _dataclass(kind: type) -> Parser:
    hints = typing.get_type_hints(kind)
    names = _stored_fields(kind)
    parsers = {name: _parser(hints[name]) for name in names}
    required = _required(kind)
    # A field of plain text or whole numbers is looked at in place; only the others cost a call.
    exact = {name: plain for name in names if (plain := _exact(hints[name])) is not None}

    def parse(value: Any) -> Any:
        if not isinstance(value, dict):  # an exact check: `Mapping` costs as much as all the rest
            raise PlainError(f" is {value!r}, not an object")
        fields = {}
        name = ""
        try:
            for name, item in value.items():
                if type(item) is exact.get(name):
                    fields[name] = item
                    continue
                parser = parsers.get(name)
                if parser is None:
                    break
                fields[name] = parser(item)
        except PlainError as problem:
            raise PlainError(f".{name}{problem}") from None
        if len(fields) < len(value):
            raise PlainError(f" has the unknown field {name!r}")
        for name in required:
            if name not in fields:
                raise PlainError(f" lacks the field {name!r}")
        return kind(**fields)

    return parse


def _required(kind: type) -> tuple[str, ...]:
    """The stored fields without a default."""
    defaults = {field.name: (field.default, field.default_factory) for field in dataclasses.fields(kind)}
    missing = (dataclasses.MISSING, dataclasses.MISSING)
    return tuple(name for name in _stored_fields(cast(Hashable, kind)) if defaults[name] == missing)


def _exact(hint: Any) -> type | None:
    """The type of a field that holds text or a whole number, or may; None for every other field."""
    return next((kind for kind in (str, int) if hint in (kind, kind | None)), None)


@cache
def _writer(kind: Any) -> Writer:
    """Compile a type hint into a function from values to checked JSON text; the mirror of `_parser`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_writer(kind)
    if kind is Any:
        return lambda value: _JSON.encode(to_plain(value))
    if origin in (typing.Union, types.UnionType):
        return _union_writer([argument for argument in arguments if argument is not type(None)])
    if origin is tuple:
        many = arguments[-1] is Ellipsis
        return (
            _sequence(_writer(arguments[0]), into=_list_text)
            if many
            else _fixed(tuple(map(_writer, arguments)), into=_list_text)
        )
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        members = _mapping(_writer(arguments[1]))
        return lambda value: _members(f"{_JSON.encode(name)}: {text}" for name, text in members(value).items())
    check = _parser(kind)

    def write(value: Any) -> str:
        check(value)
        if type(value) is float:
            return repr(value)
        return _JSON.encode(value)  # a whole number stays one where any number is allowed

    return write


def _union_writer(kinds: Sequence[Any]) -> Writer:
    """What is written as one of several dataclasses says itself which of them it is; of other types there is one."""
    if len(kinds) > 1:
        writers = {kind: _dataclass_writer(kind) for kind in kinds}

        def write(value: Any) -> str:
            writer = writers.get(type(value))
            if writer is None:
                names = ", ".join(kind.__name__ for kind in kinds)
                raise PlainError(f" is of type {type(value).__name__}, not one of {names}")
            return writer(value)

        return write
    inner = _writer(kinds[0])
    return lambda value: "null" if value is None else inner(value)


def _list_text(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"


def _dataclass_writer(kind: type) -> Writer:
    """A function of its own for a class, compiled as `dataclasses` compiles an `__init__`.

    Every header of a dataset is written by these functions, and a loop over the fields takes twice as long.
    """
    hints = typing.get_type_hints(kind)
    required = _required(kind)
    names = _stored_fields(cast(Hashable, kind))
    scope: dict[str, Any] = {"kind": kind, "quote": encode_basestring, "lacks": _lacks, "other": _other, "odd": _odd}
    head = f', "type": {_JSON.encode(kind.type)}' if hasattr(kind, "type") else ""
    lines = ["def write(value):", " if type(value) is not kind: odd(value, kind)", f" text = {head!r}"]
    for place, name in enumerate(names):
        # A field of plain text or whole numbers is looked at in place; only the others cost a call.
        start, exact = f', "{name}": ', _exact(hints[name])
        scope[f"writer{place}"] = _writer(hints[name])
        lines.append(f" item = value.{name}")
        if exact is not None:
            text = "quote(item)" if exact is str else "repr(item)"
            lines.append(f" if type(item) is {exact.__name__}: text += {start!r} + {text}")
        lines += [
            f" {'if' if exact is None else 'elif'} item is not None: "
            f"text += {start!r} + other(writer{place}, item, {name!r})",
            *([f" else: lacks({name!r})"] if name in required else []),
        ]
    lines.append(" return '{' + text[2:] + '}'")
    exec("\n".join(lines), scope)  # of the names in our own source, and of nothing that is read
    return cast(Writer, scope["write"])


def _odd(value: Any, kind: type) -> None:
    raise PlainError(f" is {value!r}, not of type {kind.__name__}")


def _lacks(name: str) -> None:
    raise PlainError(f" lacks the field {name!r}")


def _other(writer: Writer, item: Any, name: str) -> str:
    try:
        return writer(item)
    except PlainError as problem:
        raise PlainError(f".{name}{problem}") from None


def _members(texts: Iterable[str]) -> str:
    return f"{{{', '.join(texts)}}}"


def _at(step: str, parser: Parser, value: Any) -> Any:
    try:
        return parser(value)
    except PlainError as problem:
        raise PlainError(f"{step}{problem}") from None
