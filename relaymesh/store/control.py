"""Limits and pauses as rows: set, remove, pause, resume. Each change tells every process of the root at its next claim.

The caller holds the write transaction. What the rows mean is decided in ``relaymesh.core.throttle``.
"""

from __future__ import annotations

import sqlite3

from relaymesh.core.limit import LIMITS_MAX, PAUSES_MAX
from relaymesh.core.throttle import DEFAULT_KEY_LIMIT, Limit, LimitScope, PauseScope
from relaymesh.core.token_bucket import Rate
from relaymesh.errors import StoreError
from relaymesh.store.throttle import RULES_STATE

__all__ = ["TooManyRulesError", "expect_keys", "pause", "remove_limit", "resume", "set_limit", "tell_rules"]


class TooManyRulesError(StoreError):
    """A root has as many limits, or pauses, as it may have."""

    code = "too_many_rules"

    def __init__(self, what: str, most: int) -> None:
        super().__init__(what, most)
        self.what, self.most = what, most

    def __str__(self) -> str:
        return f"this root has {self.most:,} {self.what} already, and that is the most: remove one first"


def set_limit(conn: sqlite3.Connection, scope: LimitScope, name: str, change: Limit, *, now_ms: int) -> Limit:
    """Set what ``change`` names and leave the rest of the limit as it is; return the limit that holds now.

    Raises:
        TooManyRulesError: nothing was changed.
    """
    row = conn.execute(
        "SELECT max_concurrency, rate, rate_period_ms, burst FROM limits WHERE scope=? AND name=?", (scope, name)
    ).fetchone()
    if row is None:
        _check_count(conn, "limits", LIMITS_MAX)
        former = DEFAULT_KEY_LIMIT if scope is LimitScope.EACH_KEY else Limit()
    else:
        former = Limit(row[0], Rate(*row[1:]) if row[1] is not None else None)
    concurrency = change.max_concurrency if change.max_concurrency is not None else former.max_concurrency
    limit = Limit(concurrency, change.rate or former.rate)
    _write(conn, scope, name, limit, now_ms)
    if limit.rate != former.rate:
        # The level of the old rate is in other units: the new one begins with a full bucket.
        conn.execute("DELETE FROM rate_buckets WHERE scope=? AND name=?", (scope, name))
        if scope is LimitScope.EACH_KEY:
            conn.execute(
                "DELETE FROM rate_buckets WHERE scope='key' AND name NOT IN (SELECT name FROM limits WHERE scope='key')"
            )
    tell_rules(conn, now_ms)
    return limit


def remove_limit(conn: sqlite3.Connection, scope: LimitScope, name: str, *, now_ms: int) -> bool:
    """Remove a limit; return whether there was one. That of each key goes back to one step at a time."""
    removed = conn.execute("DELETE FROM limits WHERE scope=? AND name=?", (scope, name)).rowcount == 1
    conn.execute("DELETE FROM rate_buckets WHERE scope=? AND name=?", (scope, name))
    if removed and scope is LimitScope.EACH_KEY:
        _write(conn, scope, name, DEFAULT_KEY_LIMIT, now_ms)
    if removed:
        tell_rules(conn, now_ms)
    return removed


def expect_keys(conn: sqlite3.Connection, *, now_ms: int) -> None:
    """Say that steps with a concurrency key may be there from now on. Without any, no claim looks for them."""
    if conn.execute(
        "INSERT OR IGNORE INTO limits(scope, name, max_concurrency, updated_at_ms) VALUES ('each_key','',?,?)",
        (DEFAULT_KEY_LIMIT.max_concurrency, now_ms),
    ).rowcount:
        tell_rules(conn, now_ms)


def pause(conn: sqlite3.Connection, scope: PauseScope, name: str, *, reason: str, now_ms: int) -> bool:
    """Pause; return False when it was paused already, which keeps its time and reason.

    Raises:
        TooManyRulesError: nothing was changed.
    """
    _check_count(conn, "queue_pauses", PAUSES_MAX)
    paused = conn.execute(
        "INSERT OR IGNORE INTO queue_pauses(scope, name, reason, since_ms) VALUES (?,?,?,?)",
        (scope, name, reason, now_ms),
    ).rowcount
    if paused:
        tell_rules(conn, now_ms)
    return paused == 1


def resume(conn: sqlite3.Connection, scope: PauseScope, name: str, *, now_ms: int) -> bool:
    """End a pause; return whether there was one."""
    resumed = conn.execute("DELETE FROM queue_pauses WHERE scope=? AND name=?", (scope, name)).rowcount
    if resumed:
        tell_rules(conn, now_ms)
    return resumed == 1


def _write(conn: sqlite3.Connection, scope: LimitScope, name: str, limit: Limit, now_ms: int) -> None:
    rate = limit.rate
    conn.execute(
        "INSERT INTO limits(scope, name, max_concurrency, rate, rate_period_ms, burst, updated_at_ms)"
        " VALUES (?,?,?,?,?,?,?) ON CONFLICT(scope, name) DO UPDATE SET max_concurrency=excluded.max_concurrency,"
        " rate=excluded.rate, rate_period_ms=excluded.rate_period_ms, burst=excluded.burst,"
        " updated_at_ms=excluded.updated_at_ms",
        (
            scope,
            name,
            limit.max_concurrency,
            rate and rate.count,
            rate and rate.period_ms,
            rate and rate.burst,
            now_ms,
        ),
    )


def _check_count(conn: sqlite3.Connection, table: str, most: int) -> None:
    (count,) = conn.execute(f"SELECT count(*) FROM {table}").fetchone()
    if count >= most:
        raise TooManyRulesError("limits" if table == "limits" else "pauses", most)


def tell_rules(conn: sqlite3.Connection, now_ms: int) -> None:
    """Let every process of the root read the rules anew before its next claim."""
    conn.execute(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) VALUES (?,'1',1,?)"
        " ON CONFLICT(state_key) DO UPDATE SET state_value=CAST(version+1 AS TEXT), version=version+1,"
        " updated_at_ms=excluded.updated_at_ms",
        (RULES_STATE, now_ms),
    )
