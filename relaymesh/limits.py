"""Limits and pauses as a client sets and shows them; each change is one transaction, and the audit record of it.

    words ─▶ scope, name, limit ─▶ rows (relaymesh.store.control) ─▶ every process goes by them from its next claim on

``relaymesh.client`` opens the root before, wakes the nodes and writes the record after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relaymesh.core.limit import CONCURRENCY_MAX
from relaymesh.core.nearest import did_you_mean, quoted
from relaymesh.core.priority import normalize_priority
from relaymesh.core.rate_text import RateTextError, parse_rate, rate_text
from relaymesh.core.throttle import Limit, LimitScope, PauseScope, Rules, room_of
from relaymesh.errors import InputError
from relaymesh.rule_view import LimitOutcome, LimitView, PauseOutcome, PauseView, QueueStatus
from relaymesh.store.throttle import load_rules, running_of, stored_bucket

if TYPE_CHECKING:
    from relaymesh.store.database import Database
    from relaymesh.store.store import Store

__all__ = [
    "BadLimitError",
    "Pause",
    "UnknownNodeError",
    "change_pause",
    "limits",
    "pause_of",
    "queue_status",
    "remove_limit",
    "set_limit",
]

Clock = Callable[[], int]


class BadLimitError(InputError):
    """A limit or a pause that makes no sense; nothing was changed."""

    code = "bad_limit"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class UnknownNodeError(InputError):
    """No node of this id has ever run on the root."""

    code = "unknown_node"

    def __init__(self, node_id: str, hint: str = "") -> None:
        super().__init__(node_id, hint)
        self.node_id, self.hint = node_id, hint

    def __str__(self) -> str:
        return (
            f"no node {quoted(self.node_id)} has run here{self.hint}: `relaymesh queue status` lists those that are"
            " alive; nothing was changed"
        )


# -- limits ----------------------------------------------------------------------------------------------------------


def set_limit(
    store: Store,
    scope: str,
    name: str,
    *,
    max_concurrency: int | None,
    rate: str | None,
    burst: int | None,
    now_ms: Clock,
) -> LimitOutcome:
    """Set what is given and leave the rest of the limit as it is.

    Raises:
        BadLimitError: nothing was changed.
        TooManyRulesError: nothing was changed.
    """
    where = _scope(scope, name)
    if max_concurrency is None and rate is None:
        raise BadLimitError("a limit needs a number of steps, a rate, or both: give max_concurrency or rate")
    if burst is not None and rate is None:
        raise BadLimitError("a burst goes with a rate: give both")
    if max_concurrency is not None and not 0 <= max_concurrency <= CONCURRENCY_MAX:
        raise BadLimitError(f"a limit of {max_concurrency} running steps cannot be used: take 0 to {CONCURRENCY_MAX:,}")
    try:
        change = Limit(max_concurrency, parse_rate(rate, burst) if rate is not None else None)
    except RateTextError as error:
        raise BadLimitError(str(error)) from None
    with store.write():
        limit = store.set_limit(*where, change, now_ms=now_ms())
    return _outcome(where, limit, changed=True, message="set")


def remove_limit(store: Store, scope: str, name: str, *, now_ms: Clock) -> LimitOutcome:
    """Remove a limit.

    Raises:
        BadLimitError: nothing was changed.
    """
    where = _scope(scope, name)
    with store.write():
        removed = store.remove_limit(*where, now_ms=now_ms())
        left = load_rules(store.conn).limits.get(where, Limit())
    return _outcome(where, left, changed=removed, message="removed" if removed else "not_found")


def limits(store: Database, *, now_ms: Clock) -> list[LimitView]:
    """Return all limits, and how far each is used up."""
    with store.snapshot():
        at_ms, rules = now_ms(), load_rules(store.conn)
        return [_limit_view(store, where, limit, at_ms) for where, limit in sorted(rules.limits.items())]


def _limit_view(store: Database, where: tuple[LimitScope, str], limit: Limit, at_ms: int) -> LimitView:
    scope, name = where
    each = scope is LimitScope.EACH_KEY
    running = 0 if each else running_of(store.conn, scope, name)
    bucket = None if each else stored_bucket(store.conn, scope, name)
    rate = limit.rate
    return LimitView(
        scope=str(scope),
        name=name,
        max_concurrency=limit.max_concurrency,
        rate=rate_text(rate) if rate is not None else None,
        burst=rate.burst if rate is not None else None,
        running=None if each else running,
        # The limit of each key is used by every key apart.
        room=None if each else max(0, room_of(limit, running, bucket, at_ms).count),
    )


def _scope(scope: str, name: str) -> tuple[LimitScope, str]:
    known = {str(one).replace("_", "-"): one for one in LimitScope}
    found = known.get(scope.strip().lower().replace("_", "-"))
    if found is None:
        raise BadLimitError(f"there is no limit on {quoted(scope)}: write one of {', '.join(known)}")
    if found in (LimitScope.AGENT, LimitScope.KEY):
        if not name.strip():
            raise BadLimitError(f"a limit on one {found} needs its name")
        if len(name) > 256:
            raise BadLimitError("the name is longer than 256 characters, as no agent's and no key's is")
        return found, name
    if name:
        raise BadLimitError(f"a limit on {found} has no name: leave {quoted(name)} out")
    return found, ""


def _outcome(where: tuple[LimitScope, str], limit: Limit, *, changed: bool, message: str) -> LimitOutcome:
    rate = limit.rate
    return LimitOutcome(
        changed=changed,
        scope=str(where[0]),
        name=where[1],
        max_concurrency=limit.max_concurrency,
        rate=rate_text(rate) if rate is not None else None,
        burst=rate.burst if rate is not None else None,
        message=message,
    )


# -- pauses ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pause:
    """What is paused or resumed."""

    scope: PauseScope
    name: str


def pause_of(*, agent: str | None = None, priority: str | None = None, node: str | None = None) -> Pause:
    """Return what the words name; none of them is the whole queue.

    Raises:
        BadLimitError: more than one is given, or a blank one.
        PriorityError: there is no such priority.
    """
    given = [
        (scope, name)
        for scope, name in ((PauseScope.AGENT, agent), (PauseScope.PRIORITY, priority), (PauseScope.NODE, node))
        if name is not None
    ]
    if len(given) > 1:
        raise BadLimitError("a pause is of an agent, of a priority, or of a node: give one at a time")
    if not given:
        return Pause(PauseScope.OVERALL, "")
    ((scope, name),) = given
    if not name.strip() or len(name) > 256:
        raise BadLimitError(f"the {scope} to pause needs its name, of 1 to 256 characters")
    return Pause(scope, str(normalize_priority(name)) if scope is PauseScope.PRIORITY else name)


def change_pause(store: Store, what: Pause, *, paused: bool, reason: str, now_ms: Clock) -> PauseOutcome:
    """Pause or resume; running nodes go by it from their next claim on.

    Raises:
        UnknownNodeError, BadLimitError, TooManyRulesError: nothing was changed.
    """
    with store.write():
        if paused and what.scope is PauseScope.NODE:
            _require_node(store, what.name)
        if paused:
            changed = store.pause(what.scope, what.name, reason=reason, now_ms=now_ms())
        else:
            changed = store.resume(what.scope, what.name, now_ms=now_ms())
    message = ("paused" if changed else "paused_before") if paused else ("resumed" if changed else "not_paused")
    return PauseOutcome(changed=changed, scope=str(what.scope), name=what.name, message=message)


def _require_node(store: Store, node_id: str) -> None:
    if store.conn.execute("SELECT 1 FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone() is None:
        known = [row[0] for row in store.conn.execute("SELECT node_id FROM mesh_nodes LIMIT 1000")]
        raise UnknownNodeError(node_id, did_you_mean(node_id, known))


def queue_status(store: Database, *, now_ms: Clock) -> QueueStatus:
    """Return what is paused, and what waits and runs now."""
    from relaymesh.store.node_row import live_nodes
    from relaymesh.store.stats import ready_now

    with store.snapshot():
        rules = load_rules(store.conn)
        reasons: dict[tuple[str, str], str] = {
            (scope, name): reason
            for scope, name, reason in store.conn.execute("SELECT scope, name, reason FROM queue_pauses")
        }
        running = dict(
            store.conn.execute(
                "SELECT coalesce(lease_owner, ''), count(*) FROM steps WHERE status='RUNNING' GROUP BY lease_owner"
            ).fetchall()
        )
        nodes = [node.node_id for node in live_nodes(store.conn, store.root / "run", now_ms=now_ms())]
        return QueueStatus(
            paused=(PauseScope.OVERALL, "") in rules.pauses,
            waiting=ready_now(store.conn, store.path, now_ms()),
            running=sum(running.values()),
            pauses=_pauses(rules, reasons),
            nodes={node: running.get(node, 0) for node in sorted({*nodes, *running} - {""})},
            drained=tuple(
                name for scope, name in sorted(rules.pauses) if scope is PauseScope.NODE and not running.get(name)
            ),
        )


def _pauses(rules: Rules, reasons: dict[tuple[str, str], str]) -> tuple[PauseView, ...]:
    return tuple(
        PauseView(scope=str(scope), name=name, since_ms=since_ms, reason=reasons.get((scope, name), ""))
        for (scope, name), since_ms in sorted(rules.pauses.items())
    )
