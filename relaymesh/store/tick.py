"""One round of maintenance by hand, for a root without a running node: what a node does by itself all the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from relaymesh.audit.member import held_back_record
from relaymesh.core import clock_guard
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.mesh.silence import Patience
from relaymesh.core.reclaim import ROWS_MAX, Cause, Reclaim, RunningRow, Scanned
from relaymesh.core.retention import KEEP
from relaymesh.core.retry import RetryPolicy
from relaymesh.node_view import MaintenanceOutcome
from relaymesh.settings import Settings
from relaymesh.store.clock import boot_id, load_clock, save_clock
from relaymesh.store.grave import prune_by, prune_is_due
from relaymesh.store.member import Marked, dead_members, reconcile, take_heartbeat, vanished_owners
from relaymesh.store.store import Store
from relaymesh.wire.store import SeenLease

if TYPE_CHECKING:
    from relaymesh.store.schedule_fire import Fired
    from relaymesh.wire.audit import Record

__all__ = ["TickNotes", "maintenance_tick"]

_KEYS_PER_TICK = 1_000


class TickNotes(NamedTuple):
    """What a round came to beside its counts. dead_nodes: whose steps were taken back. records: about members."""

    dead_nodes: tuple[str, ...]
    records: tuple[Record, ...]


def maintenance_tick(
    store: Store,
    node_id: str,
    settings: Settings,
    *,
    now_ms: int,
    policies: Mapping[str, RetryPolicy] = MappingProxyType({}),
    on_fired: Callable[[Sequence[Fired]], None] = lambda _: None,
    on_done: Callable[[TickNotes], None] = lambda _: None,
) -> MaintenanceOutcome:
    """Send a heartbeat of the node, judge silent members, take back steps of dead and silent owners, prune members,
    start what is due, expire what is late, let old keys go.

    policies: of agents that have one of their own, by agent id; the others go by the settings.
    on_fired: told after the commit what became of the ticks of schedules that were due. on_done: what the audit log is
        to be told, after the commit.
    """
    default = settings.retry_policy

    def policy_of(agent_id: str) -> RetryPolicy:
        return policies.get(agent_id, default)

    limit, rules = settings.retry_dispatch_limit, MemberRules.of(settings)
    records: list[Record] = []
    reading = clock_guard.Reading(now_ms, time.monotonic_ns(), boot_id())
    with store.write():
        verdict = clock_guard.tick(load_clock(store.conn), reading, settings.lease_timeout_ms)
        save_clock(store.conn, verdict.state, now_ms)
        _heartbeat(store, node_id, rules.patience, now_ms, records)
        # Not by a wall clock that has just jumped: everybody would look silent.
        marked = reconcile(store.conn, now_ms=now_ms, patience=rules.patience) if verdict.believed else Marked()
        dead, expired = _judge(store, settings, reading, believed=verdict.believed)
        by_death = store.reclaim(dead, cause="owner_dead", policy_of=policy_of, now_ms=now_ms)
        pruned, record = _prune(store, rules, now_ms)
        by_time = store.reclaim(expired, cause="lease_expired", policy_of=policy_of, now_ms=now_ms)
        promoted = store.promote_due(now_ms=now_ms, limit=limit)
        if verdict.jumped_by_ms < 0:
            store.restart_waits(now_ms=now_ms)
        fired = store.fire_due(now_ms=now_ms)
        store.expire_tasks(now_ms=now_ms, limit=limit)
        if settings.idempotency_key_retention_ms != KEEP:
            store.forget_keys(before_ms=now_ms - settings.idempotency_key_retention_ms, limit=_KEYS_PER_TICK)
    on_fired(fired)
    records += [record] if record is not None else []
    on_done(TickNotes(tuple(sorted({lease.owner for lease in dead})), tuple(records)))
    return MaintenanceOutcome(
        node_id=node_id,
        suspected_nodes_marked=len(marked.suspected),
        dead_nodes_marked=len(marked.dead),
        dead_nodes_pruned=len(pruned),
        dead_owner_reclaimed=by_death.reclaimed,
        dead_owner_retry_scheduled=by_death.retry_scheduled,
        dead_owner_dead_lettered=by_death.dead_lettered,
        wall_reclaimed=by_time.reclaimed,
        wall_retry_scheduled=by_time.retry_scheduled,
        wall_dead_lettered=by_time.dead_lettered,
        retry_messages_dispatched=promoted,
    )


def _heartbeat(store: Store, node_id: str, patience: Patience, now_ms: int, records: list[Record]) -> None:
    found = take_heartbeat(store.conn, node_id, heartbeat_ms=now_ms, now_ms=now_ms, patience=patience)
    if found.suppressed and found.row is not None:
        records.append(held_back_record(node_id, found.row.status))


def _prune(store: Store, rules: MemberRules, now_ms: int) -> tuple[tuple[str, ...], Record | None]:
    if not prune_is_due(store.conn, rules, now_ms=now_ms):
        return (), None
    return prune_by(store.conn, rules, now_ms=now_ms)


def _judge(
    store: Store, settings: Settings, reading: clock_guard.Reading, *, believed: bool
) -> tuple[list[SeenLease], list[SeenLease]]:
    seen = store.running_elsewhere(node_id="", limit=ROWS_MAX)
    gone = {*dead_members(store.conn), *vanished_owners(store.conn, store.root / "run")}
    rows = [RunningRow(s.row_id, s.lease_token or "", s.updated_at_ms, s.owner, s.lease_epoch) for s in seen]
    judge = Reclaim(lease_timeout_ms=settings.lease_timeout_ms, expire_max=settings.retry_dispatch_limit)
    scanned = Scanned(rows, reading.mono_ns, reading.wall_ms if believed else None, frozenset(gone))
    by_row = {lease.row_id: lease for lease in seen}
    dead: list[SeenLease] = []
    expired: list[SeenLease] = []
    for expire in judge.handle(reading.mono_ns, scanned):
        (dead if expire.cause is Cause.DEAD_OWNER else expired).append(by_row[expire.row.row_id])
    return dead, expired
