"""Region media: the same bytes every time, readable by NumPy alone, and every kind of damage by its name."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.media import MediaProblem
from shards.regions import probe_regions, read_regions, regions_bytes


def arrays(rows: int = 3, *, dtype: str = "<f4") -> dict[str, Any]:
    rng = np.random.default_rng(4)
    return {
        name: rng.random((rows, width)).astype(dtype) for name, width in (("features", 5), ("classes", 7), ("boxes", 6))
    }


def reason_of(data: bytes) -> str:
    with pytest.raises(MediaProblem) as caught:
        probe_regions(data)
    return caught.value.reason


@pytest.mark.parametrize("dtype", ["<f4", "<f2", ">f4"])
def test_regions_come_back_with_their_values_and_precision(dtype: str) -> None:
    given = arrays(dtype=dtype)
    back = read_regions(regions_bytes(**given))
    for name, array in given.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype.itemsize == array.dtype.itemsize


def test_equal_regions_are_equal_bytes_whatever_their_memory_looks_like() -> None:
    plain = arrays()
    other = {name: np.asfortranarray(array.astype(">f4")) for name, array in plain.items()}
    assert regions_bytes(**plain) == regions_bytes(**other)


def test_the_archive_says_neither_when_nor_where_it_was_made() -> None:
    with zipfile.ZipFile(io.BytesIO(regions_bytes(**arrays()))) as archive:
        assert {(member.date_time, member.create_system) for member in archive.infolist()} == {
            ((1980, 1, 1, 0, 0, 0), 3)
        }


def test_numpy_alone_reads_the_archive() -> None:
    given = arrays()
    with np.load(io.BytesIO(regions_bytes(**given)), allow_pickle=False) as archive:
        assert sorted(archive) == sorted(given)


def test_a_probe_says_npz_of_kind_regions() -> None:
    media = probe_regions(regions_bytes(**arrays()))
    assert (media.member, media.kind) == ("npz", "regions")


def test_damage_has_a_name() -> None:
    data = regions_bytes(**arrays())
    assert reason_of(b"") == "zero_size"
    assert reason_of(b"\xff\xd8 a picture") == "not_media"
    assert reason_of(data[: len(data) // 2]) == "truncated_media"
    middle = len(data) // 3
    assert reason_of(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]) == "truncated_media"


def test_arrays_that_do_not_belong_together_are_refused_before_they_are_stored() -> None:
    given = arrays()
    for change, reason in (
        ({"boxes": given["boxes"][:2]}, "size_mismatch"),
        ({"boxes": given["boxes"][:, :3]}, "missing_field"),
        ({"classes": given["classes"][0]}, "not_media"),
        ({"features": given["features"] * np.float32(np.nan)}, "not_finite"),
        ({name: array[:0] for name, array in given.items()}, "zero_size"),
    ):
        with pytest.raises(MediaProblem) as caught:
            regions_bytes(**(given | change))
        assert caught.value.reason == reason


def test_a_pickle_inside_the_archive_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (mark,))

    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([[Hostile()]], dtype=object), allow_pickle=True)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("features", "classes", "boxes"):
            archive.writestr(f"{name}.npy", buffer.getvalue())
    assert reason_of(out.getvalue()) == "truncated_media"
    assert not mark.exists()


def test_an_archive_without_boxes_is_incomplete() -> None:
    buffer = io.BytesIO()
    np.savez(buffer, features=np.ones((2, 3)), classes=np.ones((2, 3)))
    assert reason_of(buffer.getvalue()) == "missing_field"
