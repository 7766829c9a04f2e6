"""Flickr8k and Flickr30k captions: the releases' token file (`name.jpg#0<TAB>caption`) or the CSV of later re-releases."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pipelines.drafts import Draft, Place, drafted_from_files
from pipelines.grouping import grouped
from pipelines.media_folder import MediaFolder
from pipelines.raw_text import Row, decode_json, first_line, is_broken, printable, read_headed_rows, read_rows
from pipelines.source import Source, SourceConfig, Target
from shards.errors import InputError

KEY = "source.annotations"
_NAME_COLUMNS = ("image", "image_name", "filename", "file_name")
_TEXT_COLUMNS = ("caption", "comment", "raw", "text")
_NUMBER_COLUMNS = ("comment_number", "caption_number")
_LISTS = "raw"  # the column of the re-release of Karpathy's file as a CSV: all captions of a picture as a JSON list
_SPLIT = "split"

Line = tuple[str, list[tuple[str | None, str | None]], str, str | None, int]
"""Picture name, (id, text) of its captions, place in the file, split, cells too many."""


class Config(SourceConfig):
    """`annotations` is Flickr8k.token.txt, results_20130124.token, captions.txt, results.csv or flickr_annotations_30k.csv.

    `split` names the split, and selects in a file with a column of that name.
    """

    media: str
    """The folder that holds the pictures."""


def build(config: Config, target: Target) -> Source:
    folder = MediaFolder(config.media, follow_links=config.follow_links)

    return drafted_from_files(folder, lambda: _pictures(config), config=config, target=target)


def _pictures(config: Config) -> Iterator[Draft]:
    """Group the lines by picture, sorted by its name; a line without a name is an item, and a reject, of its own."""
    rows = ((line[2] if not line[0] or is_broken(line[0]) else line[0], line) for line in _lines(config))
    for id, lines in grouped(rows, order=lambda key: key):
        picture = _picture(id, lines[0])
        taken: set[str] = set()  # a caption's number begins with its picture's name, so no other picture has it
        for _, captions, where, _, surplus in lines:
            if surplus:
                detail = (
                    f"{where} has {surplus} more cells than the header; put captions that hold the delimiter in quotes"
                )
                picture.refuse(where, "unsupported", detail)
                continue
            for caption_id, text in captions:
                if caption_id is not None and caption_id in taken:
                    picture.refuse(caption_id, "duplicate_id", f"{where} repeats an earlier caption number")
                    continue
                taken.update(() if caption_id is None else (caption_id,))
                picture.add_caption(text, id=caption_id, where=where)
        yield picture


def _picture(id: str, line: Line) -> Draft:
    name, _, _, split, _ = line
    if not name:
        return Draft(id=id, stem=id, problem=("missing_field", f"{id} names no picture"))
    if is_broken(name):
        return Draft(id=id, stem=id, problem=("broken_utf8", f"{id}: {printable(name)}"))
    return Draft(id=name, stem=name.removesuffix(".jpg"), media=[Place(file=name)], split=split)


def _lines(config: Config) -> Iterator[Line]:
    """Read whichever of the layouts the file has."""
    first = first_line(config.annotations, key=KEY)
    if "\t" in first:
        yield from _token_lines(read_rows(config.annotations, key=KEY, delimiter="\t"))
    else:
        # Flickr30k's results.csv has `|` between its columns, the others a comma.
        yield from _csv_lines(config, delimiter="|" if "|" in first else ",")


def _token_lines(rows: Iterator[Row]) -> Iterator[Line]:
    for row in rows:
        id = row.cells[0].strip()
        text = "\t".join(row.cells[1:]) if len(row.cells) > 1 else None
        yield id.rpartition("#")[0] or id, [(id if "#" in id else None, text)], f"row {row.number}", None, 0


def _csv_lines(config: Config, *, delimiter: str) -> Iterator[Line]:
    path = config.annotations
    names, rows = read_headed_rows(path, key=KEY, delimiter=delimiter)
    header = [name.lower() for name in names]
    name, text = _column(header, _NAME_COLUMNS), _column(header, _TEXT_COLUMNS)
    if name is None or text is None:
        raise InputError(
            f"{KEY}: {path} is neither a token file (name.jpg#0<TAB>caption) nor a CSV with the columns "
            f"image and caption (its first line is {delimiter.join(names)[:80]!r}); for other tables use source.kind=table"
        )
    number, split = _column(header, _NUMBER_COLUMNS), _column(header, (_SPLIT,))
    there: set[str] = set()
    for row in rows:
        # A caption with an unquoted delimiter falls into several cells; only in the last column do these belong together.
        last = len(header) - 1
        cells = [*row.cells[:last], delimiter.join(row.cells[last:])] if text == last else row.cells
        values = dict(enumerate(cell.strip() for cell in cells))
        own = values.get(split) if split is not None else None
        there.add(own or "")
        if own is not None and config.split not in (None, own):
            continue
        picture = values.get(name, "")
        id = f"{picture}#{values[number]}" if number is not None and values.get(number) else None
        said = values.get(text) if len(row.cells) > text else None
        captions = _listed(said, picture) if header[text] == _LISTS else [(id, said)]
        yield picture, captions, f"row {row.number}", own and printable(own), max(0, len(cells) - len(header))
    if split is not None and config.split is not None and config.split not in there:
        known = ", ".join(sorted(printable(name) for name in there))
        raise InputError(f"source.split: {path} has no split {config.split!r}; it has {known}")


def _listed(cell: str | None, picture: str) -> list[tuple[str | None, str | None]]:
    """The captions of a JSON list; a cell that holds none is one caption."""
    try:
        texts = decode_json(cell or "")
    except json.JSONDecodeError:
        texts = None
    if not isinstance(texts, list):
        return [(None, cell)]
    return [(f"{picture}#{place}", text if isinstance(text, str) else None) for place, text in enumerate(texts)]


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)
