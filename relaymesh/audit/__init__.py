"""The audit trail of one root: who did what, in a chain of hashes that shows whether somebody changed it.

record ──▶ lock ──▶ settle (what a crash left) ──▶ chain ──▶ one write ──▶ head ──▶ unlock
"""

from __future__ import annotations

from relaymesh.audit.trail import AuditTrail
from relaymesh.wire.audit import Record

__all__ = ["AuditTrail", "Record"]
