"""HTML as nested calls: whatever is not markup already is escaped, so no caption or path can break the page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"img", "input", "link", "meta"})


class Markup(str):
    """Text that is HTML already; only the functions of this file make it."""

    __slots__ = ()


Child = str | int | None


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """Write one element.

    Args:
        name: of the element.
        children: markup as it is, anything else escaped, None left out.
        attributes: `class_` and `aria_label` lose and change their underscores; None and False are left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        spelt = key.rstrip("_").replace("_", "-")
        words.append(spelt if value is True else f'{spelt}="{escape(str(value))}"')
    if name in VOID:
        return Markup(f"<{' '.join(words)}>")
    return Markup(f"<{' '.join(words)}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Put pieces one after another."""
    return Markup(
        "".join(child if isinstance(child, Markup) else escape(str(child)) for child in children if child is not None)
    )


def trusted(html: str) -> Markup:
    """Take text as markup: for files of this package only (the style sheet), never for data."""
    return Markup(html)


def table(head: Iterable[Child], rows: Iterable[Iterable[Child]], *, label: str, class_: str | None = None) -> Markup:
    """Write a table; the first cell of a row heads it, and every other cell knows its column's name for narrow screens."""
    names = list(head)
    body = []
    for row in rows:
        first, *rest = row
        cells = [
            cell if isinstance(cell, Markup) and cell.startswith("<td") else tag("td", cell, data_label=name)
            for cell, name in zip(rest, names[1:], strict=True)
        ]
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    return tag(
        "table",
        tag("caption", label, class_="quiet"),
        tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names))),
        tag("tbody", *body),
        class_=class_,
    )
