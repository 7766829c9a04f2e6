"""NLVR: each of the six orders of a picture is a record with the statement about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shards.records import Statement


def line(identifier: Any, label: Any = "true", **more: Any) -> str:
    fields = {"identifier": identifier, "label": label, "sentence": "There is a box.", "directory": "5"}
    return json.dumps({**fields, **more})


@pytest.fixture
def source(tmp_path: Path, picture: Any) -> Any:
    folder = tmp_path / "nlvr" / "dev" / "images" / "5"
    folder.mkdir(parents=True)
    for order in range(6):
        (folder / f"dev-481-1-{order}.png").write_bytes(picture(10 + order, 8, form="PNG"))

    def spec(*lines: str, media: str = "nlvr/dev", **keys: Any) -> dict[str, Any]:
        (tmp_path / "dev.json").write_text("\n".join(lines) + "\n")
        return {"kind": "nlvr", "annotations": str(tmp_path / "dev.json"), "media": str(tmp_path / media), **keys}

    return spec


@pytest.mark.parametrize("media", ["nlvr", "nlvr/dev", "nlvr/dev/images", "nlvr/dev/images/5"])
def test_a_statement_becomes_six_records_of_one_picture(convert: Any, source: Any, media: str) -> None:
    records = list(convert(source(line("481-1", "false"), media=media)).dataset.records())
    assert [record.key for record in records] == [f"nlvr-dev-481-1-{order}" for order in range(6)]
    assert [record.media[0].width for record in records] == [10 + order for order in range(6)]
    assert records[3].annotations == (Statement(id="481-1-3", text="There is a box.", label=False),)


def test_missing_orders_repeated_and_nameless_lines_are_rejects_and_the_ledger_closes(
    convert: Any, source: Any, tmp_path: Path
) -> None:
    (tmp_path / "nlvr/dev/images/5/dev-481-1-4.png").unlink()
    done = convert(source(line("481-1"), line("481-1"), line(7)))
    assert done.card.records == 5
    assert (done.card.raw_items, done.card.raw_annotations) == (18, 18)
    assert done.card.rejects == {"missing_media": 1, "duplicate_id": 6, "missing_field": 6}
