"""Names and indices of classes, and lists that give each picture its class."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.drafts import usable_text
from pipelines.packed import plain_name
from pipelines.raw_text import printable, read_rows, read_text
from shards.errors import InputError
from shards.media import MediaProblem
from shards.records import Label

_SYNSET = re.compile(r"n\d{8}")  # WordNet's number of a noun, as ImageNet names its folders


@dataclass(frozen=True, slots=True)
class ClassNames:
    """Classes in the order of their indices: folder name → name for people."""

    names: Mapping[str, str]
    indices: Mapping[str, int]
    origin: str  # for messages

    @classmethod
    def ordered(cls, names: Mapping[str, str], *, origin: str) -> ClassNames:
        return cls(names, {folder: index for index, folder in enumerate(names)}, origin)

    def __contains__(self, folder: str) -> bool:
        return folder in self.names

    def label(self, folder: str, *, id: str) -> Label:
        """The class of a picture. Raises `MediaProblem` for a folder that is none of the classes."""
        if folder not in self.names:
            raise MediaProblem("missing_field", f"{printable(folder)} is no class of {self.origin}")
        name = usable_text(self.names[folder], what="class name", where=f"{self.origin}: {printable(folder)}")
        return Label(id=printable(id), name=name, index=self.indices[folder])


def folder_names(folders: Sequence[str]) -> ClassNames:
    """Folders that are their own names, in the order given."""
    return ClassNames.ordered({folder: folder for folder in folders}, origin="the folders")


def read_class_names(path: str) -> ClassNames:
    """Read `<folder> <name>` lines; the first tab or else the first space parts the two, and their order gives the indices.

    Raises:
        InputError: there is no such file, or a folder is in it twice.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(_lines(path, key="source.annotations"), start=1):
        folder, _, name = line.partition("\t" if "\t" in line else " ")
        if folder in names:
            raise InputError(
                f"source.annotations: {path}, line {number}: {printable(folder)} is listed a second time; "
                "give the list of classes, one `<folder> <name>` a line"
            )
        names[folder] = name.strip() or folder
    return ClassNames.ordered(names, origin=Path(path).name)


def read_labels(path: str, classes: ClassNames | None) -> Iterator[tuple[str, str]]:
    """Read pictures and the folder names of their classes, in the order of the file.

    A CSV is one of the ImageNet challenge on Kaggle: `ImageId,PredictionString`, the class before its boxes. Any other file has
    lines of `<picture> <class>`, the class by its folder name or by its index; or of the class alone, by its folder name, in the
    order of ImageNet's validation pictures (`imagenet_2012_validation_synset_labels.txt`).

    Raises:
        InputError: it is no such list, or has indices and `classes` does not say of what.
    """
    if plain_name(path).lower().endswith(".csv"):
        yield from _kaggle(path)
        return
    folders = list(classes.names) if classes else []
    for number, line in enumerate(_lines(path, key="source.labels"), start=1):
        picture, _, label = line.rpartition("\t" if "\t" in line else " ")
        if not picture and _SYNSET.fullmatch(label):
            picture = f"ILSVRC2012_val_{number:08d}"
        if not picture:
            raise InputError(
                f"source.labels: {path}, line {number} has no picture beside {printable(label)[:40]!r}; give lines of "
                "`<picture> <class>` or LOC_val_solution.csv (the ground truth of ImageNet's kit numbers classes in an "
                "order of its own)"
            )
        if classes is not None and label not in classes and label.isdecimal() and int(label) < len(folders):
            label = folders[int(label)]
        elif classes is None and label.isdecimal():
            raise InputError(
                f"source.labels: {path}, line {number} has the class {label}; say which classes these are with "
                "source.annotations=synset_words.txt"
            )
        yield picture.strip(), label


def _kaggle(path: str) -> Iterator[tuple[str, str]]:
    for row in read_rows(path, key="source.labels", delimiter=","):
        if row.number == 1:
            if [cell.strip() for cell in row.cells] != ["ImageId", "PredictionString"]:
                raise InputError(
                    f"source.labels: {path} does not begin with `ImageId,PredictionString`; give LOC_val_solution.csv, "
                    "or a text file with lines of `<picture> <class>`"
                )
            continue
        picture, prediction = row.cells if len(row.cells) == 2 else (row.cells[0], "")
        yield picture.strip(), next(iter(prediction.split()), "")


def _lines(path: str, *, key: str) -> list[str]:
    """The lines that say anything."""
    return [line.strip() for line in read_text(path, key=key).split("\n") if line.strip()]
