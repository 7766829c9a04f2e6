"""What `shards … --dry-run` prints: the first records as they would be stored, then the plan with a guess at bytes and time."""

from __future__ import annotations

import json
from collections.abc import Iterator

from jobs.quantities import count_text, duration_text, size_text
from pipelines.append import Plan
from pipelines.convert import ConvertConfig, committed, item_count
from pipelines.preview import Preview, StoredRecord, preview, top_rejects
from shards.codec import HEADER_MEMBER

_RECORDS = 2
_LONGEST_HEADER = 60  # lines; a picture may have hundreds of annotations


def plan_text(conversion: ConvertConfig, plan: Plan, *, workers: int = 1) -> str:
    """The text of a dry run; its last line is the plan. Reads a few media files, writes nothing.

    Args:
        conversion: what would be converted.
        plan: the units of this run.
        workers: how many would work at a time.
    """
    seen = preview(conversion, plan.units, records=_RECORDS)
    return "\n".join([*_records(seen), *_rejects(seen), _plan_line(conversion, plan, seen, workers=workers)])


def _records(seen: Preview) -> Iterator[str]:
    for number, stored in enumerate(seen.records, start=1):
        yield f"record {number} of the first, as it would be stored:"
        yield from (f"  {line}" for line in _header_lines(stored))
        yield from (f"  {line}" for line in _member_lines(stored))
        yield ""


def _header_lines(stored: StoredRecord) -> list[str]:
    header = json.loads(dict(stored.members)[HEADER_MEMBER])
    lines = json.dumps(header, indent=2, ensure_ascii=False).splitlines()
    left_out = len(lines) - _LONGEST_HEADER
    return lines if left_out <= 0 else [*lines[:_LONGEST_HEADER], f"… {count_text(left_out, 'more line')}"]


def _member_lines(stored: StoredRecord) -> Iterator[str]:
    """One line for each file beside the header: `jpg 640x480, 81.0 KiB`."""
    media = {one.member: one for one in stored.record.media}
    for member, data in stored.members:
        if member == HEADER_MEMBER:
            continue
        facts = [member]
        if (found := media.get(member)) is not None:
            if found.width is not None and found.height is not None:
                facts.append(f"{found.width}x{found.height}")
            if found.duration_s is not None:
                facts.append(f"{found.duration_s:.1f} s")
            if found.sample_rate is not None:
                facts.append(f"{found.sample_rate} Hz")
        yield f"{' '.join(facts)}, {size_text(len(data))}"


def _rejects(seen: Preview) -> Iterator[str]:
    for reason, count, example in top_rejects(seen.rejects):
        yield f"of {seen.probed} items looked at, {count} would be rejected as {reason} (e.g. {example.id}: {example.detail})"


def _plan_line(conversion: ConvertConfig, plan: Plan, seen: Preview, *, workers: int) -> str:
    target = conversion.target()
    units = plan.units
    left = len(units) - (len(committed(conversion, units, earlier=plan.earlier)) - len(plan.earlier))
    size = "size unknown" if seen.bytes is None else f"about {size_text(seen.bytes)}"
    if seen.seconds is None:
        guess = size
    else:
        seconds = seen.seconds * left / max(1, len(units)) / workers
        guess = f"{size} and {duration_text(seconds)} on {count_text(workers, 'worker')}, estimated from {seen.probed} items"
    return (
        f"{target.dataset}-{target.split}: {count_text(item_count(units), 'raw item')} in {count_text(len(units), 'unit')} "
        f"({left} left), {guess} -> {conversion.output}"
    )
