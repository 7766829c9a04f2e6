"""Folders of classes and lists of labels: every picture has the name and the index of its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.errors import InputError

SYNSETS = "n02 tench, Tinca tinca\nn01 goldfish\nn03 hen\n"


@pytest.fixture
def synsets(tmp_path: Path) -> str:
    (tmp_path / "synset_words.txt").write_text(SYNSETS)
    return str(tmp_path / "synset_words.txt")


@pytest.fixture
def put(tmp_path: Path, picture: Any) -> Any:
    """Put pictures below the media folder; gives the source that reads them."""

    def putting(*names: str) -> dict[str, Any]:
        for number, name in enumerate(names):
            path = tmp_path / "media" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(shade=number))
        return {"kind": "image_folder", "media": str(tmp_path / "media")}

    return putting


def labels(done: Any) -> dict[str, tuple[str, int]]:
    """Name and index by raw id."""
    return {record.origin.id: (a.name, a.index) for record in done.dataset.records() for a in record.annotations}


def test_imagenet_has_the_words_of_its_synsets_and_their_order(convert: Any, put: Any, synsets: str) -> None:
    spec = put("n01/n01_7.JPEG", "n02/n02_10.JPEG", "n02/n02_9.JPEG")
    done = convert({**spec, "annotations": synsets, "split": "train"}, name="imagenet")
    assert labels(done) == {
        "n01/n01_7.JPEG": ("goldfish", 1),
        "n02/n02_10.JPEG": ("tench, Tinca tinca", 0),
        "n02/n02_9.JPEG": ("tench, Tinca tinca", 0),
    }
    assert [record.key for record in done.dataset.records()] == [
        "imagenet-train-n01_7",
        "imagenet-train-n02_10",
        "imagenet-train-n02_9",
    ]


def test_folders_of_any_names_are_their_own_classes_in_alphabetical_order(convert: Any, put: Any) -> None:
    done = convert(put("cat/1.jpg", "big dog/1.jpg", "cat/more/1.jpg", "cat/.hidden"))
    assert labels(done) == {
        "big dog/1.jpg": ("big dog", 0),
        "cat/1.jpg": ("cat", 1),
        "cat/more/1.jpg": ("cat", 1),
    }
    assert len({record.key for record in done.dataset.records()}) == 3


def test_names_that_differ_only_in_their_ending_or_their_folder_have_keys_of_their_own(convert: Any, put: Any) -> None:
    done = convert(put("n01/n01_1.JPEG", "n01/n01_1.png", "n01/x/n01_1.JPEG", "n02/n01_1.JPEG"))
    assert len({record.key for record in done.dataset.records()}) == 4


def test_class_names_may_be_parted_by_tabs_so_that_folders_may_have_spaces(
    convert: Any, put: Any, tmp_path: Path
) -> None:
    (tmp_path / "classes.tsv").write_text("big dog\tA big dog\ncat\tA cat\n")
    done = convert({**put("cat/1.jpg", "big dog/1.jpg"), "annotations": str(tmp_path / "classes.tsv")})
    assert labels(done) == {"big dog/1.jpg": ("A big dog", 0), "cat/1.jpg": ("A cat", 1)}


def test_a_folder_that_is_no_class_and_a_file_that_is_no_picture_are_rejects(
    convert: Any, put: Any, synsets: str, tmp_path: Path
) -> None:
    spec = put("n01/n01_1.JPEG", "n99/n99_1.JPEG")
    (tmp_path / "media" / "n01" / "notes.txt").write_text("not a picture")
    done = convert({**spec, "annotations": synsets})
    assert labels(done) == {"n01/n01_1.JPEG": ("goldfish", 1)}
    assert done.reasons() == {"n99/n99_1.JPEG": "no_annotations", "n01/notes.txt": "not_media"}
    assert done.reasons("annotation") == {"n99/n99_1.JPEG": "missing_field"}


def test_a_dataset_that_was_written_beside_the_classes_is_none_of_them(convert: Any, put: Any, tmp_path: Path) -> None:
    spec = put("cat/1.jpg", "dog/1.jpg")
    output = str(tmp_path / "media" / "out")
    first = convert(spec, output=output)
    assert convert(spec, output=output).card == first.card
    assert labels(first) == {"cat/1.jpg": ("cat", 0), "dog/1.jpg": ("dog", 1)}


LISTS = {
    "LOC_val_solution.csv": "ImageId,PredictionString\nv_2,n01 1 2 3 4 n01 5 6 7 8\nv_1,n03 0 0 9 9\n",
    "val.txt": "v_2.JPEG 1\nv_1.JPEG 2\n",
    "val_wnids.txt": "v_2.JPEG n01\nv_1.JPEG n03\n",
}


@pytest.mark.parametrize("file", LISTS)
def test_validation_pictures_in_one_folder_have_their_classes_from_a_list(
    convert: Any, put: Any, synsets: str, tmp_path: Path, file: str
) -> None:
    (tmp_path / file).write_text(LISTS[file])
    spec = {**put("v_1.JPEG", "v_2.JPEG"), "annotations": synsets, "labels": str(tmp_path / file)}
    done = convert(spec)
    assert list(labels(done).values()) == [("goldfish", 1), ("hen", 2)]
    assert [record.origin.file for record in done.dataset.records()] == ["v_2.JPEG", "v_1.JPEG"]


def test_a_list_of_synsets_alone_is_in_the_order_of_the_validation_pictures(
    convert: Any, put: Any, tmp_path: Path
) -> None:
    (tmp_path / "synset_words.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish\n")
    (tmp_path / "synset_labels.txt").write_text("n01443537\nn01440764\n")
    spec = {**put("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")}
    spec |= {
        key: str(tmp_path / f"synset_{name}.txt") for key, name in (("annotations", "words"), ("labels", "labels"))
    }
    assert labels(convert(spec)) == {
        "ILSVRC2012_val_00000001": ("goldfish", 1),
        "ILSVRC2012_val_00000002": ("tench, Tinca tinca", 0),
    }


def test_a_list_may_name_pictures_in_class_folders_and_its_flaws_are_rejects(
    convert: Any, put: Any, synsets: str, tmp_path: Path
) -> None:
    (tmp_path / "train.txt").write_text("n01_1 n01\nn01_1 n02\nlost n01\n../../n02_1 n02\nn02_1 n77\n")
    spec = put("n01/n01_1.JPEG", "n02_1.JPEG")
    done = convert({**spec, "annotations": synsets, "labels": str(tmp_path / "train.txt")})
    assert labels(done) == {"n01_1": ("goldfish", 1)}
    assert done.reasons() == {
        "n01_1": "duplicate_id",
        "lost": "missing_media",
        "../../n02_1": "outside_media",
        "n02_1": "no_annotations",
    }


@pytest.mark.parametrize(
    ("list_", "says"),
    [
        (("annotations", "n77 zebra\n"), "names none of the 1 folders"),
        (("annotations", "n01 a\nn01 b\n"), "line 2: n01 is listed a second time"),
        (("labels", "490\n361\n"), "no picture beside '490'.*an order of its own"),
        (("labels.csv", "a,b\nx,y\n"), "does not begin with `ImageId,PredictionString`"),
    ],
)
def test_a_wrong_list_is_one_sentence(
    convert: Any, put: Any, tmp_path: Path, list_: tuple[str, str], says: str
) -> None:
    file, content = list_
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=says):
        convert({**put("n01/n01_1.JPEG"), file.removesuffix(".csv"): str(tmp_path / file)})


def test_indices_without_their_classes_and_a_folder_without_folders_are_one_sentence(
    convert: Any, put: Any, tmp_path: Path
) -> None:
    spec = put("v_1.JPEG")
    (tmp_path / "val.txt").write_text("v_1.JPEG 0\n")
    with pytest.raises(InputError, match=r"source\.annotations=synset_words\.txt"):
        convert({**spec, "labels": str(tmp_path / "val.txt")})
    with pytest.raises(InputError, match="holds no folder"):
        convert(spec)
