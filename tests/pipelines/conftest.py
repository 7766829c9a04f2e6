"""Tiny raw datasets, made in code: real JPEG and PNG bytes, and every way in which they can be broken."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.manifest import Card
from shards.reader import Dataset, open_dataset
from shards.records import Reject
from shards.stores import open_storage
from shards.writer import committed_units


def picture_bytes(width: int = 12, height: int = 8, *, shade: int = 90, form: str = "JPEG") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 40, 200 - shade % 200)).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return picture_bytes


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder `photos` with a.jpg to d.jpg, all different."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("abcd"):
        (folder / f"{name}.jpg").write_bytes(picture_bytes(shade=30 * number))
    return folder


class Conversion:
    """One inline conversion and what came of it."""

    def __init__(self, config: ConvertConfig) -> None:
        self.config = config
        self.units = plan_units(config)
        for unit in self.units:
            convert_unit(config, unit)
        self.card: Card = finish(config, self.units)
        self.dataset: Dataset = open_dataset(config.output)
        self.rejects: list[Reject] = [
            reject for report in committed_units(open_storage(config.output)).values() for reject in report.rejects
        ]

    @property
    def captions(self) -> dict[str, list[str]]:
        """Caption texts by raw id."""
        return {
            record.origin.id: [annotation.text for annotation in record.annotations]  # type: ignore[union-attr]
            for record in self.dataset.records()
        }

    def reasons(self, level: str = "item") -> dict[str, str]:
        """Reason by raw id, of one level."""
        return {reject.id: reject.reason for reject in self.rejects if reject.level == level}


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Conversion]:
    """Convert with a source spec and the other keys of `ConvertConfig`."""
    numbers = iter(range(1000))

    def run(source: dict[str, Any], *, transforms: Iterable[Any] = (), **keys: Any) -> Conversion:
        output = keys.pop("output", str(tmp_path / f"dataset-{next(numbers)}"))
        return Conversion(ConvertConfig(source=source, output=output, transforms=tuple(transforms), **keys))

    return run
