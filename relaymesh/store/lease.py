"""What an owner does with a lease between claim and commit: renew it, ask whether it is still held, give it back."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from relaymesh.store.bulk import id_list, write_rows
from relaymesh.store.conflict import record_conflicts
from relaymesh.store.error import SealError
from relaymesh.store.finish import close_or
from relaymesh.store.payload import PayloadFiles
from relaymesh.wire.store import LeaseRef

__all__ = ["cancel_reasons", "lost_leases", "of_this_epoch", "release", "renew", "store_progress"]

_RENEW = """
UPDATE steps SET updated_at_ms=max(v.column5, steps.updated_at_ms+1) FROM (VALUES {rows}) v
WHERE steps.id=v.column1 AND steps.status='RUNNING' AND steps.lease_token=v.column2 AND steps.lease_epoch=v.column3
    AND steps.cluster_epoch=v.column4
"""


def renew(
    conn: sqlite3.Connection, leases: Sequence[tuple[int, str, int, int]], *, cluster_epoch: int, now_ms: int
) -> tuple[int, ...]:
    """Renew ``(row_id, token, lease_epoch, cluster_epoch)`` leases; return the rows that are no longer ours."""
    rows = [(*lease, now_ms) for lease in leases if lease[3] == cluster_epoch]
    lost = [lease[0] for lease in leases if lease[3] != cluster_epoch]
    conn.execute("SAVEPOINT renew")
    if write_rows(conn, _RENEW, rows) != len(rows):
        conn.execute("ROLLBACK TO renew")
        lost += [int(row[0]) for row in rows if not write_rows(conn, _RENEW, [row])]
    conn.execute("RELEASE renew")
    return tuple(lost)


def lost_leases(
    conn: sqlite3.Connection, leases: Sequence[tuple[int, int]], *, node_id: str
) -> tuple[tuple[int, int], ...]:
    """Return those of these ``(row_id, lease_epoch)`` leases that the node does not hold any more."""
    held = set(
        conn.execute(
            "SELECT id, lease_epoch FROM steps WHERE id IN (SELECT value FROM json_each(?)) AND status='RUNNING'"
            " AND lease_owner=?",
            (id_list(row_id for row_id, _ in leases), node_id),
        )
    )
    return tuple(lease for lease in leases if lease not in held)


def cancel_reasons(conn: sqlite3.Connection, row_ids: Iterable[int]) -> tuple[tuple[int, str], ...]:
    """Return those of these rows whose task was cancelled, with the reason."""
    return tuple(
        conn.execute(
            "SELECT s.id, coalesce(t.last_error, '') FROM steps s JOIN tasks t ON t.task_id=s.task_id"
            " WHERE s.id IN (SELECT value FROM json_each(?)) AND s.status='CANCELLED' AND t.status='CANCELLED'",
            (id_list(row_ids),),
        )
    )


def store_progress(
    conn: sqlite3.Connection,
    progress: Sequence[tuple[int, str]],
    leases: Sequence[tuple[int, str, int, int]],
    payloads: PayloadFiles,
) -> None:
    """Keep what running agents last said about themselves, of steps under these leases only."""
    held = {lease[0]: lease for lease in leases}
    kept: Iterable[tuple[int, str | bytes]] = progress
    if progress and payloads.seal.on():
        kept = _sealed_progress(conn, progress, payloads)
    conn.executemany(
        "UPDATE steps SET progress=? WHERE id=? AND status='RUNNING' AND lease_token=? AND lease_epoch=?"
        " AND cluster_epoch=?",
        [(text, *held[row_id]) for row_id, text in kept if row_id in held],
    )


def _sealed_progress(
    conn: sqlite3.Connection, progress: Sequence[tuple[int, str]], payloads: PayloadFiles
) -> Iterator[tuple[int, bytes]]:
    for row_id, text in progress:
        row = conn.execute("SELECT step_id FROM steps WHERE id=?", (row_id,)).fetchone()
        if row is not None:
            # A renewal must not wait for what is said beside it.
            with contextlib.suppress(SealError):
                yield row_id, payloads.seal.seal_result("progress", row[0], text)


def of_this_epoch(
    conn: sqlite3.Connection, leases: Sequence[LeaseRef], cluster_epoch: int, worker_id: str, now_ms: int
) -> list[LeaseRef]:
    """Return the leases that a bump of the cluster epoch has not fenced; the others are refused and recorded."""
    overtaken = [lease for lease in leases if lease.cluster_epoch != cluster_epoch]
    record_conflicts(conn, "failure_commit_conflict", overtaken, worker_id=worker_id, now_ms=now_ms)
    return [lease for lease in leases if lease.cluster_epoch == cluster_epoch]


def release(
    conn: sqlite3.Connection, leases: Sequence[LeaseRef], *, cluster_epoch: int, worker_id: str, now_ms: int
) -> int:
    """Give steps back to the queue without counting the attempt; return how many were still ours."""
    released = 0
    for lease in of_this_epoch(conn, leases, cluster_epoch, worker_id, now_ms):
        taken = close_or(conn, lease, now_ms)
        if taken is None:
            taken = (
                conn.execute(
                    "UPDATE steps SET status='PENDING', lease_owner=NULL, lease_token=NULL, attempt=max(0, attempt-1),"
                    " updated_at_ms=max(?, updated_at_ms+1)"
                    " WHERE id=? AND status='RUNNING' AND lease_token=? AND lease_epoch=? AND cluster_epoch=?",
                    (now_ms, lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch),
                ).rowcount
                == 1
            )
        released += taken
        if not taken:
            record_conflicts(conn, "failure_commit_conflict", [lease], worker_id=worker_id, now_ms=now_ms)
    return released
