"""The report of lease conflicts: a file that says how often former owners were refused, and where.

    reports/lease-conflicts-<YYYYMMDDHH>.json    one per UTC hour, by maintenance: the 24 hours before it was written
    reports/lease-conflicts-manual.json          by ``lease-report``

The table is read in pages by its index on the time, so that no read lasts long however many rows there are. Reports are
bounded in number: those whose conflicts retention has removed go with them, and never more than ``REPORTS_MAX`` stay.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from relaymesh.store.database import Database
from relaymesh.store.export import write_whole
from relaymesh.view import LeaseConflict

__all__ = [
    "HOURLY_ROWS_MAX",
    "REPORTS_MAX",
    "conflicts_since",
    "drop_reports",
    "hourly_path",
    "write_hourly_report",
    "write_report",
]

HOUR_MS: Final = 3_600_000
HOURLY_WINDOW_HOURS: Final = 24
HOURLY_ROWS_MAX: Final = 5_000
REPORTS_MAX: Final = 1_000
"""Hourly reports that stay, whatever retention says: some six weeks of them."""
_PAGE_ROWS: Final = 500
_TOP: Final = 10
_UNKNOWN: Final = "_unknown"
_HOURLY = re.compile(r"lease-conflicts-(\d{10})\.json")
_COLUMNS = ", ".join(LeaseConflict.__struct_fields__)


def conflicts_since(database: Database, since_ms: int, limit: int) -> list[LeaseConflict]:
    """Return the newest conflicts that are not older, at most ``limit``; a few hundred rows a read."""
    found: list[LeaseConflict] = []
    at: tuple[int, int] = (1 << 62, 1 << 62)
    while len(found) < limit:
        with database.reading():
            rows = _page(database.conn, since_ms, at, min(_PAGE_ROWS, limit - len(found)))
        if not rows:
            break
        found += rows
        at = (rows[-1].occurred_at_ms, rows[-1].id)
    return found


def _page(conn: sqlite3.Connection, since_ms: int, at: tuple[int, int], limit: int) -> list[LeaseConflict]:
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM lease_conflicts INDEXED BY lease_conflicts_time"
        " WHERE occurred_at_ms>=? AND (occurred_at_ms, id)<(?,?) ORDER BY occurred_at_ms DESC, id DESC LIMIT ?",
        (since_ms, *at, limit),
    )
    names = LeaseConflict.__struct_fields__
    return [LeaseConflict(**dict(zip(names, row, strict=True))) for row in rows]


def write_report(database: Database, out: Path, *, hours: int, limit: int, now_ms: int) -> int:
    """Write the conflicts of the last hours and what they come to; return how many it holds.

    Raises:
        OutputFileError: it cannot be written; what was there is left as it was.
        StoreError
    """
    rows = conflicts_since(database, max(0, now_ms - hours * HOUR_MS), limit)
    at = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    report = {
        "generated_at": at,
        "window_hours": hours,
        "rows": len(rows),
        "by_event_type": dict(sorted(Counter(row.event_type for row in rows).items())),
        "top_steps": _top(row.step_id for row in rows),
        "top_workers": _top(row.worker_id for row in rows),
        "sample": rows,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, [msgspec.json.format(msgspec.json.encode(report), indent=2).decode(), "\n"])
    return len(rows)


def write_hourly_report(database: Database, *, now_ms: int) -> tuple[Path, int] | None:
    """Write the report of this hour unless it is there; return where, and its rows.

    Two nodes that do so at once write the same twice. Older reports beyond ``REPORTS_MAX`` go.

    Raises:
        OutputFileError, OSError: there is none; the next call tries again.
        StoreError
    """
    out = hourly_path(database.root, now_ms)
    if os.path.exists(out):
        return None
    rows = write_report(database, out, hours=HOURLY_WINDOW_HOURS, limit=HOURLY_ROWS_MAX, now_ms=now_ms)
    drop_reports(database.root)
    return out, rows


def hourly_path(root: Path, now_ms: int) -> Path:
    """Return the report of the UTC hour of an instant."""
    return root / "reports" / f"lease-conflicts-{_hour(now_ms)}.json"


def drop_reports(root: Path, before_ms: int | None = None) -> int:
    """Remove hourly reports of hours before an instant, and those beyond the newest ``REPORTS_MAX``; return how many.

    Files with other names, such as the report by hand, are not touched.
    """
    try:
        hours = sorted(match[1] for name in os.listdir(root / "reports") if (match := _HOURLY.fullmatch(name)))
    except (FileNotFoundError, NotADirectoryError):
        return 0
    first = _hour(before_ms) if before_ms is not None else ""
    old = [hour for number, hour in enumerate(hours) if hour < first or number < len(hours) - REPORTS_MAX]
    for hour in old:
        with contextlib.suppress(OSError):  # somebody reads it on Windows: next time
            os.unlink(root / "reports" / f"lease-conflicts-{hour}.json")
    return len(old)


def _hour(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%d%H")


def _top(keys: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(key or _UNKNOWN for key in keys).most_common(_TOP))
