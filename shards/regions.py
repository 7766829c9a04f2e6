"""Regions of a picture: what a detector saw, as one `.npz` of arrays that is the same bytes wherever it is written.

`features` (R, D), `classes` (R, C) and `boxes` (R, 4 or more; x0, y0, x1, y1 first, in pixels of the detector's picture) share
their R rows. The archive is plain NumPy: `numpy.load(...)` reads it without this project.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from shards.records import Media, MediaProblem

Array = npt.NDArray[Any]

NAMES = ("features", "classes", "boxes")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can say
_UNIX = 3  # `create_system`: else the archive would say on which kind of machine it was made
_LARGEST = 1 << 30  # bytes of one archive when unpacked; a hundred regions take about one MiB


def regions_bytes(*, features: Array, classes: Array, boxes: Array) -> bytes:
    """Pack the regions of one picture.

    Args:
        features: (R, D) numbers, kept in their precision.
        classes: (R, C) probabilities.
        boxes: (R, 4) corners, or with more columns behind them, such as class and confidence.

    Raises:
        MediaProblem: shapes do not belong together, or a value is not finite.
    """
    arrays = dict(zip(NAMES, (features, classes, boxes), strict=True))
    _check(arrays)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # features do not compress
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.create_system = _UNIX
            member.external_attr = 0o644 << 16
            body = io.BytesIO()
            # One byte order and one memory order, so that equal regions are equal bytes.
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            np.lib.format.write_array(body, little, version=(1, 0), allow_pickle=False)
            archive.writestr(member, body.getvalue())
    return buffer.getvalue()


def read_regions(data: bytes) -> dict[str, Array]:
    """Unpack what `regions_bytes` packed; nothing in the file can run.

    Raises:
        MediaProblem: it is no such archive, breaks off, or its arrays do not belong together.
    """
    if not data:
        raise MediaProblem("zero_size", "the file is empty")
    if not data.startswith(b"PK"):
        raise MediaProblem("not_media", f"no .npz archive; it starts with {data[:16]!r}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > _LARGEST:
                raise MediaProblem("decompression_bomb", f"{size:,} bytes unpacked are more than {_LARGEST:,}")
            lacking = [name for name in NAMES if f"{name}.npy" not in archive.namelist()]
            if lacking:
                raise MediaProblem("missing_field", f"the archive has no {', '.join(lacking)}")
            arrays = {name: _read_array(archive.read(f"{name}.npy")) for name in NAMES}
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as problem:
        raise MediaProblem("truncated_media", f"the .npz archive is cut or damaged ({problem})") from problem
    _check(arrays)
    return arrays


def probe_regions(data: bytes) -> Media:
    """Read an archive to its end and describe it. Raises `MediaProblem` as `read_regions` does."""
    read_regions(data)
    return Media(member="npz", kind="regions")


def _read_array(data: bytes) -> Array:
    array: Array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def _check(arrays: dict[str, Array]) -> None:
    for name, array in arrays.items():
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise MediaProblem("not_media", f"{name} is {array.dtype} of shape {array.shape}, not a table of numbers")
        if not array.shape[0] or not array.shape[1]:
            raise MediaProblem("zero_size", f"{name} is empty")
        if not np.isfinite(array).all():
            raise MediaProblem("not_finite", f"{name} holds a value that is not finite")
    rows = {name: array.shape[0] for name, array in arrays.items()}
    if len(set(rows.values())) != 1:
        raise MediaProblem("size_mismatch", "its arrays have " + ", ".join(f"{n} {name}" for name, n in rows.items()))
    if arrays["boxes"].shape[1] < 4:
        raise MediaProblem("missing_field", f"its boxes have {arrays['boxes'].shape[1]} columns, not 4 corners")
