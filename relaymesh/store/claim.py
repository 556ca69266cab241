"""Take leases of ready steps for free slots, in the order that the dispatch rules give.

    which (agent, lane) pairs have something ready?   loose scan of steps_ready: one seek a pair, however long the queue
    the first rows of those that this node can run    in queue order, at most as many as there are slots
    relaymesh.store.throttle                          pauses, limits, steps with a concurrency key; nothing without them
    relaymesh.core.fairness.plan                      8:3:1, anti-starvation, room
    one guarded UPDATE                                takes the leases; the tasks become RUNNING

All of it in the caller's write transaction, so nobody else can claim in between; the guards stand all the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Any, NamedTuple

from relaymesh.core.fairness import LANES, Candidate, Fairness, Lane, Plan, plan
from relaymesh.core.throttle import Rules
from relaymesh.store.bulk import id_list
from relaymesh.store.claimed_row import ClaimedRow
from relaymesh.store.schema import PLAIN_READY, READY
from relaymesh.store.throttle import Throttle, keyed_groups
from relaymesh.wire.store import LeaseRef

__all__ = ["Choice", "Claim", "Claimant", "ClaimedRow", "Slots", "choose", "claim", "ready_groups", "take"]

_GROUPS = f"""
WITH RECURSIVE pair(agent_id, priority) AS (
    SELECT * FROM (SELECT agent_id, priority FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY}
                   ORDER BY agent_id, priority LIMIT 1)
    UNION ALL
    SELECT n.agent_id, n.priority FROM pair JOIN steps n ON n.id = coalesce(
        (SELECT id FROM steps INDEXED BY steps_ready
         WHERE {PLAIN_READY} AND agent_id=pair.agent_id AND priority>pair.priority ORDER BY priority LIMIT 1),
        (SELECT id FROM steps INDEXED BY steps_ready
         WHERE {PLAIN_READY} AND agent_id>pair.agent_id ORDER BY agent_id, priority LIMIT 1))
)
SELECT agent_id, priority FROM pair
"""
_HEADS = f"""
SELECT id, queued_at_ms, step_id, task_id, attempt, lease_epoch, shape, payload, payload_path, template, map_item,
       map_index, traceparent
FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY} AND agent_id=? AND priority=? ORDER BY queued_at_ms LIMIT ?
"""
# All that is ready, as long as that is little: on an idle node this one look replaces the two above.
_LITTLE = 16
_FEW = f"""
SELECT id, queued_at_ms, step_id, task_id, attempt, lease_epoch, shape, payload, payload_path, template, map_item,
       map_index, traceparent, agent_id, priority
FROM steps INDEXED BY steps_ready WHERE {PLAIN_READY} LIMIT {_LITTLE + 1}
"""
_ROWS = """
SELECT id, queued_at_ms, step_id, task_id, attempt, lease_epoch, shape, payload, payload_path, template, map_item,
       map_index, traceparent
FROM steps WHERE id IN (SELECT value FROM json_each(?))
"""
_TAKE = f"""
UPDATE steps SET status='RUNNING', lease_owner=?, owner_generation=?, lease_token=?||id, lease_epoch=lease_epoch+1,
    cluster_epoch=?, attempt=attempt+1, updated_at_ms=max(?, updated_at_ms+1), started_at_ms=?, next_retry_at_ms=NULL,
    progress=NULL, worker_id=?
WHERE id IN (SELECT value FROM json_each(?)) AND {READY}
"""
# A list costs three times what the row does, and on an idle node there is one row.
_TAKE_ONE = _TAKE.replace("id IN (SELECT value FROM json_each(?))", "id=?")
# Leaves updated_at_ms, and so every index, alone: a claim is news about the step, whose row tells when it was.
_TASK_RUNNING = """
UPDATE tasks SET status='RUNNING'
WHERE task_id IN (SELECT value FROM json_each(?)) AND status IN ('PENDING','RETRYING')
"""
_TASK_RUNNING_ONE = _TASK_RUNNING.replace("task_id IN (SELECT value FROM json_each(?))", "task_id=?")


@dataclass(frozen=True, slots=True)
class Slots:
    """What a node can take now.

    pools: agent id to the pool whose slots it needs; only these agents are claimed.
    free: free slots per pool. room: how many more steps of an agent may start on this node.
    limits: agents that may not run more often than this at a time on the whole root.
    """

    pools: Mapping[str, str]
    free: Mapping[str, int]
    room: Mapping[str, int]
    limits: Mapping[str, int]
    limit: int


class Claimant(NamedTuple):
    """Who claims. ``token`` is the prefix of the lease tokens, new for each claim."""

    node_id: str
    generation: int
    token: str
    cluster_epoch: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What to claim; ``rows`` holds what was read of candidates without a key: the row as selected, and its agent.

    throttle: what holds for the claim, and is told what it took; None on a root without limits.
    """

    planned: Plan
    rows: Mapping[int, tuple[tuple[Any, ...], str]]
    throttle: Throttle | None = None

    @property
    def forced_low(self) -> int:
        """How many picks were LOW only after a long run of HIGH."""
        return self.planned.forced_low

    def claim_of(self, rows: Sequence[ClaimedRow]) -> Claim:
        """Return the claim that took these rows, once they are taken."""
        throttle = self.throttle
        if throttle is None:
            return Claim(tuple(rows), self.planned.state, self.forced_low)
        throttle.spend(self.planned.picks)
        allowed = throttle.allow(rows, self.planned.picks)
        return Claim(tuple(allowed), self.planned.state, self.forced_low, throttle.held, throttle.due_in_ms)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim took, the dispatch state after it, and how many picks were LOW only after a long run of HIGH.

    held: a limit may have left something behind, so the end of any step may make room for it. due_in_ms: when a rate
    gives room by itself, or None. fenced: the claim was refused, because a later generation of the node is entered.
    """

    rows: tuple[ClaimedRow, ...]
    state: Fairness
    forced_low: int
    held: bool = False
    due_in_ms: int | None = None
    fenced: bool = False


def ready_groups(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the ``(agent_id, priority)`` pairs that have a ready step; costs one index seek a pair."""
    return [*conn.execute(_GROUPS).fetchall(), *keyed_groups(conn)]


def claim(
    conn: sqlite3.Connection,
    slots: Slots,
    state: Fairness,
    claimant: Claimant,
    now_ms: int,
    groups: Sequence[tuple[str, str]] | None = None,
    throttle: Throttle | None = None,
) -> Claim:
    """Claim up to ``slots.limit`` ready steps. groups: what ``ready_groups`` said a moment ago, if it was asked."""
    choice = choose(conn, slots, state, groups=groups, throttle=throttle)
    rows = take(conn, choice, claimant, now_ms)
    return choice.claim_of([rows[pick.row_id] for pick in choice.planned.picks])


def choose(
    conn: sqlite3.Connection,
    slots: Slots,
    state: Fairness,
    fresh: Mapping[Lane, Sequence[Candidate]] | None = None,
    groups: Sequence[tuple[str, str]] | None = None,
    throttle: Throttle | None = None,
    nothing_waits: bool = False,
) -> Choice:
    """Plan a claim of up to ``slots.limit`` ready steps.

    nothing_waits: it is known that no stored step without a key is ready for these slots.
    fresh: candidates that are not stored yet, behind all that are; their row ids are negative.
    throttle: made for this claim; None when the root has neither limits nor pauses.
    """
    free, pools, limit = slots.free, slots.pools, slots.limit
    few = [] if nothing_waits else _few(conn) if groups is None else None
    if few is None:
        found = list(groups) if groups else conn.execute(_GROUPS).fetchall()
    else:
        found = list(dict.fromkeys((row[-2], row[-1]) for row in few))
    keyed: list[tuple[str, str]] = []
    if throttle is not None:
        found, keyed, fresh = throttle.open(found), throttle.keyed(), throttle.open_fresh(fresh)
        limit = throttle.overall_room(limit)
        throttle.read_keys_of(fresh, limit)
        keyed = [group for group in keyed if free.get(pools.get(group[0], ""), 0) > 0]
    found = [group for group in found if free.get(pools.get(group[0], ""), 0) > 0]
    agents = {agent for agent, _ in (*found, *keyed)}
    agents.update(candidate.agent_id for lane in (fresh or {}).values() for candidate in lane)
    if not agents or not limit:
        return Choice(Plan(state, (), 0), {}, throttle)
    room = _room(conn, slots, agents, throttle)
    rows: dict[int, tuple[tuple[Any, ...], str]] = {}
    lanes: dict[Lane, list[list[Candidate]]] = {}
    for number, (agent_id, priority) in enumerate((*found, *keyed)):
        pool = pools[agent_id]
        wanted = min(limit, free[pool], room.get(agent_id, limit))
        lane = LANES.get(priority)
        if wanted <= 0 or lane is None:
            continue
        if number >= len(found):
            assert throttle is not None
            lanes.setdefault(lane, []).append(throttle.heads(agent_id, priority, pool, wanted))
            continue
        if few is None:
            heads = conn.execute(_HEADS, (agent_id, priority, wanted)).fetchall()
        else:
            heads = [row[:-2] for row in few if row[-2:] == (agent_id, priority)][:wanted]
        rows.update((row[0], (row, agent_id)) for row in heads)
        lanes.setdefault(lane, []).append([Candidate(row[0], agent_id, pool, row[1]) for row in heads])
    merged: dict[Lane, Sequence[Candidate]] = {
        lane: queues[0] if len(queues) == 1 else list(merge(*queues, key=lambda c: (c.queued_at_ms, c.row_id)))
        for lane, queues in lanes.items()
    }
    for name, candidates in (fresh or {}).items():
        merged[name] = [*merged.get(name, ()), *candidates]
    key_room = throttle.key_room if throttle is not None else None
    return Choice(plan(state, merged, free, room, limit, key_room=key_room), rows, throttle)


def _few(conn: sqlite3.Connection) -> list[tuple[Any, ...]] | None:
    """Return all ready steps in the order of their index, with agent and priority last; None when there are many."""
    found = conn.execute(_FEW).fetchall()
    return found if len(found) <= _LITTLE else None


def take(conn: sqlite3.Connection, choice: Choice, claimant: Claimant, now_ms: int) -> dict[int, ClaimedRow]:
    """Take the leases of the stored steps of a plan; return them by row id."""
    stored = [pick for pick in choice.planned.picks if pick.row_id >= 0]
    if not stored:
        return {}
    node_id, generation, token, cluster_epoch = claimant
    take_all, which = (
        (_TAKE_ONE, stored[0].row_id) if len(stored) == 1 else (_TAKE, id_list(pick.row_id for pick in stored))
    )
    rows = _rows_of(conn, stored, choice)
    values = (node_id, generation, token, cluster_epoch, now_ms, now_ms, node_id, which)
    taken = conn.execute(take_all, values).rowcount
    assert taken == len(stored), "the write transaction keeps everybody else out"
    claimed = {pick.row_id: _claimed_row(*rows[pick.row_id], pick.pool, token, cluster_epoch) for pick in stored}
    tasks = {row.lease.task_id for row in claimed.values()}
    if len(tasks) == 1:
        conn.execute(_TASK_RUNNING_ONE, (*tasks,))
    else:
        conn.execute(_TASK_RUNNING, (id_list(tasks),))
    return claimed


def _rows_of(
    conn: sqlite3.Connection, stored: Sequence[Candidate], choice: Choice
) -> Mapping[int, tuple[tuple[Any, ...], str]]:
    """Return the rows of the picks: those that were not read with the candidates, which have a key, are read now."""
    unread = {pick.row_id: pick.agent_id for pick in stored if pick.key} if choice.throttle is not None else None
    if not unread:
        return choice.rows
    rows = dict(choice.rows)
    rows.update((row[0], (row, unread[row[0]])) for row in conn.execute(_ROWS, (id_list(unread),)))
    return rows


def _room(conn: sqlite3.Connection, slots: Slots, agents: set[str], throttle: Throttle | None) -> dict[str, int]:
    """Return how many more steps of each limited agent may start, counted from the leases, so a crash leaks none."""
    room = {agent: count for agent, count in slots.room.items() if agent in agents}
    if throttle is None and agents.isdisjoint(slots.limits):
        return room
    if throttle is None:
        throttle = Throttle(conn, Rules(), node_id="", now_ms=0, cursors={})
    for agent, left in throttle.agent_room(agents, slots.limits, slots.limit).items():
        room[agent] = min(room.get(agent, left), left)
    return room


def _claimed_row(
    row: tuple[Any, ...],  # as _HEADS selects it
    agent_id: str,
    pool: str,
    token: str,
    cluster_epoch: int,
) -> ClaimedRow:
    row_id, _, step_id, task_id, attempt, lease_epoch, shape, payload, path, template, item, index, traceparent = row
    lease = LeaseRef(
        row_id, step_id, task_id, agent_id, attempt + 1, f"{token}{row_id}", lease_epoch + 1, cluster_epoch, shape
    )
    return ClaimedRow(lease, pool, payload, path, bool(template), item, index, traceparent)
