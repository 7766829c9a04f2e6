"""SBU captions: two files of lines, `SBU_captioned_photo_dataset_urls.txt` and `…_captions.txt`, or its JSON of two lists.

Line `n` of one belongs to line `n` of the other. A picture is looked for under the base name of its address, as every
downloader saves it; for a table with other names use `source.kind=web_captions` or `table`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.media_folder import MediaFolder
from pipelines.packed import plain_name
from pipelines.raw_text import is_broken, printable, read_json
from pipelines.source import Source, SourceConfig, Target
from pipelines.text_items import read_lines
from shards.errors import InputError

_URLS, _CAPTIONS = "urls", "captions"


class Config(SourceConfig):
    """`annotations` is `SBU_captioned_photo_dataset_urls.txt`, or the JSON file with `image_urls` and `captions`."""

    LOCATIONS: ClassVar = ("annotations", "captions", "media")

    media: str
    """The folder of the downloaded pictures."""
    captions: str | None = None
    """The file of captions; unset: the one beside `annotations` whose name says `captions` instead of `urls`."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _drafts(config), config=config, target=target)


def _drafts(config: Config) -> Iterator[Draft]:
    names: set[str] = set()
    for number, (address, caption) in enumerate(_pairs(config), start=1):
        where = f"line {number}"
        name = PurePosixPath(urlsplit(address).path).name if address and not is_broken(address) else ""
        draft = Draft(id=printable(address) if address else where, stem=name.removesuffix(".jpg") or where)
        if not name:
            draft.problem = ("missing_field", f"{where} names no picture")
        elif name in names:
            draft.problem, draft.stem = ("duplicate_id", f"{where} repeats the picture {name}"), where
        else:
            names.add(name)
            draft.media.append(Place(file=name))
        draft.add_caption(caption, id=None, where=where)
        yield draft


def _pairs(config: Config) -> Iterator[tuple[str, Any]]:
    if plain_name(config.annotations).lower().endswith(".json"):
        yield from _pairs_of_json(config.annotations)
        return
    captions = config.captions or _captions_beside(config.annotations)
    left = read_lines(config.annotations, key="source.annotations")
    right = read_lines(captions, key="source.captions")
    for address, caption in zip_longest(left, right):
        if address is None or caption is None:
            longer, shorter = (captions, config.annotations) if address is None else (config.annotations, captions)
            raise InputError(
                f"source.captions: {longer} has more lines than {shorter}, so they do not belong together or one is cut; "
                "download or unpack them again"
            )
        yield address, caption


def _pairs_of_json(path: str) -> Iterator[tuple[str, Any]]:
    content = read_json(path, key="source.annotations")
    addresses, captions = (
        content.get(name) if isinstance(content, dict) else None for name in ("image_urls", "captions")
    )
    if not isinstance(addresses, list) or not isinstance(captions, list) or len(addresses) != len(captions):
        raise InputError(
            f"source.annotations: {path} has no two lists `image_urls` and `captions` of one length; give SBU's own JSON, "
            "or the file of addresses with source.captions"
        )
    for address, caption in zip(addresses, captions, strict=True):
        yield address if isinstance(address, str) else "", caption


def _captions_beside(annotations: str) -> str:
    path = Path(annotations)
    if _URLS not in path.name:
        raise InputError(
            f"source.captions: {annotations} does not say which file holds its captions; set source.captions, or give "
            "SBU_captioned_photo_dataset_urls.txt"
        )
    return str(path.with_name(path.name.replace(_URLS, _CAPTIONS)))
