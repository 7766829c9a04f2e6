"""What `verify` says of a dataset, asked while the page is written: a result of yesterday would vouch for bytes of yesterday."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.report.markup import Markup, table, tag
from jobs.report.overlays import clipped
from shards.reader import Dataset
from shards.verify import Damage, verify

MOST_DAMAGES = 40  # rows shown
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found in one dataset; `damages` is None where it was not looked at."""

    title: str
    path: str
    bytes: int  # of the shards, and of the tars of others that it was indexed from
    damages: tuple[Damage, ...] | None
    seconds: float = 0.0


def look_for_damage(dataset: Dataset, *, wanted: bool | None, most_mib: float) -> Finding:
    """Verify a dataset where that is wanted, or, if nothing is said, where it is small enough to be read in passing.

    Args:
        dataset: opened; all of its bytes are read again.
        wanted: True or False; None leaves it to the size.
        most_mib: of shards, up to which a dataset is verified where `wanted` is None.
    """
    card = dataset.card
    title = f"{card.name} · {card.split}"
    size = card.bytes + sum(entry.foreign.bytes for entry in dataset.manifest if entry.foreign is not None)
    looks = size <= most_mib * MIB if wanted is None else wanted
    started = time.monotonic()
    damages = tuple(verify(dataset.path)) if looks else None
    return Finding(title=title, path=dataset.path, bytes=size, damages=damages, seconds=time.monotonic() - started)


def soundness_section(findings: Sequence[Finding]) -> Markup:
    """One line per dataset, and a table of whatever is damaged."""
    damages = [(finding.title, damage) for finding in findings for damage in finding.damages or ()]
    lines = [
        tag(
            "li",
            tag("span", _word(finding), class_=f"verdict {_tone(finding)}"),
            " ",
            tag("b", finding.title),
            ": ",
            _said(finding),
        )
        for finding in findings
    ]
    rows = [
        (tag("code", damage.shard), title, tag("code", clipped(damage.key or "–", 120)), clipped(damage.what, 300))
        for title, damage in damages[:MOST_DAMAGES]
    ]
    rest = len(damages) - len(rows)
    return tag(
        "section",
        tag("h2", "What verify says"),
        tag(
            "p",
            "Asked while this page was written: commits, manifest, index and the checksum of every member, "
            "from the first to the last byte.",
            class_="lead",
        ),
        tag("ul", *lines, class_="verdicts"),
        table(("file", "dataset", "record", "damage"), rows, label="Damages", class_="stack") if rows else None,
        tag("p", f"… and {rest:,} more; `verify` names them all.", class_="quiet") if rest else None,
        id="verify",
    )


def _word(finding: Finding) -> str:
    return "not looked at" if finding.damages is None else "damaged" if finding.damages else "sound"


def _tone(finding: Finding) -> str:
    return "open" if finding.damages is None else "no" if finding.damages else "yes"


def _said(finding: Finding) -> str:
    if finding.damages is None:
        return (
            f"{finding.bytes / MIB:,.0f} MiB were not read for this page; `report verify=true` or `verify` reads them."
        )
    read = f"{finding.bytes / MIB:,.1f} MiB read in {max(finding.seconds, 0.01):.2g} s"
    count = len(finding.damages)
    return (
        f"{read}, nothing is damaged." if not count else f"{read}, {count:,} damaged place{'' if count == 1 else 's'}."
    )
