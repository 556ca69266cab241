"""What can be asked of a root's audit log: its end, rows that match, whether it was changed, an export.

``relaymesh.client`` says what each promises. Each is recorded itself, after it has read: it does not find its own row.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from relaymesh.audit.key import AuditKeyError
from relaymesh.audit.place import Place
from relaymesh.audit.read import Filter, newest, tail
from relaymesh.audit.trail import AuditTrail
from relaymesh.errors import InputError, RelayMeshError, RootError
from relaymesh.outcome import AuditIntegrityOutcome, SiemExportOutcome
from relaymesh.store.error import RootMissingError
from relaymesh.store.export import file_at, write_whole
from relaymesh.store.root import DATABASE
from relaymesh.wire.audit import instant

__all__ = [
    "AuditUnreadableError",
    "SpanOfTimeError",
    "export_siem",
    "last_rows",
    "query",
    "read_rows",
    "rows_of_action",
    "rows_of_task",
    "verify",
]

TASK_ROWS_MAX = 100_000
"""Audit rows that one task export holds, the newest."""

T = TypeVar("T")

_RESOURCE = "runtime/audit"
# Member of an exported line, and the member of a row that it is; a missing text is empty.
_SIEM = {
    "@timestamp": "timestamp",
    "event.action": "action",
    "event.outcome": "result",
    "event.actor": "actor",
    "trace.id": "trace_id",
    "span.id": "span_id",
    "task.id": "task_id",
    "step.id": "step_id",
    "relaymesh.namespace": "namespace",
    "relaymesh.principal_id": "principal_id",
    "relaymesh.hash": "hash",
    "relaymesh.signature": "signature",
}


class SpanOfTimeError(InputError):
    """A span of time that ends before it begins."""

    code = "bad_span"

    def __init__(self, since: str, until: str) -> None:
        super().__init__(since, until)
        self.since, self.until = since, until

    def __str__(self) -> str:
        return f"the span from {self.since} to {self.until} ends before it begins: exchange --from and --to"


class AuditUnreadableError(RootError):
    """The audit log is there and cannot be read."""

    code = "audit_unreadable"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the audit log at {self.path} cannot be read ({self.cause}): check the permissions, and the disk"


def last_rows(trail: AuditTrail, lines: int, *, actor: str) -> list[str]:
    """Return the last rows as they stand, oldest first."""
    rows = _reading(trail, lambda place: tail(place, lines))
    _record(trail, "audit.tail", actor, details={"lines": lines, "returned": len(rows)})
    return rows


def query(trail: AuditTrail, wanted: Filter, limit: int, *, actor: str) -> list[str]:
    """Return rows that match, newest first."""
    if wanted.from_ms is not None and wanted.to_ms is not None and wanted.from_ms > wanted.to_ms:
        raise SpanOfTimeError(instant(wanted.from_ms), instant(wanted.to_ms))
    rows = _reading(trail, lambda place: newest(place, wanted, limit))
    details = {
        "action": wanted.action,
        "from": None if wanted.from_ms is None else instant(wanted.from_ms),
        "to": None if wanted.to_ms is None else instant(wanted.to_ms),
        "limit": limit,
        "returned": len(rows),
    }
    _record(trail, "audit.query", actor, details=details)
    return rows


def rows_of_task(trail: AuditTrail, task_id: str) -> list[str]:
    """Return the rows of a task, oldest first; the newest ``TASK_ROWS_MAX`` of them."""
    return _reading(trail, lambda place: newest(place, Filter(task_id=task_id), TASK_ROWS_MAX))[::-1]


def read_rows(trail: AuditTrail, wanted: Filter, limit: int) -> list[str]:
    """Return the rows that match, newest first; says nothing to the log.

    Raises:
        RootMissingError, AuditUnreadableError
    """
    return _reading(trail, lambda place: newest(place, wanted, limit))


def rows_of_action(trail: AuditTrail, action: str, limit: int) -> list[str]:
    """Return the rows of an action, newest first."""
    return _reading(trail, lambda place: newest(place, Filter(action=action), limit))


def verify(
    trail: AuditTrail,
    limit: int,
    *,
    actor: str,
    now_ms: int,
    accept_key: bool = False,
    on_fault: Callable[[str], None] = lambda _: None,
) -> AuditIntegrityOutcome:
    """Check the chain and the identity of the key; ``on_fault`` is told what is wrong, in words.

    accept_key: take the key that is there for the right one first, and record that.
    """
    from relaymesh.audit.verify import verify as check

    if accept_key:
        _accept_key(trail, actor, now_ms)
    found = _reading(trail, lambda place: check(place, limit))
    key_problem = _reading(trail, lambda place: _key_problem(place, trail.namespace, now_ms))
    if found.reason:
        on_fault(f"record {found.broken_line} is the first that is broken ({found.reason}): {found.where}")
    if key_problem:
        on_fault(key_problem)
    reason = found.reason or ("key_changed" if key_problem else "")
    details = {
        "checked_rows": found.checked,
        "legacy_rows": found.legacy,
        "broken_line": found.broken_line,
        "reason": reason,
    }
    _record(trail, "audit.verify", actor, result="failed" if reason else "ok", details=details)
    return AuditIntegrityOutcome(
        ok=not reason,
        total_rows=found.total,
        checked_rows=found.checked,
        legacy_rows=found.legacy,
        broken_line=found.broken_line,
        reason=reason,
        tail_hash=found.tail_hash,
    )


def _key_problem(place: Place, namespace: str, now_ms: int) -> str:
    from relaymesh.store.audit_key import audit_key_problem
    from relaymesh.store.database import Database

    try:
        database = Database.open(place.root, namespace=namespace, now_ms=now_ms, create=False)
    except RelayMeshError:  # the log can be checked all the same
        return audit_key_problem(place, None)
    try:
        return audit_key_problem(place, database)
    finally:
        database.close()


def _accept_key(trail: AuditTrail, actor: str, now_ms: int) -> None:
    """Record first, so that there is a key: what is gone is made with it."""
    from relaymesh.store.audit_key import KEY_ACTION, accept_audit_key
    from relaymesh.store.store import Store

    _record(trail, KEY_ACTION, actor, result="accepted", details={"cause": "audit-verify --accept-key"})
    store = Store.open(trail.place.root, namespace=trail.namespace, now_ms=now_ms, create=False)
    try:
        former, found = accept_audit_key(store, now_ms=now_ms)
    finally:
        store.close()
    _record(trail, KEY_ACTION, actor, result="accepted", details={"former_hash": former, "sealing_hash": found})


def export_siem(trail: AuditTrail, out: Path, wanted: Filter, limit: int, *, actor: str) -> SiemExportOutcome:
    """Write rows that match, newest first, one JSON object per line."""
    out = file_at(out)
    rows = _reading(trail, lambda place: newest(place, wanted, limit))
    lines = [line for row in rows if (line := _siem_line(row))]
    write_whole(out, lines)
    _record(trail, "audit.siem.export", actor, details={"output": str(out), "exported": len(lines)})
    return SiemExportOutcome(namespace=trail.namespace, output_path=str(out), exported=len(lines))


def _siem_line(row: str) -> str:
    try:
        members = json.loads(row)
    except ValueError:
        return ""  # no row of ours; ``audit-verify`` names it
    line: dict[str, object] = {name: members.get(member) or "" for name, member in _SIEM.items()}
    line["relaymesh.details"] = members.get("details") or {}
    return json.dumps(line, separators=(",", ":")) + "\n"


def _reading(trail: AuditTrail, read: Callable[[Place], T]) -> T:
    """Read the log of a root that must be there."""
    place = trail.place
    if not place.log.parent.is_dir():
        if (place.root / DATABASE).exists():
            raise AuditUnreadableError(str(place.log), "its folder is gone")
        raise RootMissingError(str(place.root))
    try:
        return read(place)
    except AuditKeyError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        path = getattr(error, "filename", None) or place.log
        raise AuditUnreadableError(str(path), getattr(error, "strerror", None) or str(error)) from error


def _record(trail: AuditTrail, action: str, actor: str, *, result: str = "ok", details: Mapping[str, object]) -> None:
    trail.record(action, actor=actor, resource=_RESOURCE, result=result, details=details)
