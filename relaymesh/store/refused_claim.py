"""A claim that was refused: the node that makes it is fenced, or another one was faster with the step that it saw.

A claim chooses and takes within one write transaction, so nobody can come between the two. Two things remain that
refuse one. A later generation of the node's id has been entered meanwhile (another process has taken the id over): what
the node would have taken, up to ``REFUSED_MAX`` steps, is recorded once, and it stops. And a poll looks before it
starts a node to claim with: the step that it saw may be gone by then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

from relaymesh.core.fairness import Candidate, Fairness
from relaymesh.store.claim import Claim, Claimant
from relaymesh.store.conflict import record_conflict
from relaymesh.store.schema import PLAIN_READY

__all__ = ["CLAIM_CONFLICT", "REFUSED_MAX", "SeenStep", "first_ready", "record_taken", "refuse"]

CLAIM_CONFLICT: Final = "claim_conflict"
REFUSED_MAX: Final = 16
"""Steps of one refused claim that are recorded."""

_FIRST = f"""
SELECT id, step_id, task_id, lease_epoch FROM steps INDEXED BY steps_ready
WHERE {PLAIN_READY} AND agent_id=? AND priority=? ORDER BY queued_at_ms LIMIT 1
"""


class SeenStep(NamedTuple):
    """A step that was ready when somebody looked."""

    row_id: int
    step_id: str
    task_id: str
    lease_epoch: int


def refuse(
    conn: sqlite3.Connection, picks: Iterable[Candidate], state: Fairness, claimant: Claimant, now_ms: int
) -> Claim:
    """Record what a fenced node would have taken, and return a claim that took nothing."""
    stored = [pick for pick in picks if pick.row_id >= 0]
    for pick in stored[:REFUSED_MAX]:
        _record(conn, pick.row_id, claimant.node_id, f"{claimant.token}{pick.row_id}", now_ms)
    return Claim((), state, 0, fenced=True)


def first_ready(conn: sqlite3.Connection, groups: Iterable[tuple[str, str]]) -> SeenStep | None:
    """Return a step of these ``(agent_id, priority)`` that is ready; None when all that are have a concurrency key."""
    for group in groups:
        row = conn.execute(_FIRST, group).fetchone()
        if row is not None:
            return SeenStep(*row)
    return None


def record_taken(conn: sqlite3.Connection, seen: SeenStep, *, node_id: str, now_ms: int) -> str | None:
    """Record that a step which a node went for has moved; return what it is instead, None when it is as it was.

    The caller holds the write transaction. A step whose row is gone is nothing to record either.
    """
    row = conn.execute("SELECT status, lease_epoch, lease_owner FROM steps WHERE id=?", (seen.row_id,)).fetchone()
    if row is None or (row[0] == "PENDING" and row[1] == seen.lease_epoch):
        return None
    _record(conn, seen.row_id, node_id, None, now_ms)
    return f"it is {row[0]}" + (f" at the node {row[2]}" if row[2] else "")


def _record(conn: sqlite3.Connection, row_id: int, node_id: str, token: str | None, now_ms: int) -> None:
    record_conflict(
        conn,
        CLAIM_CONFLICT,
        row_id=row_id,
        step_id=None,
        task_id=None,
        worker_id=node_id,
        token=token,
        lease_epoch=None,
        now_ms=now_ms,
        expected_status="PENDING",
    )
