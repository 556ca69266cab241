"""Who owned what, and who was refused: the events of the conflict table and the audit log, and the report of conflicts.

Both read what is kept for other reasons, so they cost the queue nothing. ``relaymesh.client`` opens the root before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from relaymesh.argument import check_whole_number
from relaymesh.audit import AuditTrail
from relaymesh.audit.read import Filter
from relaymesh.errors import InputError, RelayMeshError
from relaymesh.evidence import read_rows
from relaymesh.node_view import LeaseReportOutcome, MaintenanceOutcome, OwnershipEvent
from relaymesh.store.database import Database
from relaymesh.store.export import file_at
from relaymesh.store.lease_report import HOUR_MS, conflicts_since, write_hourly_report, write_report
from relaymesh.view import LeaseConflict

__all__ = ["ACTIONS", "ROWS_MAX", "events", "hourly_report", "report", "with_hourly_report"]

ACTIONS: Final = ("ownership.recover", "ownership.recover.dead_node", "ownership.conflict.decision")
"""Audit actions that are about who owns a step."""
ROWS_MAX: Final = 100_000
"""Rows that one answer or report holds; more are refused."""
MANUAL_FILE: Final = "lease-conflicts-manual.json"
_DETAILS = (
    "event_type",
    "expected_status",
    "expected_lease_token",
    "expected_lease_epoch",
    "actual_status",
    "actual_lease_owner",
    "actual_lease_token",
    "actual_lease_epoch",
)


def events(
    database: Database, trail: AuditTrail, *, limit: int, since_hours: int, now_ms: Callable[[], int]
) -> list[OwnershipEvent]:
    """Return what became of the ownership of steps, newest first.

    Raises:
        InputError, AuditUnreadableError, StoreError
    """
    _check(limit, "since_hours", since_hours)
    since_ms = max(0, now_ms() - since_hours * HOUR_MS)
    found = [_of_conflict(conflict) for conflict in conflicts_since(database, since_ms, limit)]
    for action in ACTIONS:
        rows = read_rows(trail, Filter(action=action, from_ms=since_ms), limit)
        found += [event for row in rows if (event := _of_row(row)) is not None]
    found.sort(key=lambda event: event.occurred_at_ms, reverse=True)
    return found[:limit]


def conflicts(database: Database, *, limit: int, since_hours: int, now_ms: Callable[[], int]) -> list[LeaseConflict]:
    """Return refused writes of fenced owners, newest first.

    Raises:
        InputError, StoreError
    """
    _check(limit, "since_hours", since_hours)
    return conflicts_since(database, max(0, now_ms() - since_hours * HOUR_MS), limit)


def report(
    database: Database,
    trail: AuditTrail,
    *,
    hours: int,
    limit: int,
    out: Path | None,
    actor: str,
    now_ms: Callable[[], int],
) -> LeaseReportOutcome:
    """Write the conflicts of the last hours to a file.

    Raises:
        InputError, OutputFileError, StoreError: what was there is left as it was.
    """
    _check(limit, "hours", hours)
    path = file_at(database.root / "reports" / MANUAL_FILE if out is None else out)
    rows = write_report(database, path, hours=hours, limit=limit, now_ms=now_ms())
    _record(trail, actor, path, rows)
    return LeaseReportOutcome(generated=True, path=str(path), rows=rows)


def hourly_report(database: Database, trail: AuditTrail, *, actor: str, now_ms: int) -> bool:
    """Write the report of this UTC hour unless it is there; return whether it was written.

    Raises:
        OutputFileError, OSError, StoreError: there is none; the next call tries again.
    """
    written = write_hourly_report(database, now_ms=now_ms)
    if written is not None:
        _record(trail, actor, *written)
    return written is not None


def with_hourly_report(
    outcome: MaintenanceOutcome, database: Database, trail: AuditTrail, *, actor: str, now_ms: int
) -> MaintenanceOutcome:
    """Add to what a round of maintenance did that it wrote the report of this hour; a full disk only means that not."""
    try:
        generated = hourly_report(database, trail, actor=actor, now_ms=now_ms)
    except (RelayMeshError, OSError) as error:
        logging.getLogger("relaymesh.ownership").warning("no hourly report of lease conflicts: %s", error)
        generated = False
    return structs.replace(outcome, lease_report_generated=generated)


def _record(trail: AuditTrail, actor: str, path: Path, rows: int) -> None:
    trail.record(
        "lease.report.generate",
        actor=actor,
        resource="runtime/lease-report",
        result="ok",
        details={"output": str(path), "rows": rows},
    )


def _check(limit: int, name: str, hours: int) -> None:
    check_whole_number("limit", limit)
    check_whole_number(name, hours)
    if limit > ROWS_MAX:
        raise InputError(f"the limit is at most {ROWS_MAX:,} rows: narrow the hours")
    if hours < 1:
        raise InputError(f"{name} is at least 1")


def _of_conflict(found: LeaseConflict) -> OwnershipEvent:
    details: dict[str, object] = {name: getattr(found, name) for name in _DETAILS}
    for name, value in details.items():
        if value is None:
            details[name] = -1 if name.endswith("epoch") else ""
    return OwnershipEvent(
        source="lease_conflicts",
        action=found.event_type,
        node_id=found.worker_id or "",
        task_id=found.task_id,
        step_id=found.step_id,
        result="conflict",
        occurred_at_ms=found.occurred_at_ms,
        details=details,
    )


def _of_row(row: str) -> OwnershipEvent | None:
    """None for a row that is not of our form; ``audit-verify`` names it."""
    try:
        members: Mapping[str, Any] = json.loads(row)
        details = members["details"]
        nodes = details.get("dead_nodes")
        return OwnershipEvent(
            source="audit",
            action=members["action"],
            node_id=",".join(map(str, nodes)) if nodes is not None else str(details.get("winner_owner") or ""),
            task_id=members["task_id"],
            step_id=members["step_id"],
            result=members["result"],
            occurred_at_ms=round(datetime.fromisoformat(members["timestamp"]).timestamp() * 1000),
            details=details,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
