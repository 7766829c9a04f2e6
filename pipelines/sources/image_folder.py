"""Pictures with a class each: folders named for their classes, as ImageNet unpacks, or a list of pictures and classes.

    source.kind=image_folder source.media=ILSVRC/train source.annotations=synset_words.txt
    source.kind=image_folder source.media=ILSVRC/val   source.annotations=synset_words.txt source.labels=LOC_val_solution.csv
    source.kind=image_folder source.media=my/pictures

`annotations` names the classes: `<folder> <name>` on each line (`synset_words.txt`, `LOC_synset_mapping.txt`), whose order gives
the indices. Without it, folders are their own names, indexed in alphabetical order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pipelines.class_names import ClassNames, folder_names, read_class_names, read_labels
from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_ENDINGS = ("", ".JPEG", ".jpg", ".jpeg", ".png")  # lists name pictures with or without one


class Config(SourceConfig):
    """`split` only names the split."""

    LOCATIONS: ClassVar = ("annotations", "labels", "media")

    annotations: str = ""
    """The file that names the classes; unset: folders are their names."""
    media: str
    """The folder that holds a folder for each class, or with `labels` the pictures."""
    labels: str | None = None
    """A list of pictures and their classes: `LOC_val_solution.csv`, `imagenet_2012_validation_synset_labels.txt`, or lines of
    `<picture> <class or index>`."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    if config.labels is None and not folder.is_local:
        raise InputError(
            f"source.media: {config.media} is remote, and class folders are listed only on a local disk; "
            "mount it, or name the pictures with source.labels"
        )
    drafts = _listed if config.labels is not None else _walked
    return drafted_from_files(folder, lambda: drafts(config, folder), config=config, target=target)


def _walked(config: Config, folder: MediaFolder) -> Iterator[Draft]:
    """Every file below a class folder, in the order of their paths; hidden files are none."""
    root = Path(folder.root)
    folders = [Path(entry) for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")]
    # A dataset that was written in here, such as the one being made, is no class.
    found = sorted(folder.name for folder in folders if not (folder / "commits").is_dir())
    if not found:
        raise InputError(
            f"source.media: {root.absolute()} holds no folder; point it at the folder that holds one folder per class, "
            "or give the classes of its pictures with source.labels"
        )
    classes = read_class_names(config.annotations) if config.annotations else folder_names(found)
    if not any(name in classes for name in found):
        raise InputError(
            f"source.annotations: {config.annotations} names none of the {len(found)} folders of {root.absolute()} "
            f"(such as {printable(found[0])}); give the list of these classes"
        )
    for name in found:
        for file in _files(root / name):
            yield _draft(PurePosixPath(name, file), name, classes)


def _files(folder: Path) -> list[str]:
    paths = (
        os.path.relpath(os.path.join(below, file), folder)
        for below, _, files in os.walk(folder)
        for file in files
        if not file.startswith(".")
    )
    return sorted(path.replace(os.sep, "/") for path in paths)


def _listed(config: Config, folder: MediaFolder) -> Iterator[Draft]:
    """Every picture of the list, in its order."""
    classes = read_class_names(config.annotations) if config.annotations else None
    labels = list(read_labels(str(config.labels), classes))
    known = classes or folder_names(sorted({label for _, label in labels}))
    seen: set[str] = set()
    for picture, label in labels:
        draft = _draft(PurePosixPath(_found(picture, label, folder)), label, known, id=picture)
        if picture in seen:
            draft.problem = ("duplicate_id", f"{printable(picture)} is listed twice")
        seen.add(picture)
        yield draft


def _found(picture: str, label: str, folder: MediaFolder) -> str:
    """The picture's file, in the folder itself or in that of its class; as it is listed where there is none."""
    names = [f"{below}{picture}{ending}" for below in ("", f"{label}/") for ending in _ENDINGS]
    if not folder.is_local:
        return picture if PurePosixPath(picture).suffix else f"{picture}{_ENDINGS[1]}"
    return next((name for name in names if folder.size(name) is not None), picture)


def _draft(file: PurePosixPath, folder: str, classes: ClassNames, *, id: str | None = None) -> Draft:
    """A picture with its class; `id` is its path where a list gives it no other name."""
    name = str(file)
    draft = Draft(id=name if id is None else id, stem=_stem(file, folder))
    if is_broken(name):
        draft.problem = ("broken_utf8", f"the name {printable(name)}")
    else:
        draft.media.append(Place(file=name))
    with draft.refusing(draft.id):
        draft.annotations.append(classes.label(folder, id=draft.id))
    return draft


def _stem(file: PurePosixPath, folder: str) -> str:
    """ImageNet's training pictures repeat their class in their names, which so are names enough; others go by the whole path."""
    is_imagenet = file.parent == PurePosixPath(folder) and file.name.startswith(f"{folder}_")
    return file.stem if is_imagenet and file.suffix == ".JPEG" else str(file)
