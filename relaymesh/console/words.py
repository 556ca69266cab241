"""Numbers and ids in few characters."""

from __future__ import annotations

import re

from relaymesh.core.printable import printable

__all__ = ["age", "count", "duration", "short_step"]

# The id of a step of a workflow begins with that of its task; what is left is its name.
_STEP_OF_WORKFLOW = re.compile(r"stp_tsk_[0-9a-f-]{36}_(.+)", re.DOTALL)
_TAIL = 8


def age(ms: int) -> str:
    """Return whole seconds, minutes, hours or days: at most four characters up to 999 days."""
    seconds = ms // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size or (size == 60 and seconds >= 100):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def duration(ms: float | None) -> str:
    """Return a latency with its unit; a dash for none."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms:.0f}ms"
    return f"{ms / 1000:.1f}s" if ms < 100_000 else age(int(ms))


def count(number: int) -> str:
    """Return a count in at most five characters: 99999, 100k, 12M."""
    if number < 100_000:
        return str(number)
    return f"{number // 1000}k" if number < 10_000_000 else f"{number // 1_000_000}M"


def short_step(step_id: str, cut: str = "…") -> str:
    """Return what the workflow calls its step; of any other the end of its id, which tells it from its neighbours."""
    found = _STEP_OF_WORKFLOW.fullmatch(step_id)
    if found is not None:
        return printable(found[1])
    step_id = printable(step_id)
    return step_id if len(step_id) <= 2 * _TAIL else f"{step_id[:4]}{cut}{step_id[-_TAIL:]}"
