"""What annotation files suffer on their way: each fault costs the rows it touches, or stops the run in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError

Pairs = list[tuple[str, str]]


def coco(pairs: Pairs) -> str:
    images = [{"id": name, "file_name": name} for name in dict.fromkeys(name for name, _ in pairs)]
    captions = [{"id": at, "image_id": name, "caption": text} for at, (name, text) in enumerate(pairs)]
    return json.dumps({"images": images, "annotations": captions}, ensure_ascii=False, indent=1)


def karpathy(pairs: Pairs) -> str:
    images: dict[str, Any] = {}
    for at, (name, text) in enumerate(pairs):
        image = images.setdefault(name, {"filename": name, "split": "train", "sentences": []})
        image["sentences"].append({"sentid": at, "raw": text})
    return json.dumps({"images": list(images.values())}, ensure_ascii=False, indent=1)


def jsonl(pairs: Pairs) -> str:
    return "".join(json.dumps({"file": name, "text": text}, ensure_ascii=False) + "\n" for name, text in pairs)


def flickr(pairs: Pairs) -> str:
    return "".join(f"{name}#{at}\t{text}\n" for at, (name, text) in enumerate(pairs))


TABLE = {"kind": "table", "columns": {"image": "file", "caption": "text"}}
LAYOUTS: dict[str, tuple[str, Callable[[Pairs], str], dict[str, Any]]] = {
    "coco": ("captions_x.json", coco, {"kind": "coco_captions"}),
    "karpathy": ("dataset_x.json", karpathy, {"kind": "karpathy"}),
    "flickr": ("x.token", flickr, {"kind": "flickr_captions"}),
    "web": ("x.tsv", lambda pairs: "".join(f"{text}\t{name}\n" for name, text in pairs), {"kind": "web_captions"}),
    "csv": ("t.csv", lambda pairs: "file,text\n" + "".join(f'{n},"{t}"\n' for n, t in pairs), TABLE),
    "tsv": ("t.tsv", lambda pairs: "file\ttext\n" + "".join(f"{n}\t{t}\n" for n, t in pairs), TABLE),
    "jsonl": ("t.jsonl", jsonl, TABLE),
}  # fmt: skip
PAIRS = [
    ("a.jpg", "A café in Zürich."),
    ("b.jpg", "Two 猫 asleep."),
    ("a.jpg", "Third caption here."),
    ("c.jpg", "The last one."),
]
EXPECTED = {
    "a.jpg": ["A café in Zürich.", "Third caption here."],
    "b.jpg": ["Two 猫 asleep."],
    "c.jpg": ["The last one."],
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, convert: Any, photos: Path, tmp_path: Path) -> Any:
    """Write pairs in a layout, let a fault happen to the bytes, convert."""
    name, write, source = LAYOUTS[request.param]

    def run(pairs: Pairs, fault: Callable[[bytes], bytes] = lambda data: data) -> Any:
        (tmp_path / name).write_bytes(fault(write(pairs).encode()))
        return convert({"annotations": str(tmp_path / name), "media": str(photos), **source})

    run.kind = request.param  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize(
    "fault",
    [
        lambda data: data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") + b"\r\n\r\n",
    ],
    ids=["as it is", "CRLF", "byte order mark", "both and empty lines"],
)
def test_line_ends_and_a_byte_order_mark_change_nothing(layout: Any, fault: Callable[[bytes], bytes]) -> None:
    assert layout(PAIRS, fault).captions == EXPECTED


def test_broken_utf8_costs_its_caption_alone(layout: Any) -> None:
    done = layout(PAIRS, lambda data: data.replace("Zürich".encode(), b"Z\xfcrich"))
    assert done.captions == EXPECTED | {"a.jpg": ["Third caption here."]}
    assert list(done.reasons("annotation").values()) == ["broken_utf8"]
    assert "Z\\xfcrich" in done.rejects[0].detail or "Z\\udcfcrich" in done.rejects[0].detail


def test_quotes_and_tabs_inside_a_caption_stay_there_where_the_format_can_say_so(layout: Any) -> None:
    text = 'He says "hi\tthere" twice'
    if layout.kind in ("web", "tsv"):
        pytest.skip("a tab ends a cell here")
    written = text.replace('"', '""') if layout.kind == "csv" else text
    assert layout([("a.jpg", written)]).captions == {"a.jpg": [text]}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_file_cut_in_the_middle_never_passes_for_a_whole_one(layout: Any, share: float) -> None:
    pairs = [(f"{'abcd'[at % 4]}.jpg", f"caption number {at} of many") for at in range(40)]

    def cut(data: bytes) -> bytes:
        return data[: data.index(b" ", int(len(data) * share)) - 1]

    if layout.kind in ("coco", "karpathy", "jsonl"):
        with pytest.raises(InputError, match=r"line \d+.*no valid JSON|no valid JSON at line \d+, column \d+"):
            layout(pairs, cut)
        return
    if layout.kind == "csv":  # every text has quotes, so a cut leaves one open
        with pytest.raises(InputError, match="never closed"):
            layout(pairs, cut)
        return
    done = layout(pairs, cut)  # lines know nothing of lines to come; those that are there are all accounted for
    assert done.card.raw_annotations == done.card.annotations + len(done.reasons("annotation")) + sum(
        reject.annotations for reject in done.rejects if reject.level == "item"
    )
    assert 0 < done.card.annotations < 40


@pytest.mark.parametrize("script", ["x", "ж", "漢", "ا", "👩‍👧", "a b/../c\x7f"])
def test_ids_of_300_characters_in_any_script_get_keys_that_stay_apart(
    convert: Any, photos: Path, tmp_path: Path, script: str
) -> None:
    start = (script * 300)[:299]
    rows = [{"id": start + end, "file": "a.jpg", "text": "one"} for end in "αβ"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"image": "file", "caption": "text", "id": "id"}
    spec = {"kind": "table", "annotations": str(tmp_path / "t.jsonl"), "media": str(photos), "columns": columns}
    done = convert(spec)
    records = list(done.dataset.records())
    assert [record.origin.id for record in records] == [row["id"] for row in rows]
    keys = [record.key for record in records]
    assert len(set(keys)) == 2
    assert all(len(key) <= 90 and key.isascii() for key in keys)
