"""Flickr8k and Flickr30k captions: the releases' token file (`name.jpg#0<TAB>caption`) or the CSV of later re-releases."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.grouping import grouped
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import Row, first_line, is_broken, printable, read_rows
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

_NAME_COLUMNS = ("image", "image_name", "filename", "file_name")
_TEXT_COLUMNS = ("caption", "comment", "raw", "text")
_NUMBER_COLUMNS = ("comment_number", "caption_number")


class Config(SourceConfig):
    """`annotations` is Flickr8k.token.txt, results_20130124.token, captions.txt or results.csv; `split` names the split."""

    media: str
    """The folder that holds the pictures."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)

    return drafted_from_files(folder, lambda: _pictures(config.annotations), config=config, target=target)


def _pictures(path: str) -> Iterator[Draft]:
    """Group the lines by picture, sorted by its name; a line without a name is an item, and a reject, of its own."""
    rows = (
        (where if not name or is_broken(name) else name, (name, id, text, where))
        for name, id, text, where in _lines(path)
    )
    for id, lines in grouped(rows, order=lambda key: key):
        picture = _picture(id, lines[0][0])
        taken: set[str] = set()  # a caption's number begins with its picture's name, so no other picture has it
        for _, caption_id, text, where in lines:
            if picture.problem is not None:
                picture.add_caption(text, id=None, where=where)
            elif caption_id is not None and caption_id in taken:
                picture.refuse(caption_id, "duplicate_id", f"{where} repeats an earlier caption number")
            else:
                taken.update(() if caption_id is None else (caption_id,))
                picture.add_caption(text, id=caption_id, where=where)
        yield picture


def _picture(id: str, name: str) -> Draft:
    if not name:
        return Draft(id=id, stem=id, problem=("missing_field", f"{id} names no picture"))
    if is_broken(name):
        return Draft(id=id, stem=id, problem=("broken_utf8", f"{id}: {printable(name)}"))
    return Draft(id=name, stem=name.removesuffix(".jpg"), media=[Place(file=name)])


def _lines(path: str) -> Iterator[tuple[str, str | None, str | None, str]]:
    """Yield (picture name, caption id, caption, place in the file) in whichever of the layouts the file has."""
    first = first_line(path, key="source.annotations")
    if "\t" in first:
        yield from _token_lines(read_rows(path, key="source.annotations", delimiter="\t"))
        return
    # Flickr30k's results.csv has `|` between its columns, Flickr8k's captions.txt a comma.
    delimiter = "|" if first.count("|") >= 1 else ","
    header = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=delimiter), [])]
    name, text = _column(header, _NAME_COLUMNS), _column(header, _TEXT_COLUMNS)
    if name is None or text is None:
        raise InputError(
            f"source.annotations: {path} is neither a token file (name.jpg#0<TAB>caption) nor a CSV with the columns "
            f"image and caption (its first line is {first[:80]!r}); for other tables use source.kind=table"
        )
    number = _column(header, _NUMBER_COLUMNS)
    for row in read_rows(path, key="source.annotations", delimiter=delimiter):
        if row.number == 1:
            continue
        # A caption with an unquoted delimiter falls into several cells; it is the last column, so they belong together.
        cells = [*row.cells[: len(header) - 1], delimiter.join(row.cells[len(header) - 1 :])]
        values = dict(enumerate(cell.strip() for cell in cells if cell is not None))
        picture = values.get(name, "")
        id = f"{picture}#{values[number]}" if number is not None and values.get(number) else None
        yield picture, id, values.get(text) if len(row.cells) > text else None, f"row {row.number}"


def _token_lines(rows: Iterator[Row]) -> Iterator[tuple[str, str | None, str | None, str]]:
    for row in rows:
        id = row.cells[0].strip()
        text = "\t".join(row.cells[1:]) if len(row.cells) > 1 else None
        yield id.rpartition("#")[0] or id, id if "#" in id else None, text, f"row {row.number}"


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)
