"""What a log line about a step carries, so that it can be found by task, step or trace (relaymesh/log.py)."""

from __future__ import annotations

from relaymesh.agents.trace import span_id_of
from relaymesh.core.ident import trace_of
from relaymesh.wire.store import LeaseRef

__all__ = ["about"]


def about(lease: LeaseRef, traceparent: str = "", code: str = "") -> dict[str, object]:
    """Return the ``extra`` of a record about one attempt. code: of its failure, "" when there is none."""
    return {
        "task_id": lease.task_id,
        "step_id": lease.step_id,
        "trace_id": trace_of(lease.task_id, traceparent),
        "span_id": span_id_of(lease.lease_token),
        "agent_id": lease.agent_id,
        "attempt": lease.attempt,
        "code": code or None,
    }
