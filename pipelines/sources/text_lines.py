"""Plain text: one text per line, or documents with blank lines between them; each becomes a record without media.

source.kind=text_lines source.annotations=books.txt source.text_is=document
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pipelines.drafts import Draft, usable_text
from pipelines.source import Source, SourceConfig, Target
from pipelines.text_items import drafted_texts, numbered_stem, read_lines
from shards.records import Text

KEY = "source.annotations"


class Config(SourceConfig):
    """`annotations` is the text file; a text is named by the number of its first line, from 1."""

    text_is: Literal["line", "document"] = "line"
    """`line`: every line that is not blank; `document`: the lines up to the next blank one, with their line breaks."""


def build(config: Config, target: Target) -> Source:
    return drafted_texts(lambda: _drafts(config), config=config, target=target)


def _drafts(config: Config) -> Iterator[Draft]:
    for number, text in _lines(config.annotations) if config.text_is == "line" else _documents(config.annotations):
        draft = Draft(id=str(number), stem=numbered_stem(number))
        with draft.refusing(str(number)):
            draft.annotations.append(Text(source=usable_text(text, what="text", where=f"line {number}")))
        yield draft


def _lines(path: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_lines(path, key=KEY), start=1):
        if line.strip():
            yield number, line


def _documents(path: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, text)."""
    first, lines = 1, list[str]()
    for number, line in enumerate(read_lines(path, key=KEY), start=1):
        if line.strip():
            first = first if lines else number
            lines.append(line)
        elif lines:
            yield first, "\n".join(lines)
            lines = []
    if lines:
        yield first, "\n".join(lines)
