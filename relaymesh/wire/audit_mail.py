"""What a node's AuditActor is told."""

from __future__ import annotations

from relaymesh.wire.codec import Message, message

__all__ = ["AuditRows", "FlushAudit", "PackAudit"]


@message("audit.rows")
class AuditRows(Message, frozen=True):
    """Write these rows. bodies: as ``relaymesh.wire.audit`` makes them. lost: rows that were given up before."""

    bodies: tuple[str, ...]
    lost: int = 0


@message("audit.flush")
class FlushAudit(Message, frozen=True):
    """Write what was collected."""


@message("audit.pack")
class PackAudit(Message, frozen=True):
    """Compress a segment, if one waits and nothing else is to do."""
