"""Karpathy's `dataset_*.json` (Flickr8k, Flickr30k, COCO): pictures, sentences and the split of each in one file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import field_validator

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, printable, read_json
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_SPLIT = re.compile(r"[A-Za-z0-9]+(\+[A-Za-z0-9]+)*")


class Config(SourceConfig):
    """`split` selects: `train`, `val`, `test`, `restval`, or several as `train+restval`; unset takes all of them.

    `media` is the folder that `filepath/filename` is relative to, or the one that holds all pictures.
    """

    media: str
    """The folder that holds the pictures."""

    @field_validator("split")
    @classmethod
    def _names_joined_by_plus(cls, split: str | None) -> str | None:
        if split is not None and not _SPLIT.fullmatch(split):
            raise ValueError(f"{split!r} is no split; write train, val, test, or several as train+restval")
        return split


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)

    def drafts() -> Sequence[Draft]:
        images = _selected(_images(config.annotations), config)
        return _pictures(images, nested=_is_nested(images, folder))

    return drafted_from_files(folder, drafts, config=config, target=target)


def _images(path: str) -> list[Mapping[str, Any]]:
    content = read_json(path, key="source.annotations")
    images = content.get("images") if isinstance(content, dict) else None
    if (
        not isinstance(images, list)
        or not images
        or not all(isinstance(image, dict) for image in images)
        or not any("sentences" in image for image in images)
    ):
        raise InputError(
            f"source.annotations: {path} has no list `images` of objects with `sentences`; "
            "give a dataset_*.json of Karpathy's splits (for the official COCO file use source.kind=coco_captions)"
        )
    return images


def _selected(images: Sequence[Mapping[str, Any]], config: Config) -> list[Mapping[str, Any]]:
    """The images of the wanted splits, in the order of the file."""
    if config.split is None:
        return list(images)
    there = Counter(str(image.get("split")) for image in images)
    for name in config.split.split("+"):
        if name not in there:
            known = ", ".join(f"{split} ({count:,})" for split, count in sorted(there.items()))
            raise InputError(f"source.split: {config.annotations} has no split {name!r}; it has {known}")
    wanted = set(config.split.split("+"))
    return [image for image in images if str(image.get("split")) in wanted]


def _is_nested(images: Sequence[Mapping[str, Any]], folder: MediaFolder) -> bool:
    """Whether the pictures lie under their `filepath` (COCO's val2014/…), or all in one folder."""
    paths = {path for image in images if isinstance(path := image.get("filepath"), str) and not is_broken(path)}
    if not paths or not folder.is_local:
        return bool(paths)
    return any((Path(folder.root) / path).is_dir() for path in paths)


def _pictures(images: Sequence[Mapping[str, Any]], *, nested: bool) -> list[Draft]:
    pictures: list[Draft] = []
    ids: set[str] = set()
    sentences: set[str] = set()
    for number, image in enumerate(images):
        picture = _picture(image, where=f"images[{number}]", nested=nested)
        if picture.id in ids:
            picture.problem = ("duplicate_id", f"images[{number}] repeats the id of an earlier image")
        ids.add(picture.id)
        for place, sentence in enumerate(image.get("sentences") or ()):
            _add(picture, sentence, where=f"{picture.id} sentences[{place}]", taken=sentences)
        pictures.append(picture)
    return pictures


def _picture(image: Mapping[str, Any], *, where: str, nested: bool) -> Draft:
    file = image.get("filename")
    if not isinstance(file, str) or not file or is_broken(file):
        reason, what = ("broken_utf8", printable(file)) if isinstance(file, str) and file else ("missing_field", "none")
        return Draft(id=where, stem=where, problem=(reason, f"{where}: filename {what}"))  # type: ignore[arg-type]
    id = str(image["cocoid"]) if "cocoid" in image else file
    filepath = image.get("filepath")
    split = image.get("split")
    return Draft(
        id=id,
        stem=id.zfill(12) if id.isdecimal() else id.removesuffix(".jpg"),
        media=[Place(file=str(PurePosixPath(filepath) / file) if nested and isinstance(filepath, str) else file)],
        split=printable(split) if isinstance(split, str) else None,
    )


def _add(picture: Draft, sentence: Any, *, where: str, taken: set[str]) -> None:
    fields = sentence if isinstance(sentence, dict) else {}
    id = str(fields["sentid"]) if "sentid" in fields else None
    text = fields.get("raw")
    tokens = fields.get("tokens")
    if text is None and isinstance(tokens, list):
        text = " ".join(str(token) for token in tokens)
    if id is not None and id in taken:
        picture.refuse(id, "duplicate_id", f"{where} repeats an earlier sentid")
        return
    if id is not None:
        taken.add(id)
    picture.add_caption(text, id=id, where=where)
