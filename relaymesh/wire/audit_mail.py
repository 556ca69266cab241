"""What a node's AuditActor is told."""

from __future__ import annotations

from relaymesh.wire.codec import Message, message

__all__ = ["FlushAudit", "PackAudit", "RecoverSubmits", "RowsWait"]


@message("audit.rows_wait")
class RowsWait(Message, frozen=True):
    """Rows were handed in at the desk: fetch them soon."""


@message("audit.flush")
class FlushAudit(Message, frozen=True):
    """Write what waits."""


@message("audit.pack")
class PackAudit(Message, frozen=True):
    """Compress a segment, if one waits and nothing else is to do."""


@message("audit.recover")
class RecoverSubmits(Message, frozen=True):
    """The node's former self was killed: record what it stored in this span of wall time and did not record.

    settled: rows of others that were on their way then have been written.
    """

    since_ms: int
    before_ms: int
    settled: bool = False
