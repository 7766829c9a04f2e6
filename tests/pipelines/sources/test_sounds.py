"""AudioCaps, Clotho and labelled sounds: files under each of their usual names, spans, labels from every place, rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.errors import ConfigError, InputError
from shards.records import Caption, Label
from tests.clips import float_sound, sound_bytes


@pytest.fixture
def sounds(tmp_path: Path) -> Any:
    def make(*names: str) -> str:
        for number, name in enumerate(names):
            path = tmp_path / "sounds" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound_bytes(rate=8000 + number))
        return str(tmp_path / "sounds")

    return make


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def labels(done: Any) -> dict[str, tuple[str, int | None]]:
    found = {}
    for record in done.dataset.records():
        (label,) = record.annotations
        assert isinstance(label, Label)
        found[record.origin.id] = (label.name, label.index)
    return found


HEADER = "audiocap_id,youtube_id,start_time,caption\n"


@pytest.mark.parametrize(
    "name", ["xy-_z.wav", "Yxy-_z.wav", "xy-_z_30.wav", "val/xy-_z_30_40.wav", "Yxy-_z_30000_40000.wav", "11.wav"]
)
def test_audiocaps_finds_a_sound_under_each_usual_name(name: str, tmp_path: Path, sounds: Any, convert: Any) -> None:
    table = write(tmp_path / "val.csv", HEADER + '11,xy-_z,30,A tone\n12,xy-_z,30,"A tone, again"\n13,xy-_z,30, \n')
    done = convert({"kind": "audiocaps", "annotations": table, "media": sounds(name, "other.wav")})
    (record,) = done.dataset.records()
    assert record.key == "audiocaps-val-xy-_z_30"
    assert record.annotations == (Caption(id="11", text="A tone"), Caption(id="12", text="A tone, again"))
    assert (record.origin.file, record.media[0].start_s) == (name, None)
    assert done.reasons("annotation") == {"13": "empty_text"}


def test_audiocaps_notes_the_span_of_a_whole_video(tmp_path: Path, sounds: Any, convert: Any) -> None:
    table = write(tmp_path / "train.csv", HEADER + "1,ab,0,A tone\n2,ab,30,Another\n3,gone,x,Bad\n4,gone,5,Lost\n")
    done = convert({"kind": "audiocaps", "annotations": table, "media": sounds("ab.wav"), "files": "whole"})
    spans = {record.origin.id: (record.media[0].start_s, record.media[0].end_s) for record in done.dataset.records()}
    assert spans == {"ab_0": (0.0, 10.0), "ab_30": (30.0, 40.0)}
    assert done.reasons() == {"row 4": "missing_field", "gone_5": "missing_media"}


def test_clotho_keeps_its_five_captions_and_their_numbers(tmp_path: Path, sounds: Any, convert: Any) -> None:
    table = write(
        tmp_path / "clotho_captions_development.csv",
        'file_name,caption_1,caption_2\nA tone.wav,A tone sounds,"It sounds, long"\nA tone.wav,x,y\n,x,y\nb.wav,only,\n',
    )
    done = convert({"kind": "clotho", "annotations": table, "media": sounds("development/A tone.wav", "b.wav")})
    first, second = done.dataset.records()
    assert first.origin.split == "development"
    assert first.annotations == (
        Caption(id="A tone.wav#1", text="A tone sounds"),
        Caption(id="A tone.wav#2", text="It sounds, long"),
    )
    assert [annotation.id for annotation in second.annotations] == ["b.wav#1"]
    assert done.reasons() == {"A tone.wav": "duplicate_id", "row 4": "missing_field"}
    assert done.reasons("annotation") == {"b.wav#2": "empty_text"}


def test_a_sound_is_taken_before_the_clip_that_it_is_of(tmp_path: Path, sounds: Any, convert: Any) -> None:
    table = write(tmp_path / "val.csv", "audiocap_id,youtube_id,start_time,caption\n1,abc,30,a tone\n")
    done = convert(
        {"kind": "audiocaps", "annotations": table, "media": sounds("abc.mp4", "abc.wav", "below/abc_30.mp4")}
    )
    assert [record.origin.file for record in done.dataset.records()] == ["below/abc_30.mp4"]
    (tmp_path / "sounds" / "below" / "abc_30.mp4").unlink()
    done = convert({"kind": "audiocaps", "annotations": table, "media": str(tmp_path / "sounds")})
    assert [record.origin.file for record in done.dataset.records()] == ["abc.wav"]


def test_clotho_finds_names_with_spaces_around_them(tmp_path: Path, sounds: Any, convert: Any) -> None:
    table = write(
        tmp_path / "clotho_captions_development.csv", "file_name,caption_1\n Växjö.wav,a\n b.wav ,b\na\u0308.wav,c\n"
    )
    done = convert({"kind": "clotho", "annotations": table, "media": sounds(" Växjö.wav", "b.wav", "ä.wav")})
    assert [(record.origin.id, record.origin.file) for record in done.dataset.records()] == [
        (" Växjö.wav", " Växjö.wav"),
        ("b.wav", "b.wav"),
        ("a\u0308.wav", "ä.wav"),
    ]


def test_numbered_folders_say_class_and_name(sounds: Any, convert: Any) -> None:
    done = convert({"kind": "audio_folder", "media": sounds("004-Baby cry/x.wav", "001 - Dog bark/y.wav")})
    assert labels(done) == {"001 - Dog bark/y.wav": ("Dog bark", 1), "004-Baby cry/x.wav": ("Baby cry", 4)}


def test_other_folders_are_numbered_in_the_order_of_their_names(sounds: Any, convert: Any) -> None:
    done = convert(
        {"kind": "audio_folder", "media": sounds("yes/a.wav", "no/a.wav", "no/a.flac", "2-up/b.wav", "loose.wav")}
    )
    assert labels(done) == {
        "2-up/b.wav": ("2-up", 0),
        "no/a.flac": ("no", 1),
        "no/a.wav": ("no", 1),
        "yes/a.wav": ("yes", 2),
    }
    assert done.reasons() == {"loose.wav": "no_annotations"}


def test_a_pattern_reads_names_and_a_table_names_the_classes(tmp_path: Path, sounds: Any, convert: Any) -> None:
    media = sounds("7_jackson_32.wav", "0_lucas_1.wav", "noise.wav")
    spec = {"kind": "audio_folder", "media": media, "pattern": "(?P<index>[0-9])_"}
    done = convert(spec)
    assert labels(done) == {"0_lucas_1.wav": ("0", 0), "7_jackson_32.wav": ("7", 7)}
    assert done.reasons("annotation") == {"noise.wav": "missing_field"}
    classes = write(tmp_path / "classes.csv", 'index,mid,display_name\n0,/m/0,zero\n7,/m/7,"seven, lucky"\n')
    assert labels(convert({**spec, "classes": classes}))["7_jackson_32.wav"] == ("seven, lucky", 7)
    with pytest.raises(ConfigError, match="has no group"):
        convert({**spec, "pattern": "[0-9]"})


def test_a_table_gives_labels_and_folds(tmp_path: Path, sounds: Any, convert: Any) -> None:
    media = sounds("audio/1-100-A-0.wav", "audio/2-100-A-3.wav")
    table = write(
        tmp_path / "esc50.csv", "filename,fold,target,category\n1-100-A-0.wav,1,0,dog\n2-100-A-3.wav,2,3,cow\n"
    )
    spec = {"kind": "audio_folder", "annotations": table, "media": media}
    assert labels(convert(spec)) == {"1-100-A-0.wav": ("dog", 0), "2-100-A-3.wav": ("cow", 3)}
    assert labels(convert({**spec, "split": "2", "split_column": "fold"})) == {"2-100-A-3.wav": ("cow", 3)}
    tabs = write(tmp_path / "meta.csv", "filename\tscene_label\naudio/1-100-A-0.wav\tairport\n")
    assert labels(convert({**spec, "annotations": tabs})) == {"audio/1-100-A-0.wav": ("airport", None)}


def test_sounds_that_lie_in_no_folders_need_a_table_or_a_pattern(sounds: Any, convert: Any) -> None:
    with pytest.raises(InputError, match=r"source\.pattern"):
        convert({"kind": "audio_folder", "media": sounds("a.wav")})


def test_a_broken_sound_is_named_and_the_others_stay(sounds: Any, convert: Any) -> None:
    media = Path(sounds("c/good.wav"))
    (media / "c" / "nan.wav").write_bytes(float_sound([0.0, float("nan")]))
    (media / "c" / "cut.wav").write_bytes(sound_bytes()[:-100])
    done = convert({"kind": "audio_folder", "media": str(media)})
    assert list(labels(done)) == ["c/good.wav"]
    assert done.reasons() == {"c/nan.wav": "not_finite", "c/cut.wav": "truncated_media"}


@pytest.mark.parametrize("kind", ["audiocaps", "clotho"])
def test_another_table_is_refused_with_the_name_of_the_right_one(
    kind: str, tmp_path: Path, sounds: Any, convert: Any
) -> None:
    with pytest.raises(InputError, match=r"it has a, b.*\.csv"):
        convert({"kind": kind, "annotations": write(tmp_path / "x.csv", "a,b\n1,2\n"), "media": sounds("a.wav")})
