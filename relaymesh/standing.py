"""How a root stands: everything that the status console shows, of one moment. Only reads, and is not in the audit log,
which would grow with every look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relaymesh.checks import mesh_notes
from relaymesh.core.disk import short_of_disk
from relaymesh.core.stall import STALL_MS
from relaymesh.observation import alerts
from relaymesh.rule_view import PauseView
from relaymesh.status_view import StatusHealth, StatusOutcome
from relaymesh.store import standing as rows
from relaymesh.store.admin import cluster_epoch
from relaymesh.store.count_cache import kept_counts
from relaymesh.store.disk import free_disk_bytes
from relaymesh.store.node_row import live_nodes
from relaymesh.store.paused import pauses as pauses_of
from relaymesh.store.paused import stopping_nodes
from relaymesh.store.progress import stalled_ms
from relaymesh.store.recount import WAITING_MAX
from relaymesh.store.stats import ready_now
from relaymesh.store.throttle import load_rules

if TYPE_CHECKING:
    import sqlite3

    from relaymesh.settings import Settings
    from relaymesh.store.database import Database

__all__ = ["standing"]

_HOUR_MS = 3_600_000


def standing(store: Database, settings: Settings, *, now_ms: Callable[[], int]) -> StatusOutcome:
    """Return how the root stands.

    Raises:
        StoreError, RootError: the database did not answer.
    """
    firing = tuple(rule for rule in alerts(store, limit=0).rules if rule.phase != "ok")
    run = store.root / "run"
    with store.snapshot():
        conn, at_ms = store.conn, now_ms()
        rules = load_rules(conn)
        nodes = live_nodes(conn, run, now_ms=at_ms)
        seen = rows.window(conn, now_ms=at_ms)
        running_total, retrying_total, dead_total = _totals(store, at_ms)
        pauses = tuple(
            PauseView(scope=scope, name=name, since_ms=since_ms, reason=reason)
            for scope, name, since_ms, reason in conn.execute(
                "SELECT scope, name, since_ms, reason FROM queue_pauses ORDER BY scope, name"
            )
        )
        return StatusOutcome(
            namespace=store.namespace,
            root=str(store.root),
            checked_at_ms=at_ms,
            nodes_alive=len(nodes),
            cluster_epoch=cluster_epoch(conn),
            paused=any(pause.scope == "overall" for pause in pauses),
            pauses=pauses,
            members=rows.members(conn, run, rules, stopping=stopping_nodes(run, now_ms=at_ms), now_ms=at_ms),
            members_total=int(conn.execute("SELECT count(*) FROM mesh_nodes").fetchone()[0]),
            lanes=rows.lanes(ready_now(conn, store.path, at_ms), seen, rules),
            pools=rows.pools(conn, nodes),
            running=rows.running(conn, now_ms=at_ms),
            running_total=running_total,
            trouble=rows.trouble(conn, now_ms=at_ms),
            retrying_total=retrying_total,
            dead_letter_total=dead_total,
            throughput_per_s=round(seen.per_s, 2),
            alerts=firing,
            health=_health(store, conn, settings, at_ms),
        )


def _totals(store: Database, now_ms: int) -> tuple[int, int, int]:
    """Return how many steps run, retry, and are dead-lettered: very many of them as they were counted last."""
    found = rows.totals(store.conn, limit=WAITING_MAX)
    kept = kept_counts(store.path, now_ms) if max(found) >= WAITING_MAX else None
    if kept is None:
        return found
    running, retrying, dead = (
        max(count, kept.steps.get(status, 0)) if count >= WAITING_MAX else count
        for count, status in zip(found, ("RUNNING", "RETRYING", "DEAD_LETTER"), strict=True)
    )
    return running, retrying, dead


def _health(store: Database, conn: sqlite3.Connection, settings: Settings, at_ms: int) -> StatusHealth:
    stood_ms = stalled_ms(conn, store.root / "run", now_ms=at_ms)
    free_bytes = free_disk_bytes(store.root)
    pressure = short_of_disk(free_bytes, settings.min_free_disk_bytes)
    (conflicts,) = conn.execute(
        "SELECT count(*) FROM lease_conflicts WHERE occurred_at_ms>=?", (at_ms - _HOUR_MS,)
    ).fetchone()
    problems = []
    if stood_ms >= STALL_MS:
        problems.append(f"work is ready and slots are free, but nothing has moved for {stood_ms // 1000} s")
    if pressure:
        problems.append(f"{free_bytes} bytes of disk are free, and minFreeDiskBytes asks for more: make room")
    if settings.pause_worker_when_local_not_alive:
        held = pauses_of(conn, store.root / "run", now_ms=at_ms)
        problems += [f"the worker of {node_id} is paused: {why}" for node_id, why in sorted(held.items())]
    return StatusHealth(
        ok=not problems,
        stalled_ms=stood_ms,
        disk_free_bytes=free_bytes,
        disk_pressure=pressure,
        lease_conflicts_1h=int(conflicts),
        problems=tuple(problems),
        notes=mesh_notes(store.root / "run", now_ms=at_ms),
    )
