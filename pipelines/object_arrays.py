"""NumPy files of objects (`.npy` with a pickle inside), read without NumPy's own unpickling, which would run what it is told.

Pythia's `imdb_*.npy` are such files: one array of dicts. Only lists, dicts, texts and numbers come out; the instructions that
rebuild an array are played by stand-ins that hold data and do nothing, and every other name in the file is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipelines.packed import open_raw
from pipelines.raw_text import check_file
from shards.errors import InputError

_OBJECTS_AT = 4  # place of the elements in the state that an array pickles


class _RefusedError(Exception):
    """The file names something that plain data does not need."""


class _Type:
    """Stands in for `numpy.dtype`: keeps the name of the type and ignores its state."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = str(name)

    def __setstate__(self, state: Any) -> None:
        """The byte order and such, which nothing here needs."""


class _Array:
    """Stands in for `numpy.ndarray`: keeps the elements of an array of objects, in their order."""

    def __init__(self, *_: Any) -> None:
        self.elements: list[Any] = []

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > _OBJECTS_AT and isinstance(state[_OBJECTS_AT], list):
            self.elements = state[_OBJECTS_AT]


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(kind: Any, data: Any = b"") -> Any:
    """A NumPy number as a Python one."""
    name = kind.name if isinstance(kind, _Type) else ""
    try:
        found = np.dtype(name)
        return np.frombuffer(data, found, 1)[0].item() if found.kind in "iufb" else None
    except (TypeError, ValueError) as problem:
        raise _RefusedError(f"a number of type {name!r}") from problem


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _RefusedError("bytes in another encoding than Latin-1")
    return text.encode("latin1")


_STAND_INS: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


# The unpickler written in Python: the other one sets memory aside by numbers that the file names, gigabytes if it says so.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


def read_objects(path: str, *, key: str) -> list[Any]:
    """Read the elements of an array of objects; nothing in the file is ever run.

    Args:
        path: the `.npy` file.
        key: the config key that named it, for messages.

    Returns:
        The elements as lists, dicts, texts and numbers, in their order.

    Raises:
        InputError: it is no such file, breaks off, or names anything beyond plain data.
    """
    check_file(path, key=key)
    with open_raw(path, key=key) as packed:
        file = io.BytesIO(packed.read())
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(file)
        if not kind.hasobject:
            raise InputError(f"{key}: {path} is an array of numbers, not of objects; give the imdb_*.npy of a split")
        content = _Unpickler(file, encoding="latin1").load()
    except InputError:
        raise
    except _RefusedError as problem:
        raise InputError(
            f"{key}: {path} is refused, as it asks for {problem} and not only for plain data; nothing of it was run, "
            "get the file from its authors"
        ) from problem
    except Exception as problem:  # a damaged pickle fails in any way
        raise InputError(
            f"{key}: {path} is no .npy of objects or breaks off ({type(problem).__name__}: {problem}); download it again"
        ) from problem
    elements = content.elements if isinstance(content, _Array) else None
    if elements is None or len(shape) != 1 or len(elements) != shape[0]:
        raise InputError(f"{key}: {path} is not one row of objects; download it again")
    return elements
