"""One spelling of Unicode, nothing invisible, single spaces."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.transforms.clean_text import clean


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        (" a\t dog\n\nruns ", "a dog runs"),
        ("cafe\u0301", "caf\u00e9"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("bell\x07 and\x00 nul", "bell and nul"),
        ("no\u00a0break\u3000space", "no break space"),
        ("👩\u200d🚀 stays", "👩\u200d🚀 stays"),
        ("\u200d \x00", ""),
    ],
)
def test_cleaning(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


@given(st.text())
def test_cleaning_twice_changes_nothing_and_leaves_no_control_character(text: str) -> None:
    once = clean(text)
    assert clean(once) == once
    assert not any(unicodedata.category(character) == "Cc" for character in once)


def test_a_caption_that_cleaning_empties_is_a_named_reject(convert: Any, photos: Path, tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "caption": ["\x00", "Fish &amp; chips"]}, {"image": "b.jpg", "caption": "\u200b"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {
        "kind": "table",
        "annotations": str(tmp_path / "t.jsonl"),
        "media": str(photos),
        "columns": {"image": "image", "caption": "caption"},
    }
    done = convert(source, transforms=[{"kind": "clean_text", "unescape_html": True}])
    assert done.captions == {"a.jpg": ["Fish & chips"]}
    assert done.reasons() == {"b.jpg": "empty_text"}
    assert done.reasons("annotation") == {"a.jpg#0": "empty_text", "b.jpg#0": "empty_text"}
