"""Gigaword headlines: a TSV of `article<TAB>title`, or the pair `train.article.txt` and `train.title.txt` line by line.

Each pair becomes a text record: the article is its source, the title its target.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

from pipelines.drafts import Draft, usable_text
from pipelines.source import Source, SourceConfig, Target
from pipelines.text_items import drafted_texts, numbered_stem, read_lines
from shards.errors import InputError
from shards.records import Text

KEY = "source.annotations"
_BESIDE = (("article", "title"), (".src", ".tgt"))  # how the published pairs of files are named
_SPLITS = ("train", "valid", "val", "dev", "test")


class Config(SourceConfig):
    """`annotations` is the TSV, or the file of articles."""

    LOCATIONS: ClassVar = ("annotations", "titles")

    titles: str | None = None
    """The file of titles; unset: the one beside the articles whose name says `title` instead of `article`, if there is one."""

    def split_name(self) -> str:
        named = next((name for name in _SPLITS if Path(self.annotations).name.startswith(name)), None)
        return named if self.split is None and named else super().split_name()


def build(config: Config, target: Target) -> Source:
    return drafted_texts(lambda: _drafts(config), config=config, target=target)


def _drafts(config: Config) -> Iterator[Draft]:
    for number, (article, title) in enumerate(_pairs(config), start=1):
        where = f"line {number}"
        draft = Draft(id=str(number), stem=numbered_stem(number))
        with draft.refusing(str(number)):
            source = usable_text(article, what="article", where=where)
            draft.annotations.append(Text(source=source, target=usable_text(title, what="title", where=where)))
        yield draft


def _pairs(config: Config) -> Iterator[tuple[str, str | None]]:
    titles = config.titles or _titles_beside(config.annotations)
    if titles is None:
        yield from _rows(config.annotations)
        return
    lines = zip_longest(read_lines(config.annotations, key=KEY), read_lines(titles, key="source.titles"))
    for article, title in lines:
        if article is None or title is None:
            longer, shorter = (titles, config.annotations) if article is None else (config.annotations, titles)
            raise InputError(
                f"source.titles: {longer} has more lines than {shorter}, so they do not belong together or one is cut; "
                "download or unpack them again"
            )
        yield article, title


def _rows(path: str) -> Iterator[tuple[str, str | None]]:
    for number, line in enumerate(read_lines(path, key=KEY)):
        cells = line.split("\t")
        if number == 0 and len(cells) != 2:
            raise InputError(
                f"{KEY}: the first line of {path} has {len(cells)} columns, not `article<TAB>title`; give such a TSV, or "
                "the file of articles with source.titles"
            )
        if line.strip():
            yield cells[0], cells[1] if len(cells) > 1 else None


def _titles_beside(articles: str) -> str | None:
    path = Path(articles)
    for theirs, wanted in _BESIDE:
        beside = path.with_name(path.name.replace(theirs, wanted))
        if theirs in path.name and beside.is_file():
            return str(beside)
    return None
