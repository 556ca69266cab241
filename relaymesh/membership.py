"""What an operator asks about the members of a root: who there is, what the dead own, and to remove who is long gone.

Each function is one transaction, the answer made of it, and its audit records. ``relaymesh.client`` opens the root
before, and wakes the nodes after a change. now_ms: the clock; it is read inside the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from relaymesh.audit.member import prune_record, recover_records, summary_details
from relaymesh.errors import InputError
from relaymesh.node_view import DeadOwnerRecoveryOutcome, MeshNode, MeshPruneOutcome, MeshSummaryOutcome
from relaymesh.store.grave import prune
from relaymesh.store.member import dead_members, leases_of, summary, vanished_owners
from relaymesh.store.node_report import read_reports
from relaymesh.store.throttle import load_rules

if TYPE_CHECKING:
    from relaymesh.audit import AuditTrail
    from relaymesh.core.retry import RetryPolicy
    from relaymesh.store.database import Database
    from relaymesh.store.store import Store

__all__ = ["ROWS_MAX", "members", "mesh_prune", "mesh_recover", "mesh_summary"]

ROWS_MAX: Final = 10_000
"""Steps that one recovery takes, and members that one prune removes; more are refused."""
_MEMBERS_MAX: Final = 10_000

Clock = Callable[[], int]


def members(database: Database, *, now_ms: Clock) -> list[MeshNode]:
    """Return the members by id; of more than 10,000 the first."""
    with database.reading():
        rows = database.conn.execute(
            "SELECT n.node_id, n.status, n.last_heartbeat_ms, n.updated_at_ms, coalesce(nullif(n.generation, 0),"
            " m.generation, 0), m.address, CASE WHEN n.status IN ('ALIVE','SUSPECT') THEN m.rtt_us END"
            " FROM mesh_nodes n LEFT JOIN mesh_members m ON m.node_id=n.node_id ORDER BY n.node_id LIMIT ?",
            (_MEMBERS_MAX,),
        ).fetchall()
        rules = load_rules(database.conn)
    at_ms = now_ms()
    notes = {
        report.node_id: "stopping" if report.stopping else "paused"
        for report in read_reports(database.root / "run", now_ms=at_ms)
        if report.stopping or report.paused
    }
    return [
        MeshNode(
            node_id=node_id,
            status=status,
            last_heartbeat_ms=heartbeat_ms,
            updated_at_ms=updated_ms,
            generation=generation,
            address=address,
            rtt_ms=rtt_us / 1000 if rtt_us is not None else None,
            age_ms=max(0, at_ms - heartbeat_ms),
            note=notes.get(node_id, "drained" if status == "ALIVE" and rules.drains(node_id) else ""),
        )
        for node_id, status, heartbeat_ms, updated_ms, generation, address, rtt_us in rows
    ]


def mesh_summary(database: Database, trail: AuditTrail, *, actor: str, now_ms: Clock) -> MeshSummaryOutcome:
    """Count members by status, and running steps by the status of their owner, all of one moment."""
    with database.snapshot():
        at_ms = now_ms()
        found = summary(database.conn, now_ms=at_ms)
    trail.record(
        "membership.summary", actor=actor, resource="runtime/membership", result="ok", details=summary_details(found)
    )
    return MeshSummaryOutcome(
        total_nodes=found.total,
        alive_nodes=found.alive,
        suspect_nodes=found.suspect,
        dead_nodes=found.dead,
        running_by_alive_owners=found.running_by_alive,
        running_by_suspect_owners=found.running_by_suspect,
        running_by_dead_owners=found.running_by_dead,
        running_by_unknown_owners=found.running_by_unknown,
        oldest_dead_node_age_ms=found.oldest_dead_age_ms,
        generated_at_ms=at_ms,
    )


def mesh_recover(
    store: Store,
    trail: AuditTrail,
    *,
    limit: int,
    policies: Mapping[str, RetryPolicy],
    default: RetryPolicy,
    actor: str,
    now_ms: Clock,
) -> DeadOwnerRecoveryOutcome:
    """Take back what dead owners run, at most ``limit`` steps, least recently renewed first; always recorded.

    policies: of agents that have one of their own; default: of the others.

    Raises:
        InputError: the limit is out of its range; nothing was changed.
    """
    _check(limit)
    with store.write():
        # After the wait for the lock: a node may have come back meanwhile.
        dead = sorted({*dead_members(store.conn), *vanished_owners(store.conn, store.root / "run")})
        leases = leases_of(store.conn, dead, limit=limit)
        done = store.reclaim(
            leases,
            cause="owner_dead",
            policy_of=lambda agent_id: policies.get(agent_id, default),
            now_ms=now_ms(),
        )
    trail.record_many(recover_records(done, dead_nodes=dead, limit=limit, actor=actor))
    return DeadOwnerRecoveryOutcome(
        dead_node_count=len(dead),
        dead_nodes=tuple(dead),
        reclaimed=done.reclaimed,
        retry_scheduled=done.retry_scheduled,
        dead_lettered=done.dead_lettered,
    )


def mesh_prune(
    store: Store, trail: AuditTrail, *, older_than_ms: int, limit: int, actor: str, now_ms: Clock
) -> MeshPruneOutcome:
    """Remove members that have been DEAD, or have left, for longer, oldest first; always recorded.

    Raises:
        InputError: the limit is out of its range; nothing was changed.
    """
    _check(limit)
    with store.write():
        at_ms = now_ms()
        pruned, total = prune(store.conn, older_than_ms=older_than_ms, limit=limit, now_ms=at_ms)
    cutoff_ms = at_ms - older_than_ms
    trail.record_many(
        [
            prune_record(
                older_than_ms=older_than_ms,
                cutoff_ms=cutoff_ms,
                limit=limit,
                pruned=len(pruned),
                total=total,
                actor=actor,
            )
        ]
    )
    return MeshPruneOutcome(
        older_than_ms=older_than_ms, cutoff_ms=cutoff_ms, limit=limit, pruned=len(pruned), total=total
    )


def _check(limit: int) -> None:
    if not 1 <= limit <= ROWS_MAX:
        raise InputError(f"a limit of {limit:,}: give 1 to {ROWS_MAX:,}, and call again for more; nothing was changed")
