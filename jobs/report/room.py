"""How much of a page is left."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.report.markup import Markup


@dataclass(slots=True)
class Room:
    """How many characters a page still has; media make nearly all of them."""

    left: int

    def share(self, parts: int) -> int:
        """What one of so many parts that are still to come may take."""
        return max(0, self.left) // max(1, parts)

    def spend(self, markup: Markup) -> None:
        """Take what a part of the page takes."""
        self.left -= len(markup.encode())
