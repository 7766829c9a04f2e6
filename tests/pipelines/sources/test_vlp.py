"""VLP's files: features by HDF5 part or by npy, captions and questions, and files that try to do more than hold data."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.object_arrays import read_objects
from shards.errors import InputError
from shards.reader import Dataset
from shards.records import Answer, Question
from shards.regions import read_regions

Arrays = dict[str, np.ndarray[Any, Any]]
NAMES = ("COCO_train2014_000000000025", "COCO_train2014_000000001025", "COCO_val2014_000000000042")


def arrays_of(name: str) -> Arrays:
    rng = np.random.default_rng(len(name) + int(name[-6:]))
    widths = {"features": 5, "classes": 4, "boxes": 6}
    return {what: rng.random((3, width)).astype("<f2") for what, width in widths.items()}


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    """The published layout: parts by the last three characters, and one file of boxes."""
    h5py = pytest.importorskip("h5py")
    folder = tmp_path / "features"
    (folder / "feat_cls_1000").mkdir(parents=True)
    for name in NAMES:
        arrays = arrays_of(name)
        for what, part in (("features", f"_feat{name[-3:]}"), ("classes", f"_cls{name[-3:]}")):
            with h5py.File(folder / "feat_cls_1000" / f"coco_detection_trainval{part}.h5", "a") as file:
                file[name] = arrays[what]
        with h5py.File(folder / "coco_detection_trainvaltest.h5", "a") as file:
            file[name] = arrays["boxes"]
    return folder


@pytest.fixture
def captions(tmp_path: Path) -> str:
    images = [
        {"filename": f"{name}.jpg", "split": split, "sentences": [{"raw": f"one of {name}"}, {"raw": "two"}]}
        for name, split in zip(NAMES, ("train", "restval", "test"), strict=True)
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    return str(tmp_path / "dataset_coco.json")


def imdb(path: Path, *entries: Any, protocol: int = 3) -> str:
    array = np.empty(len(entries) + 1, object)
    array[:] = [{"dataset_name": "vqa", "has_answer": True}, *entries]
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": array.shape})
        pickle.dump(array, file, protocol=protocol)
    return str(path)


def question(name: str, id: Any, *answers: str, text: str = "what is it ?") -> dict[str, Any]:
    return {
        "image_name": name,
        "feature_path": f"{name}.npy",
        "question_str": text,
        "question_id": id,
        "answers": list(answers),
        "score": np.float32(0.5),
        "boxes": np.ones((2, 4)),
    }


def check_regions(dataset: Dataset) -> list[str]:
    """Compare every stored archive with the arrays that were written; returns the key stems."""
    stems = [record.key.rpartition("-")[2] for record in dataset.records()]
    for stem, record in zip(stems, dataset.records(), strict=True):
        assert [(media.kind, media.member) for media in record.media] == [("regions", "npz")]
        stored = read_regions(record.payload["npz"])
        for what, array in arrays_of(stem).items():
            np.testing.assert_array_equal(stored[what], array)
    return stems


def test_captions_of_the_wanted_splits_come_with_their_regions(hdf5: Path, captions: str, convert: Any) -> None:
    done = convert({"kind": "vlp", "annotations": captions, "media": str(hdf5), "split": "train+restval"})
    assert check_regions(done.dataset) == list(NAMES[:2])
    assert done.captions[f"{NAMES[0]}.jpg"] == [f"one of {NAMES[0]}", "two"]
    assert [record.origin.split for record in done.dataset.records()] == ["train", "restval"]


def test_the_older_layout_gives_the_same_archives(hdf5: Path, captions: str, tmp_path: Path, convert: Any) -> None:
    folder = tmp_path / "npy"
    (folder / "val2014").mkdir(parents=True)
    for name in NAMES:
        place = folder / "val2014" if "val2014" in name else folder
        np.save(place / f"{name}.npy", arrays_of(name)["features"])
        np.save(place / f"{name}_cls_prob.npy", arrays_of(name)["classes"])
    spec = {"kind": "vlp", "annotations": captions}
    older = convert({**spec, "media": str(folder), "boxes": str(hdf5 / "coco_detection_trainvaltest.h5")})
    newer = convert({**spec, "media": str(hdf5)})
    assert [dict(record.payload) for record in older.dataset.records()] == [
        dict(record.payload) for record in newer.dataset.records()
    ]


def test_pictures_that_are_not_listed_are_filtered_by_name(
    hdf5: Path, captions: str, tmp_path: Path, convert: Any
) -> None:
    listed = tmp_path / "coco_valid_jpgs.json"
    listed.write_text(json.dumps({f"{NAMES[1]}.jpg": ""}))
    done = convert({"kind": "vlp", "annotations": captions, "media": str(hdf5), "listed": str(listed)})
    assert check_regions(done.dataset) == [NAMES[1]]
    assert done.reasons() == {f"{NAMES[0]}.jpg": "filtered", f"{NAMES[2]}.jpg": "filtered"}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_questions_of_an_imdb_are_grouped_by_picture(protocol: int, hdf5: Path, tmp_path: Path, convert: Any) -> None:
    file = imdb(
        tmp_path / "imdb_train2014.npy",
        question(NAMES[0], 10, *["cat"] * 8, "dog", "dog"),
        question(NAMES[2], 20),
        question(NAMES[0], np.int64(11), "yes"),
        question(NAMES[0], 10, "again"),
        {**question(NAMES[2], 30), "answers": ("yes", "no")},
        {**question(NAMES[2], 40), "answers": True},
        protocol=protocol,
    )
    done = convert({"kind": "vlp", "annotations": file, "media": str(hdf5)})
    assert check_regions(done.dataset) == [NAMES[0], NAMES[2]]
    first, second = (record.annotations for record in done.dataset.records())
    assert first[0] == Question(
        id="10", question="what is it ?", answers=(Answer(text="cat", weight=0.8), Answer(text="dog", weight=0.2))
    )
    assert [(annotation.id, len(annotation.answers)) for annotation in (first[1], *second)] == [
        ("11", 1),
        ("20", 0),
        ("30", 2),
    ]
    assert done.reasons("annotation") == {"10": "duplicate_id", "40": "missing_field"}
    assert done.card.split == "train"


class _Runs:
    """Pickles to a call of `Path.touch`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_nothing_in_an_imdb_is_ever_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    file = imdb(tmp_path / "imdb_val2014.npy", {"image_name": _Runs(mark)})
    with pytest.raises(InputError, match="refused"):
        read_objects(file, key="source.annotations")
    assert not mark.exists()
    np.load(file, allow_pickle=True)
    assert mark.exists()  # so the file is as hostile as it is meant to be


def test_a_hostile_array_header_reaches_no_memory(tmp_path: Path) -> None:
    """NumPy's own array, told that raw bytes are object pointers, would follow them."""
    path = tmp_path / "imdb_val2014.npy"
    good = pickle.dumps(np.array([{"a": 1}], dtype=object), protocol=3)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        file.write(good.replace(b"]q", b"C\x08AAAAAAAAq", 1))
    with pytest.raises(InputError):
        read_objects(str(path), key="source.annotations")


def test_a_memo_index_of_gigabytes_takes_none(tmp_path: Path) -> None:
    path = tmp_path / "imdb_val2014.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        file.write(b"\x80\x03]r\xff\xff\xff\x7f.")
    with pytest.raises(InputError, match="not one row of objects"):
        read_objects(str(path), key="source.annotations")


@pytest.mark.parametrize("cut", [3, 40, -5])
def test_an_imdb_that_is_cut_says_so(cut: int, tmp_path: Path) -> None:
    path = Path(imdb(tmp_path / "imdb_val2014.npy", question(NAMES[0], 1, "yes")))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match="download it again"):
        read_objects(str(path), key="source.annotations")


def _missing(folder: Path, h5py: Any) -> None:
    with h5py.File(folder / "coco_detection_trainvaltest.h5", "a") as file:
        del file[NAMES[0]]


def _not_finite(folder: Path, h5py: Any) -> None:
    with h5py.File(folder / "coco_detection_trainvaltest.h5", "a") as file:
        file[NAMES[0]][0, 0] = np.nan


def _other_rows(folder: Path, h5py: Any) -> None:
    with h5py.File(folder / "coco_detection_trainvaltest.h5", "a") as file:
        del file[NAMES[0]]
        file[NAMES[0]] = np.ones((2, 6))


def _link_out(folder: Path, h5py: Any) -> None:
    with h5py.File(folder.parent / "secret.h5", "w") as file:
        file["x"] = np.ones((3, 6))
    with h5py.File(folder / "coco_detection_trainvaltest.h5", "a") as file:
        del file[NAMES[0]]
        file[NAMES[0]] = h5py.ExternalLink(str(folder.parent / "secret.h5"), "x")


def _cut(folder: Path, h5py: Any) -> None:
    part = folder / "feat_cls_1000" / "coco_detection_trainval_feat042.h5"
    part.write_bytes(part.read_bytes()[:-200])


def _gone(folder: Path, h5py: Any) -> None:
    (folder / "feat_cls_1000" / "coco_detection_trainval_cls042.h5").unlink()


@pytest.mark.parametrize(
    ("harm", "wanted"),
    [
        (_missing, {f"{NAMES[0]}.jpg": "missing_media"}),
        (_not_finite, {f"{NAMES[0]}.jpg": "not_finite"}),
        (_other_rows, {f"{NAMES[0]}.jpg": "size_mismatch"}),
        (_link_out, {f"{NAMES[0]}.jpg": "missing_media"}),
        (_cut, {f"{NAMES[2]}.jpg": "truncated_media"}),
        (_gone, {f"{NAMES[2]}.jpg": "missing_media"}),
    ],
)
def test_features_that_are_not_right_are_rejected_by_name(
    harm: Callable[[Path, Any], None], wanted: dict[str, str], hdf5: Path, captions: str, convert: Any
) -> None:
    harm(hdf5, pytest.importorskip("h5py"))
    done = convert({"kind": "vlp", "annotations": captions, "media": str(hdf5)}, reject_share=1.0)
    assert done.reasons() == wanted
    assert check_regions(done.dataset) == [name for name in NAMES if f"{name}.jpg" not in wanted]


def test_a_folder_without_boxes_or_with_two_sets_of_features_is_asked_about(
    hdf5: Path, captions: str, convert: Any
) -> None:
    spec: Mapping[str, Any] = {"kind": "vlp", "annotations": captions, "media": str(hdf5)}
    part = hdf5 / "feat_cls_1000" / "coco_detection_trainval_feat025.h5"
    other = hdf5 / "cc_detection_trainval_feat025.h5"
    other.write_bytes(part.read_bytes())
    with pytest.raises(InputError, match="two sets of features"):
        convert(dict(spec))
    other.unlink()
    (hdf5 / "coco_detection_trainvaltest.h5").unlink()
    with pytest.raises(InputError, match=r"source\.boxes"):
        convert(dict(spec))


def test_a_picture_twice_and_sentences_that_are_none_are_named(hdf5: Path, tmp_path: Path, convert: Any) -> None:
    said = {"filename": f"{NAMES[0]}.jpg", "sentences": [{"raw": "A."}]}
    images = [{**said, "cocoid": 1}, {**said, "cocoid": 2}, {"filename": f"{NAMES[1]}.jpg", "sentences": 1.5}]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images}))
    done = convert({"kind": "vlp", "annotations": str(tmp_path / "dataset_coco.json"), "media": str(hdf5)})
    assert done.captions == {"1": ["A."]}
    assert done.reasons() == {"2": "duplicate_id", f"{NAMES[1]}.jpg": "no_annotations"}


@pytest.mark.parametrize("content", [[], {"images": []}, {"images": ["a.jpg"]}, {"annotations": []}])
def test_a_file_that_is_no_list_of_images_is_told_apart(content: Any, hdf5: Path, tmp_path: Path, convert: Any) -> None:
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="no list `images`"):
        convert({"kind": "vlp", "annotations": str(tmp_path / "other.json"), "media": str(hdf5)})


def test_a_split_that_is_not_there_is_named(hdf5: Path, captions: str, convert: Any) -> None:
    with pytest.raises(InputError, match="restval, test, train"):
        convert({"kind": "vlp", "annotations": captions, "media": str(hdf5), "split": "train+minival"})
