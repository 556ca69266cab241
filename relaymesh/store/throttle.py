"""What one claim may take by the limits and pauses of the root; the rules are ``relaymesh.core.throttle``.

    rules        read again in the first transaction after a change (a number in ``cluster_state`` grows with each)
    running      counted from the rows that are RUNNING, over partial indexes
    buckets      read, and written back with a guard, in the claim's own transaction
    keys         looked at a window at a time, beginning behind the last look: none is passed over for good

A root without limits, pauses and keys has no ``Throttle`` at all, and its claims cost what they cost before.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import structs

from relaymesh.core.fairness import Candidate, Lane
from relaymesh.core.throttle import UNLIMITED, Limit, LimitScope, PauseScope, Room, Rules, room_of
from relaymesh.core.token_bucket import Bucket, Rate, available, due_in_ms, full, settled, spend
from relaymesh.store.bulk import id_list, write_rows
from relaymesh.store.claimed_row import ClaimedRow
from relaymesh.store.schema import KEYED_READY

if TYPE_CHECKING:
    from relaymesh.store.budget import Purses

__all__ = [
    "KEYS_LOOKED_MAX",
    "RULES_STATE",
    "KeyCursors",
    "Throttle",
    "forget_buckets",
    "keyed_groups",
    "load_rules",
    "running_of",
    "stored_bucket",
]

RULES_STATE: Final = "limits_version"
"""The row of ``cluster_state`` that tells of a change."""

KEYS_LOOKED_MAX: Final = 4_096
"""Keys of one agent and lane that one claim looks at; the next claim goes on behind them."""
LOOK_AGAIN_MS: Final = 100
"""When a claim that did not get round all keys, and has slots left, is followed by the next."""
_WINDOW: Final = 256
_CURSORS_MAX: Final = 1_024

KeyCursors = dict[tuple[str, str], str]
"""Agent and lane to the last key that a claim looked at. One process has one; it only says where to begin."""

_GROUPS = f"""
WITH RECURSIVE pair(agent_id, priority) AS (
    SELECT * FROM (SELECT agent_id, priority FROM steps INDEXED BY steps_keyed WHERE {KEYED_READY}
                   ORDER BY agent_id, priority LIMIT 1)
    UNION ALL
    SELECT n.agent_id, n.priority FROM pair JOIN steps n ON n.id = coalesce(
        (SELECT id FROM steps INDEXED BY steps_keyed
         WHERE {KEYED_READY} AND agent_id=pair.agent_id AND priority>pair.priority ORDER BY priority LIMIT 1),
        (SELECT id FROM steps INDEXED BY steps_keyed
         WHERE {KEYED_READY} AND agent_id>pair.agent_id ORDER BY agent_id, priority LIMIT 1))
)
SELECT agent_id, priority FROM pair
"""
_NEXT_KEY = f"""
SELECT concurrency_key FROM steps INDEXED BY steps_keyed
WHERE {KEYED_READY} AND agent_id=?1 AND priority=?2 AND concurrency_key>"""
_KEYS = f"""
WITH RECURSIVE k(key) AS (
    SELECT * FROM ({_NEXT_KEY}?3 ORDER BY concurrency_key LIMIT 1)
    UNION ALL
    SELECT ({_NEXT_KEY}k.key ORDER BY concurrency_key LIMIT 1) FROM k WHERE k.key IS NOT NULL LIMIT {_WINDOW}
)
SELECT key FROM k WHERE key IS NOT NULL
"""
# No more than the plan needs: it is given more than it picks, and an input may be long.
_HEADS = f"""
SELECT s.id, s.queued_at_ms, k.value
FROM json_each(?3) k JOIN steps s ON s.id IN (
    SELECT id FROM steps INDEXED BY steps_keyed
    WHERE {KEYED_READY} AND agent_id=?1 AND priority=?2 AND concurrency_key=k.value ORDER BY queued_at_ms LIMIT ?4)
"""
# Both in one look: a statement gives up the interpreter lock, which costs more than what it finds.
_KEY_STATE = """
SELECT k.value, (SELECT count(*) FROM steps s INDEXED BY steps_keyed_running
                 WHERE s.status='RUNNING' AND s.concurrency_key IS NOT NULL AND s.concurrency_key=k.value),
       b.level, b.at_ms
FROM json_each(?) k LEFT JOIN rate_buckets b ON b.scope='key' AND b.name=k.value
"""
_RUNNING_KEYS = """
SELECT concurrency_key, count(*) FROM steps INDEXED BY steps_keyed_running
WHERE status='RUNNING' AND concurrency_key IS NOT NULL AND concurrency_key IN (SELECT value FROM json_each(?))
GROUP BY concurrency_key
"""
_RUNNING_AGENTS = """
SELECT agent_id, count(*) FROM steps INDEXED BY steps_running
WHERE status='RUNNING' AND agent_id IN (SELECT value FROM json_each(?)) GROUP BY agent_id
"""
_RUNNING = "SELECT count(*) FROM (SELECT 1 FROM steps INDEXED BY steps_running WHERE status='RUNNING' LIMIT ?)"
# Those of the root and of all agents that have a rate: as many as people have set.
_WIDE_BUCKETS = "SELECT scope, name, level, at_ms FROM rate_buckets WHERE scope IN ('overall','agent')"
_FIRST_COME = itemgetter(1, 0)
_KEEP = """
INSERT INTO rate_buckets(scope, name, level, at_ms) VALUES (?1,?2,?3,?4)
ON CONFLICT(scope, name) DO UPDATE SET level=excluded.level, at_ms=excluded.at_ms WHERE level=?5 AND at_ms=?6
"""


# One statement for many keys. Nobody can have written a bucket since we read it; a later instant would say so.
_SPEND = """
INSERT INTO rate_buckets(scope, name, level, at_ms) SELECT column1, column2, column3, column4 FROM (VALUES {rows})
WHERE true ON CONFLICT(scope, name) DO UPDATE SET level=excluded.level, at_ms=excluded.at_ms
WHERE rate_buckets.at_ms<=excluded.at_ms
"""


def load_rules(conn: sqlite3.Connection) -> Rules:
    """Return the limits and pauses of the root."""
    limits: dict[tuple[LimitScope, str], Limit] = {}
    for scope, name, concurrency, rate, period_ms, burst in conn.execute(
        "SELECT scope, name, max_concurrency, rate, rate_period_ms, burst FROM limits"
    ):
        its_rate = Rate(rate, period_ms, burst) if rate is not None else None
        limits[LimitScope(scope), name] = Limit(concurrency, its_rate)
    pauses = {
        (PauseScope(scope), name): since_ms
        for scope, name, since_ms in conn.execute("SELECT scope, name, since_ms FROM queue_pauses")
    }
    from relaymesh.store.budget import load_budgeted  # a root whose rules nobody has set does not come here

    return Rules(limits, pauses, load_budgeted(conn))


def keyed_groups(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the ``(agent_id, priority)`` pairs that have a ready step with a key; one index seek a pair."""
    return conn.execute(_GROUPS).fetchall()


def forget_buckets(conn: sqlite3.Connection, rules: Rules, *, now_ms: int, limit: int) -> int:
    """Remove buckets that are full again, oldest first: none is the same as a full one. Return how many."""
    rates = [its.rate for its in rules.limits.values() if its.rate is not None]
    fills_in_ms = max((rate.burst * rate.period_ms // rate.count for rate in rates), default=0)
    return conn.execute(
        "DELETE FROM rate_buckets WHERE (scope, name) IN"
        " (SELECT scope, name FROM rate_buckets INDEXED BY rate_buckets_age WHERE at_ms<? ORDER BY at_ms LIMIT ?)",
        (now_ms - fills_in_ms - 1, limit),
    ).rowcount


def running_of(conn: sqlite3.Connection, scope: LimitScope, name: str) -> int:
    """Return how many running steps count against a limit; a read, for people."""
    if scope is LimitScope.OVERALL:
        return int(conn.execute(_RUNNING, (UNLIMITED,)).fetchone()[0])
    query = _RUNNING_AGENTS if scope is LimitScope.AGENT else _RUNNING_KEYS
    row = conn.execute(query, (id_list([name]),)).fetchone()
    return int(row[1]) if row is not None else 0


def stored_bucket(conn: sqlite3.Connection, scope: LimitScope, name: str) -> Bucket | None:
    """Return what is left of a rate, or None when nothing was taken; a read, for people."""
    row = conn.execute("SELECT level, at_ms FROM rate_buckets WHERE scope=? AND name=?", (scope, name)).fetchone()
    return Bucket(*row) if row is not None else None


class Throttle:
    """The rules applied to one claim, inside its write transaction.

    held: something that could have been taken was left because of a limit. due_in_ms: when it is worth while to look
    again although nothing ends, or None.
    """

    def __init__(
        self, conn: sqlite3.Connection, rules: Rules, *, node_id: str, now_ms: int, cursors: KeyCursors
    ) -> None:
        self.held = False
        self.due_in_ms: int | None = None
        self._conn = conn
        self._rules = rules
        self._node_id = node_id
        self._now_ms = now_ms
        self._cursors = cursors
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._wide_read = False
        self._running: tuple[int, int] | None = None
        self._groups: list[tuple[str, str]] | None = None
        self.key_room: dict[str, int] = {}
        budgeted = rules.budgets
        self._purses: Purses | None = None
        if budgeted is not None:
            from relaymesh.store.budget import Purses

            self._purses = Purses(conn, budgeted, now_ms)

    def open(self, groups: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those of these agents and lanes that are not paused."""
        if self._rules.stops(self._node_id):
            return []
        if not self._rules.pauses:
            return list(groups)
        return [group for group in groups if self._rules.pause_of(*group) is None]

    def open_fresh(self, fresh: Mapping[Lane, Sequence[Candidate]] | None) -> Mapping[Lane, Sequence[Candidate]]:
        """Return those of these candidates that are not paused."""
        if not self._rules.pauses:
            return fresh or {}
        lanes: dict[Lane, Sequence[Candidate]] = {}
        for lane, candidates in (fresh or {}).items():
            agents = {agent for agent, _ in self.open({(candidate.agent_id, str(lane)) for candidate in candidates})}
            lanes[lane] = [candidate for candidate in candidates if candidate.agent_id in agents]
        return lanes

    def read_keys_of(self, fresh: Mapping[Lane, Sequence[Candidate]], wanted: int) -> None:
        """Learn how much room the keys of candidates have that are not stored yet."""
        keys = {candidate.key for lane in fresh.values() for candidate in lane if candidate.key}
        self._read_key_room(sorted(keys - self.key_room.keys()), wanted)

    def overall_room(self, wanted: int) -> int:
        """Return how many of ``wanted`` steps the limit of the whole root lets start."""
        limit = self._rules.overall
        if limit is None:
            return wanted
        running = 0
        if limit.max_concurrency is not None:
            running = self._running_at_most(limit.max_concurrency)
        bucket = self._bucket((LimitScope.OVERALL, ""), limit)
        return min(wanted, self._room(room_of(limit, running, bucket, self._now_ms), wanted))

    def agent_room(self, agents: Iterable[str], of_code: Mapping[str, int], wanted: int) -> dict[str, int]:
        """Return how many steps of each limited agent may start. of_code: limits that stand in the agents' code."""
        limits: dict[str, Limit] = {}
        for agent in agents:
            limit = self._rules.of_agent(agent)
            if limit is None and agent in of_code:
                limit = Limit(of_code[agent])
            elif limit is not None and limit.max_concurrency is None and agent in of_code:
                limit = Limit(of_code[agent], limit.rate)
            if limit is not None:
                limits[agent] = limit
        counted = {agent: limit.max_concurrency for agent, limit in limits.items() if limit.max_concurrency is not None}
        running = self._running_of_agents(counted, wanted) if counted else {}
        room = {}
        for agent, limit in limits.items():
            bucket = self._bucket((LimitScope.AGENT, agent), limit)
            room[agent] = self._room(room_of(limit, running.get(agent, 0), bucket, self._now_ms), wanted)
        if self._purses is not None:
            room.update(self._without_budget("agent", agents))
        return room

    def _running_of_agents(self, counted: Mapping[str, int], wanted: int) -> dict[str, int]:
        """Count what runs of each agent, or, when all of them together leave room for ``wanted``, at most that."""
        enough = min(counted.values()) - wanted
        if enough > 0:
            # Counted in the index alone; of which agent a row is stands in the row.
            all_of_them = self._running_at_most(enough + 1)
            if all_of_them <= enough:
                return dict.fromkeys(counted, all_of_them)
        return dict(self._conn.execute(_RUNNING_AGENTS, (id_list(counted),)).fetchall())

    def _running_at_most(self, bound: int) -> int:
        """Return how many steps run, or ``bound`` when there are more."""
        if self._running is not None:
            counted, up_to = self._running
            if counted < up_to or bound <= up_to:
                return min(counted, bound)
        (counted,) = self._conn.execute(_RUNNING, (bound,)).fetchone()
        self._running = counted, bound
        return int(counted)

    def has_keyed(self) -> bool:
        """Whether any ready step has a key."""
        if self._groups is None:
            self._groups = keyed_groups(self._conn) if self._rules.keyed else []
        return bool(self._groups)

    def keyed(self) -> list[tuple[str, str]]:
        """Return the agents and lanes that have a ready step with a key and are not paused."""
        return self.open(self._groups or ()) if self.has_keyed() else []

    def heads(self, agent_id: str, priority: str, pool: str, wanted: int) -> list[Candidate]:
        """Return up to about twice ``wanted`` ready steps whose keys have room, first come first.

        However many steps wait behind a key without room, they are not read.
        """
        rows: list[tuple[Any, ...]] = []
        looked, first, after = 0, None, self._cursors.get((agent_id, priority), "")
        started = after
        while len(rows) < wanted and looked < KEYS_LOOKED_MAX:
            keys = [key for (key,) in self._conn.execute(_KEYS, (agent_id, priority, after))]
            if first is not None:  # round once: what comes now was seen
                keys = [key for key in keys if key <= started]
            looked += len(keys)
            rows += self._heads_of(agent_id, priority, keys, wanted - len(rows))
            if len(keys) == _WINDOW:
                after = keys[-1]
            elif first is None and started:
                first, after = started, ""
            else:
                after = ""
                break
        else:
            if len(rows) < wanted:
                self._look_again(LOOK_AGAIN_MS)
        if len(self._cursors) >= _CURSORS_MAX:
            self._cursors.clear()
        self._cursors[agent_id, priority] = after
        rows.sort(key=_FIRST_COME)
        return [Candidate(row_id, agent_id, pool, at_ms, key) for row_id, at_ms, key in rows]

    def spend(self, picks: Sequence[Candidate]) -> None:
        """Take the starts of what was picked out of the buckets.

        A start is spent when a step is claimed, and stays spent when the step is given back.
        """
        if not any(limit.rate is not None for limit in self._rules.limits.values()):
            return
        starts: dict[tuple[LimitScope, str], int] = {(LimitScope.OVERALL, ""): len(picks)}
        for agent, count in Counter([pick.agent_id for pick in picks]).items():
            starts[LimitScope.AGENT, agent] = count
        for key, count in Counter([pick.key for pick in picks if pick.key]).items():
            starts[LimitScope.KEY, key] = count
        rows: list[tuple[str, str, int, int]] = []
        for (scope, name), count in starts.items():
            limit = self._rules.of_key(name) if scope is LimitScope.KEY else self._rules.limits.get((scope, name))
            if limit is None or limit.rate is None or not count:
                continue
            seen = self._bucket((scope, name), limit)
            before = seen if seen is not None else full(limit.rate, self._now_ms)
            left = spend(limit.rate, before, self._now_ms, count)
            rows.append((str(scope), name, left.level, left.at_ms))
            if not available(limit.rate, left, self._now_ms):
                self._look_again(due_in_ms(limit.rate, left, self._now_ms))
        written = write_rows(self._conn, _SPEND, rows)
        assert written == len(rows), "the write transaction keeps everybody else out"

    def allow(self, rows: Sequence[ClaimedRow], picks: Sequence[Candidate]) -> Sequence[ClaimedRow]:
        """Return what was claimed, with what each may spend; the same rows where nobody has a budget."""
        purses = self._purses
        if purses is None:
            return rows
        purses.read_tasks(row.lease.task_id for row in rows)
        allowed = []
        for row, pick in zip(rows, picks, strict=True):
            allowances = purses.allowances(pick, row.lease.task_id)
            allowed.append(structs.replace(row, allowances=allowances) if allowances else row)
        return allowed

    def _heads_of(self, agent_id: str, priority: str, keys: Sequence[str], wanted: int) -> list[tuple[Any, ...]]:
        self._read_key_room([key for key in keys if key not in self.key_room], wanted)
        by_room: dict[int, list[str]] = {}
        for key in keys:
            room = self.key_room[key]
            if room > 0:
                by_room.setdefault(room, []).append(key)
        rows: list[tuple[Any, ...]] = []
        for room, its in by_room.items():
            # One row of each key at least; of few keys enough to fill all slots.
            each = max(1, min(room, wanted, 2 * wanted // len(its)))
            rows += self._conn.execute(_HEADS, (agent_id, priority, id_list(its), each)).fetchall()
        return rows

    def _read_key_room(self, keys: Sequence[str], wanted: int) -> None:
        if not keys:
            return
        for key, running, level, at_ms in self._conn.execute(_KEY_STATE, (id_list(keys),)).fetchall():
            limit = self._rules.of_key(key)
            bucket = None
            if limit.rate is not None and level is not None:
                bucket = self._settle(LimitScope.KEY, key, level, at_ms)
            self.key_room[key] = self._room(room_of(limit, running, bucket, self._now_ms), wanted)
        if self._purses is not None:
            self.key_room.update(self._without_budget("key", keys))

    def _without_budget(self, scope: Literal["agent", "key"], names: Iterable[str]) -> dict[str, int]:
        """Return those of these that have nothing left to spend, with the room that this leaves them: none."""
        assert self._purses is not None
        used_up = self._purses.used_up(scope, names)
        for turns_in_ms in used_up.values():
            self.held = True
            if turns_in_ms is not None:
                self._look_again(turns_in_ms)
        return dict.fromkeys(used_up, 0)

    def _room(self, room: Room, wanted: int) -> int:
        """Note what a limit holds back."""
        if room.count < wanted:
            self.held = True
            if room.hold is not None and room.hold.due_in_ms is not None:
                self._look_again(room.hold.due_in_ms)
        return room.count

    def _look_again(self, in_ms: int) -> None:
        self.held = True
        self.due_in_ms = in_ms if self.due_in_ms is None else min(in_ms, self.due_in_ms)

    def _bucket(self, of: tuple[LimitScope, str], limit: Limit) -> Bucket | None:
        """Return the bucket of the root or of an agent; of a key it was read with the key's room."""
        if limit.rate is None:
            return None
        if not self._wide_read and of[0] is not LimitScope.KEY:
            self._wide_read = True
            for scope, name, level, at_ms in self._conn.execute(_WIDE_BUCKETS).fetchall():
                self._settle(LimitScope(scope), name, level, at_ms)
        return self._buckets.get(of)

    def _settle(self, scope: LimitScope, name: str, level: int, at_ms: int) -> Bucket:
        """Keep a bucket that was read; one that is ahead of the clock is put right where it is stored."""
        seen = Bucket(level, at_ms)
        bucket = self._buckets[scope, name] = settled(seen, self._now_ms)
        if bucket is not seen:
            self._conn.execute(_KEEP, (str(scope), name, bucket.level, bucket.at_ms, seen.level, seen.at_ms))
        return bucket
