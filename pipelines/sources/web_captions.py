"""Captions from the web (CC3M, CC12M, SBU): a TSV or CSV of caption and picture, in either order, with or without a header.

Pictures are read from local files. A row that holds a URL is a reject, `remote_media`: nothing is fetched here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.grouping import grouped
from pipelines.media_folder import NOT_FETCHED, MediaFolder, is_remote
from pipelines.raw_text import Row, check_file, delimiter_of, is_broken, printable, read_rows
from pipelines.source import Source, SourceConfig, Target
from shards.config import Config as BaseConfig
from shards.errors import InputError

_IMAGE_NAMES = ("image", "url", "image_url", "path", "image_path", "file", "file_name", "filename", "filepath")
_CAPTION_NAMES = ("caption", "text", "title", "alt", "alt_text", "sentence", "description")
_PICTURE = re.compile(r"\S+\.(jpe?g|png|webp|gif|bmp|tiff?)", re.IGNORECASE)
_ROWS_LOOKED_AT = 100


class Columns(BaseConfig):
    """Names from the header, or numbers from 0; what is unset is found out from the first rows."""

    image: int | str | None = None
    """The column of the pictures' paths."""
    caption: int | str | None = None
    """The column of the captions."""


class Config(SourceConfig):
    """Rows that name the same picture become one record with several captions."""

    media: str
    """The folder that the paths in the table are relative to."""
    columns: Columns = Columns()
    delimiter: str | None = None
    """Unset: a tab for .tsv, a comma for .csv, else whichever the first line holds."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)
    return drafted_from_files(folder, lambda: _pictures(config), config=config, target=target)


def _pictures(config: Config) -> Iterator[Draft]:
    """Group the rows by picture, in the order of first mention."""
    for _, captions in grouped(_rows(config)):
        number, place, _ = captions[0]
        picture = _picture(place, where=f"row {number}")
        for number, _, caption in captions:
            picture.add_caption(caption, id=None, where=f"row {number}")
        yield picture


def _rows(config: Config) -> Iterator[tuple[str, tuple[int, str, str | None]]]:
    """Yield (what to group by, (number, picture, caption)) of every row."""
    check_file(config.annotations, key="source.annotations")
    delimiter = config.delimiter or delimiter_of(config.annotations, key="source.annotations")
    rows = read_rows(config.annotations, key="source.annotations", delimiter=delimiter)
    head = list(islice(rows, _ROWS_LOOKED_AT))
    image, caption, has_header = _find_columns(head, config)
    width = len(head[0].cells)
    for row in islice(chain(head, rows), int(has_header), None):
        place = row.cells[image].strip() if image < len(row.cells) else ""
        # A caption with an unquoted delimiter falls into several cells; as the last column they belong together.
        cells = row.cells[caption:] if caption == width - 1 else row.cells[caption : caption + 1]
        text = delimiter.join(cells) if cells else None
        yield place or f"row {row.number}", (row.number, place, text)


def _picture(place: str, *, where: str) -> Draft:
    if not place:
        return Draft(id=where, stem=where, problem=("missing_field", f"{where} names no picture"))
    if is_broken(place):
        return Draft(id=place, stem=where, problem=("broken_utf8", f"{where}: {printable(place)}"))
    if is_remote(place):
        return Draft(id=place, stem=place, problem=("remote_media", f"{where}: {NOT_FETCHED}"))
    return Draft(id=place, stem=place.removesuffix(".jpg"), media=[Place(file=place)])


def _find_columns(head: Sequence[Row], config: Config) -> tuple[int, int, bool]:
    """Find the columns of picture and caption, and whether the first row is a header.

    Raises:
        InputError: they cannot be told apart, or a configured column is not there.
    """
    if not head:
        raise InputError(f"source.annotations: {config.annotations} has no rows; download or unpack it again")
    names = [cell.strip().lower() for cell in head[0].cells]
    image = _configured(config.columns.image, names, key="image", path=config.annotations)
    caption = _configured(config.columns.caption, names, key="caption", path=config.annotations)
    by_name = any(isinstance(column, str) for column in (config.columns.image, config.columns.caption))
    has_header = by_name or (_first(names, _IMAGE_NAMES) is not None and _first(names, _CAPTION_NAMES) is not None)
    body = head[1:] if has_header else head
    if image is None:
        image = _first(names, _IMAGE_NAMES) if has_header else _most(body, _looks_like_a_place, besides=caption)
    if caption is None:
        caption = _first(names, _CAPTION_NAMES) if has_header else _most(body, _looks_like_words, besides=image)
    if image is None or caption is None or image == caption:
        raise InputError(
            f"source.annotations: which columns of {config.annotations} hold picture and caption is not clear from its "
            f"first row {' | '.join(head[0].cells)[:120]!r}; set source.columns.image and source.columns.caption (from 0)"
        )
    return image, caption, has_header


def _configured(column: int | str | None, names: Sequence[str], *, key: str, path: str) -> int | None:
    if column is None:
        return None
    number = column if isinstance(column, int) else _first(names, (column.lower(),))
    if number is None or not 0 <= number < len(names):
        raise InputError(
            f"source.columns.{key}: {path} has no column {column!r}; its first row is {', '.join(names)[:120]!r}"
        )
    return number


def _first(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _most(rows: Sequence[Row], looks_right: Callable[[str], bool], *, besides: int | None) -> int | None:
    """The column that looks right in most rows, and in at least half of them."""
    width = max(len(row.cells) for row in rows)
    votes = {
        column: sum(looks_right(row.cells[column].strip()) for row in rows if column < len(row.cells))
        for column in range(width)
        if column != besides
    }
    best = max(votes, key=lambda column: votes[column], default=None)
    return best if best is not None and 2 * votes[best] >= len(rows) else None


def _looks_like_a_place(cell: str) -> bool:
    return is_remote(cell) or _PICTURE.fullmatch(cell) is not None


def _looks_like_words(cell: str) -> bool:
    return " " in cell and not _looks_like_a_place(cell)
