"""What became of members, as audit records: recoveries that were held back, prunes, pauses, what the dead owned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from relaymesh.wire.audit import Record

if TYPE_CHECKING:
    from relaymesh.store.member import Marked, Summary
    from relaymesh.store.recover import Reclaimed

__all__ = [
    "MemberRound",
    "held_back_record",
    "pause_record",
    "prune_record",
    "recover_records",
    "summary_details",
]


class MemberRound(NamedTuple):
    """What a round of maintenance did to members. prune_record: to be recorded, None when nothing was pruned."""

    marked: Marked
    pruned: Sequence[str] = ()
    prune_record: Record | None = None


def held_back_record(node_id: str, status: str, *, actor: str = "maintenance") -> Record:
    """Return the record of a heartbeat that would have made a member ALIVE but for its dwell time."""
    details = {"previous_status": status, "current_status": status}
    return Record("membership.recovery.suppressed", actor, f"node/{node_id}", "suppressed", details)


def pause_record(node_id: str, status: str, reason: str, total: int, *, actor: str) -> Record:
    """Return the record of a worker that takes nothing because of the standing of its own node."""
    details = {"node_id": node_id, "status": status, "total": total, "reason": reason}
    return Record("worker.pause.local_status", actor, f"node/{node_id}", "paused", details)


def prune_record(*, older_than_ms: int, cutoff_ms: int, limit: int, pruned: int, total: int, actor: str) -> Record:
    """Return the record of a prune; one that found nothing is a ``noop``."""
    details = {
        "older_than_ms": older_than_ms,
        "cutoff_ms": cutoff_ms,
        "limit": limit,
        "pruned": pruned,
        "total": total,
    }
    return Record("membership.prune", actor, "runtime/membership", "pruned" if pruned else "noop", details)


def recover_records(done: Reclaimed, *, dead_nodes: Sequence[str], limit: int, actor: str) -> list[Record]:
    """Return the records of a recovery by hand: always that it was tried, and another when it took something."""
    counts: dict[str, object] = {
        "dead_nodes": list(dead_nodes),
        "reclaimed": done.reclaimed,
        "retry_scheduled": done.retry_scheduled,
        "dead_lettered": done.dead_lettered,
    }
    result = "recovered" if done.reclaimed else "noop"
    records = [Record("ownership.recover", actor, "runtime/ownership", result, {"limit": limit, **counts})]
    if done.reclaimed:
        records.append(Record("ownership.recover.dead_node", actor, "runtime/ownership", "recovered", counts))
    return records


def summary_details(found: Summary) -> dict[str, object]:
    """Return what the audit log keeps of a summary."""
    return {
        "total_nodes": found.total,
        "alive_nodes": found.alive,
        "suspect_nodes": found.suspect,
        "dead_nodes": found.dead,
        "running_by_alive": found.running_by_alive,
        "running_by_suspect": found.running_by_suspect,
        "running_by_dead": found.running_by_dead,
        "running_by_unknown": found.running_by_unknown,
        "oldest_dead_node_age_ms": found.oldest_dead_age_ms,
    }
