"""The audit log: tail, query, check, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from relaymesh.argument import check_task_id, check_text_or_none, check_time, check_whole_number
from relaymesh.door.base import Door

if TYPE_CHECKING:
    from collections.abc import Callable

    from relaymesh.outcome import AuditIntegrityOutcome, SiemExportOutcome


__all__ = ["Audits"]


class Audits(Door):
    """What was recorded."""

    def audit_tail(self, lines: int = 50) -> list[str]:
        """Return the last records of the audit log as they stand, oldest first.

        Raises:
            RootMissingError, AuditUnreadableError
        """
        from relaymesh.evidence import last_rows

        check_whole_number("lines", lines)
        return last_rows(self.audit, lines, actor=self._actor)

    def audit_query(
        self,
        *,
        task: str | None = None,
        action: str | None = None,
        from_ms: int | None = None,
        to_ms: int | None = None,
        limit: int = 100,
    ) -> list[str]:
        """Return records that match everything given, newest first. task: its id. from_ms, to_ms: wall time, inclusive.

        Raises:
            SpanOfTimeError: it ends before it begins.
            RootMissingError, AuditUnreadableError
        """
        from relaymesh.audit.read import Filter
        from relaymesh.evidence import query

        if task is not None:
            check_task_id(task)
        check_text_or_none("action", action)
        check_time("from_ms", from_ms)
        check_time("to_ms", to_ms)
        check_whole_number("limit", limit)
        return query(self.audit, Filter(task, action, from_ms, to_ms), limit, actor=self._actor)

    def audit_verify(
        self, limit: int = 0, *, accept_key: bool = False, on_fault: Callable[[str], None] = lambda _: None
    ) -> AuditIntegrityOutcome:
        """Check the chain of the audit log, or its last ``limit`` records; ``on_fault`` is told in words.

        accept_key: take the sealing key that is there for the right one, and record that.

        Raises:
            RootMissingError, AuditUnreadableError, AuditBusyError, AuditKeyError: it could not be checked.
        """
        from relaymesh.evidence import verify

        check_whole_number("limit", limit)
        now_ms, actor = self._now_ms(), self._actor
        return verify(self.audit, limit, actor=actor, now_ms=now_ms, accept_key=accept_key, on_fault=on_fault)

    def audit_siem_export(
        self, out: str | Path, limit: int = 200, *, action: str | None = None, task: str | None = None
    ) -> SiemExportOutcome:
        """Write records to a file, newest first, one JSON object with field names of a SIEM per line.

        Raises:
            OutputFileError, RootMissingError, AuditUnreadableError
        """
        from relaymesh.audit.read import Filter
        from relaymesh.evidence import export_siem

        check_text_or_none("action", action)
        if task is not None:
            check_task_id(task)
        check_whole_number("limit", limit)
        return export_siem(self.audit, Path(out), Filter(task, action), limit, actor=self._actor)
