"""Clips and sounds under $OSTRAKA_DATA through their sources; expectations are computed from the raw files themselves."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.convert import ConvertConfig, convert_unit, finish, plan_units
from shards.manifest import Card
from shards.media import probe_media
from shards.reader import open_dataset
from shards.records import Label, MediaProblem, Record
from tests.clips import clip_bytes, sound_bytes

DATA = Path(os.environ.get("OSTRAKA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def real(*parts: str) -> Path:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is not here; set OSTRAKA_DATA")
    return path


def converted(tmp_path: Path, source: dict[str, Any], **keys: Any) -> tuple[Card, list[Record]]:
    output = tmp_path / "dataset"
    config = ConvertConfig.model_validate({"source": source, "output": str(output), "reject_share": 1.0, **keys})
    units = plan_units(config)
    for unit in units:
        convert_unit(config, unit)
    card = finish(config, units)
    return card, list(open_dataset(output).records())


def raw_rows(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_every_real_clip_is_counted_as_a_full_decode_counts_it() -> None:
    import av

    for path in sorted(real("video", "videos").iterdir()):
        media = probe_media(path.read_bytes(), kind="video")
        with av.open(str(path)) as opened:
            shapes = Counter((frame.width, frame.height) for frame in opened.decode(opened.streams.best("video")))
        assert shapes == {(media.width, media.height): media.frames}, path.name
        assert path.suffix == f".{media.member}"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_no_cut_of_a_real_clip_or_sound_passes(share: float) -> None:
    files = [*real("video", "videos").iterdir(), *real("clotho", "evaluation").iterdir()]
    for path in sorted(files):
        data = path.read_bytes()
        kind: Any = "audio" if path.suffix == ".wav" else "video"
        with pytest.raises(MediaProblem) as caught:
            probe_media(data[: int(len(data) * share)], kind=kind)
        assert caught.value.reason == "truncated_media", path.name


def test_msrvtt_list_on_its_clip_cut_and_slowed(tmp_path: Path) -> None:
    listed = real("video", "video_text_test_list.json")
    trim = {"kind": "trim_video", "start_s": 2, "end_s": 4, "fps": 5, "short_side": 128, "preset": "ultrafast"}
    source = {"kind": "msrvtt", "annotations": str(listed), "media": str(listed.parent)}
    card, records = converted(tmp_path, source, transforms=[trim])
    assert card.annotations == sum(len(captions) for captions in json.loads(listed.read_text()).values())
    (media,) = records[0].media
    assert (media.frames, media.fps, media.duration_s) == (10, 5.0, 2.0)
    assert media.width is not None
    assert media.height is not None
    assert min(media.width, media.height) == 128


def test_msrvtt_data_and_retrieval_split(tmp_path: Path) -> None:
    content = json.loads((whole := real("format_samples", "msrvtt", "MSRVTT_data.json")).read_text())
    folder = tmp_path / "clips"
    folder.mkdir()
    for row in content["videos"]:
        (folder / f"{row['video_id']}.mp4").write_bytes(clip_bytes(frames=4))
    spec = {"kind": "msrvtt", "annotations": str(whole), "media": str(folder)}
    units = plan_units(ConvertConfig(source=spec, output=str(tmp_path / "x")))
    listed = {row["video_id"] for row in [*content["videos"], *content["sentences"]]}
    assert sum(len(unit.items) for unit in units) == len(listed)

    table = real("text_captions", "msrvtt", "MSRVTT_JSFUSION_test.csv")
    rows = raw_rows(table)
    small = clip_bytes(frames=4)
    for row in rows:
        (folder / f"{row['video_id']}.mp4").write_bytes(small)
    card, records = converted(tmp_path, {**spec, "annotations": str(table)}, records_per_shard=10_000)
    assert (card.raw_items, card.raw_annotations) == (len({row["video_id"] for row in rows}), len(rows))
    sentences = {record.origin.id: record.annotations[0].text for record in records}  # type: ignore[union-attr]
    assert sentences == {row["video_id"]: row["sentence"].strip() for row in rows}


def test_both_files_of_msvd_hold_the_same(tmp_path: Path) -> None:
    listed = json.loads(real("text_captions", "msvd", "training_label.json").read_text())
    folder = tmp_path / "clips"
    folder.mkdir()
    for entry in listed:
        (folder / entry["id"]).touch()  # planning reads no clip
    planned = []
    for name in ("training_label.json", "AllVideoDescriptions.txt"):
        spec = {"kind": "msvd", "annotations": str(real("text_captions", "msvd", name)), "media": str(folder)}
        units = plan_units(ConvertConfig(source=spec, output=str(tmp_path / name)))
        items = [item for unit in units for item in unit.items]
        planned.append({item["id"]: [caption["text"] for caption in item["annotations"]] for item in items})
    assert planned[0] == {
        clip["id"].removesuffix(".avi"): [text.strip() for text in clip["caption"]] for clip in listed
    }
    assert planned[1] == planned[0]


@pytest.mark.parametrize("split", ["train", "val"])
def test_audiocaps_joins_the_rows_of_each_stretch(split: str, tmp_path: Path) -> None:
    table = real("text_captions", "audiocaps", f"{split}.csv")
    rows = raw_rows(table)
    folder = tmp_path / "sounds"
    folder.mkdir()
    (folder / f"Y{rows[0]['youtube_id']}.wav").write_bytes(sound_bytes())
    spec = {"kind": "audiocaps", "annotations": str(table), "media": str(folder)}
    card, records = converted(tmp_path, spec, records_per_shard=100_000)
    expected = Counter((row["youtube_id"], row["start_time"]) for row in rows)
    assert (card.raw_items, card.raw_annotations) == (len(expected), len(rows))
    assert [len(record.annotations) for record in records] == [expected[rows[0]["youtube_id"], rows[0]["start_time"]]]
    assert records[0].origin.split == split


def test_clotho_on_its_sounds_resampled(tmp_path: Path) -> None:
    table = real("clotho", "clotho_captions_evaluation.csv")
    spec = {"kind": "clotho", "annotations": str(table), "media": str(table.parent)}
    card, records = converted(tmp_path, spec, transforms=[{"kind": "resample_audio", "rate": 16000}])
    rows = {row.pop("file_name"): list(row.values()) for row in raw_rows(table)}
    assert card.records == len(rows)
    for record in records:
        assert [annotation.text for annotation in record.annotations] == rows[record.origin.id]  # type: ignore[union-attr]
        (media,) = record.media
        assert (media.member, media.sample_rate, media.channels) == ("flac", 16000, 1)
        assert 15 < (media.duration_s or 0) < 31


def test_scenes_digits_classes_and_a_named_sound(tmp_path: Path) -> None:
    table = real("tau_urban", "meta.csv")
    spec: dict[str, Any] = {"kind": "audio_folder", "media": str(table.parent)}
    _, records = converted(tmp_path / "tau", {**spec, "annotations": str(table)})
    scenes = {row["filename"]: row["scene_label"] for row in raw_rows(table, "\t")}
    assert {record.origin.id: _label(record).name for record in records} == scenes

    recordings = real("fsdd", "recordings")
    _, records = converted(
        tmp_path / "fsdd", {**spec, "media": str(recordings), "pattern": "(?P<index>[0-9])_(?P<speaker>[a-z]+)_"}
    )
    assert {record.origin.id: _label(record).index for record in records} == {
        path.name: int(path.name[0]) for path in recordings.iterdir()
    }

    _, records = converted(tmp_path / "esc", {**spec, "media": str(real("esc10_mp3"))})
    assert {(_label(record).name, _label(record).index, record.media[0].member) for record in records} == {
        ("Baby cry", 4, "mp3")
    }

    classes = real("freesound_samples", "class_labels_indices.csv")
    by_name = {**spec, "media": str(classes.parent), "pattern": "(?P<name>.+)", "classes": str(classes)}
    _, (record,) = converted(tmp_path / "freesound", by_name)
    index = {row["display_name"].casefold(): int(row["index"]) for row in raw_rows(classes)}
    assert _label(record) == Label(name="snoring", index=index["snoring"])


def _label(record: Record) -> Label:
    (label,) = record.annotations
    assert isinstance(label, Label)
    return label
