"""What sources of texts share: items without media, numbered as the file numbers them, and lines that may hold broken bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pipelines.drafts import Draft, DraftedSource, PlainPlace
from pipelines.packed import lines_of, open_raw
from pipelines.raw_text import check_file
from pipelines.source import SourceConfig, Target
from shards.media import MediaProblem

_NUMBER_DIGITS = 9  # of a line number in a key, so that keys sort as lines do
_BYTE_ORDER_MARK = "\ufeff"


def drafted_texts(drafts: Callable[[], Iterable[Draft]], *, config: SourceConfig, target: Target) -> DraftedSource:
    """A source whose items have no media."""
    return DraftedSource(drafts, target=target, load=_no_media, limit=config.limit)


def numbered_stem(number: int) -> str:
    """The key stem of the item that a file's own order alone names."""
    return f"{number:0{_NUMBER_DIGITS}d}"


def read_lines(path: str, *, key: str) -> Iterator[str]:
    """The lines of a text file without their ends; LF and CRLF are ends of a line, and nothing else is.

    Bytes that are no UTF-8 come as lone surrogates (`raw_text.is_broken` finds them).

    Args:
        path: the file.
        key: the config key that named it, for messages.

    Raises:
        InputError: there is no such file, it is empty, or it is UTF-16.
    """
    check_file(path, key=key)
    with open_raw(path, key=key) as file:
        for number, raw in enumerate(lines_of(file, path=path, key=key)):
            line = raw.decode("utf-8", "surrogateescape").rstrip("\n").removesuffix("\r")
            yield line if number else line.removeprefix(_BYTE_ORDER_MARK)


def _no_media(place: PlainPlace) -> bytes:
    raise MediaProblem("unsupported", f"a text has no media, and this one names {dict(place)}")
