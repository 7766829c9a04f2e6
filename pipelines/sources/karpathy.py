"""Karpathy's `dataset_*.json` (Flickr8k, Flickr30k, COCO): pictures, sentences and the split of each in one file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import field_validator

from pipelines.coco_pictures import picture_file
from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.grouping import Repeats, grouped
from pipelines.json_stream import TOP, stream_json
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import is_broken, printable
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_SPLIT = re.compile(r"[A-Za-z0-9]+(\+[A-Za-z0-9]+)*")


class Config(SourceConfig):
    """`split` selects: `train`, `val`, `test`, `restval`, or several as `train+restval`; unset takes all of them.

    `media` is the folder that `filepath/filename` is relative to, or the one that holds all pictures; COCO's are found under
    their names of 2017, too.
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

    return drafted_from_files(folder, lambda: _pictures(config, folder), config=config, target=target)


def _pictures(config: Config, folder: MediaFolder) -> Iterator[Draft]:
    """The pictures of the wanted splits in the order of the file, the second of two equal ids a reject of its own."""
    ids = Repeats()
    nested: dict[str, bool] = {}
    for _, images in grouped(_rows(config, ids)):
        if not ids.is_settled:
            ids.settle(lambda: (str(s["sentid"]) for _, i in _selected(config) for s in _sentences(i) if "sentid" in s))
        for place, (number, image, at) in enumerate(images):
            where = f"images[{number}]"
            picture = _picture(image, where=where, folder=folder, nested=nested)
            if place > 0:
                picture.problem = ("duplicate_id", f"{where} repeats the id of an earlier image")
            for sentence_number, (sentence, noted) in enumerate(zip(image.get("sentences") or (), at, strict=True)):
                _add(picture, sentence, noted, where=f"{picture.id} sentences[{sentence_number}]", ids=ids)
            yield picture


def _rows(config: Config, ids: Repeats) -> Iterator[tuple[str, tuple[int, Mapping[str, Any], list[int | None]]]]:
    """The selected images by id: their number in the file, what is needed of them, and each sentence's number in `ids`."""
    for number, image in _selected(config):
        sentences = image.get("sentences")
        kept = {name: image[name] for name in ("filename", "cocoid", "filepath", "split") if name in image}
        kept["sentences"] = list(sentences) if isinstance(sentences, list) else []
        at = [
            ids.note(str(sentence["sentid"])) if isinstance(sentence, dict) and "sentid" in sentence else None
            for sentence in kept["sentences"]
        ]
        yield _id(image, where=f"images[{number}]"), (number, kept, at)


def _selected(config: Config) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The images of the wanted splits with their numbers; at the end of the file it is clear whether it was the right one.

    Raises:
        InputError: the file is in another layout, or lacks a wanted split.
    """
    path = config.annotations
    wanted = None if config.split is None else set(config.split.split("+"))
    there: Counter[str] = Counter()
    number, has_sentences = 0, False
    for name, image in stream_json(path, key="source.annotations", lists=(TOP, "images")):
        if name == TOP or (name == "images" and not isinstance(image, dict)):
            raise _no_karpathy(path)
        if name == "images":
            has_sentences = has_sentences or "sentences" in image
            split = str(image.get("split"))
            there[split] += 1
            if wanted is None or split in wanted:
                yield number, image
            number += 1
    if not has_sentences:
        raise _no_karpathy(path)
    for split in sorted(wanted or ()):
        if split not in there:
            known = ", ".join(f"{split} ({count:,})" for split, count in sorted(there.items()))
            raise InputError(f"source.split: {path} has no split {split!r}; it has {known}")


def _no_karpathy(path: str) -> InputError:
    return InputError(
        f"source.annotations: {path} has no list `images` of objects with `sentences`; "
        "give a dataset_*.json of Karpathy's splits (for the official COCO file use source.kind=coco_captions)"
    )


def _sentences(image: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    sentences = image.get("sentences")
    yield from (
        sentence for sentence in (sentences if isinstance(sentences, list) else ()) if isinstance(sentence, dict)
    )


def _picture(image: Mapping[str, Any], *, where: str, folder: MediaFolder, nested: dict[str, bool]) -> Draft:
    id, file, split = _id(image, where=where), image.get("filename"), image.get("split")
    if not isinstance(file, str) or not file:
        return Draft(id=id, stem=id, problem=("missing_field", f"{where}: no filename"))
    if is_broken(file):
        return Draft(id=id, stem=id, problem=("broken_utf8", f"{where}: filename {printable(file)}"))
    return Draft(
        id=id,
        stem=id.zfill(12) if id.isdecimal() else id.removesuffix(".jpg"),
        media=[Place(file=picture_file(folder, _below(image.get("filepath"), file, folder, nested)))],
        split=printable(split) if isinstance(split, str) else None,
    )


def _id(image: Mapping[str, Any], *, where: str) -> str:
    """COCO's number or else the file's name; an image without a usable one stands for itself."""
    file = image.get("filename")
    if not isinstance(file, str) or not file or is_broken(file):
        return where
    return str(image["cocoid"]) if "cocoid" in image else file


def _below(path: Any, file: str, folder: MediaFolder, known: dict[str, bool]) -> str:
    """A file under its `filepath` (COCO's val2014/…), or by its name alone where all pictures lie in one folder."""
    if not isinstance(path, str) or is_broken(path):
        return file
    if path not in known:  # one look for each of a few folders
        known[path] = not folder.is_local or (Path(folder.root) / path).is_dir()
    return str(PurePosixPath(path) / file) if known[path] else file


def _add(picture: Draft, sentence: Any, at: int | None, *, where: str, ids: Repeats) -> None:
    fields = sentence if isinstance(sentence, dict) else {}
    id = str(fields["sentid"]) if at is not None else None
    text = fields.get("raw")
    tokens = fields.get("tokens")
    if text is None and isinstance(tokens, list):
        text = " ".join(str(token) for token in tokens)
    if id is not None and at is not None and ids.is_repeat(id, at):
        picture.refuse(id, "duplicate_id", f"{where} repeats an earlier sentid")
        return
    picture.add_caption(text, id=id, where=where)
