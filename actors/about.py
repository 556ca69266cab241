"""Log lines about steps, with what they can be found by: task, step and trace (relaymesh/log.py)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from relaymesh.agents.trace import span_id_of
from relaymesh.core.ident import trace_of
from relaymesh.errors import RelayMeshError
from relaymesh.store.database import Database
from relaymesh.wire.store import FinishedStep, LeaseRef

__all__ = ["LOGGED_PER_COMMIT_MAX", "about", "log_ended"]

LOGGED_PER_COMMIT_MAX: Final = 20
"""Failed attempts of one commit that are logged one by one; the rest is counted in one line."""


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


def log_ended(log: logging.Logger, store: Database, finished: Sequence[FinishedStep]) -> None:
    """Say what became of attempts, with the ids to find them by; those that succeeded only to who asked for it."""
    if not log.isEnabledFor(logging.INFO):
        return  # a failure of an agent is no fault of the node: nobody who did not ask is told
    failed = [step for step in finished if step.report.kind == "failed"]
    for step in failed[:LOGGED_PER_COMMIT_MAX]:
        status, traceparent = _row_of(store, step.lease)
        what = "a step is dead-lettered" if status == "DEAD_LETTER" else "an attempt failed"
        log.info(what, extra=about(step.lease, traceparent, step.report.code))
    if len(failed) > LOGGED_PER_COMMIT_MAX:
        log.info("%d more attempts failed", len(failed) - LOGGED_PER_COMMIT_MAX)
    if log.isEnabledFor(logging.DEBUG):
        for step in finished:
            if step.report.kind != "failed":
                log.debug("an attempt %s", step.report.kind, extra=about(step.lease, _row_of(store, step.lease)[1]))


def _row_of(store: Database, lease: LeaseRef) -> tuple[str, str]:
    """Return status and trace context of a step, empty when they cannot be read."""
    with contextlib.suppress(RelayMeshError), store.reading():
        row = store.conn.execute("SELECT status, traceparent FROM steps WHERE id=?", (lease.row_id,))
        status, traceparent = row.fetchone() or ("", "")
        return status, traceparent or ""
    return "", ""
