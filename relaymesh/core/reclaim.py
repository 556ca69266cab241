"""Which running steps may be taken from their owners.

This is the judge's side of a lease (lease.py is the owner's). One machine per process looks at each scan of all RUNNING
rows, those of its own node included: what that renews, changes. For each row::

    owner known dead ──────────────────────────────────────────────────────────▶ Expire (DEAD_OWNER)
    first scan of this process, wall clock believed, stored time a lease old ──▶ Expire (WALL)
    else ──▶ WATCHED ── same token and updated_at_ms for 1.03 leases ──────────▶ Expire (SILENT)
                │  ▲
                └──┘ token or updated_at_ms changed: the watch starts anew

A watch runs on our own monotonic clock, from the moment we received a row (never before the owner's renewal) to the
moment we asked for the scan that shows it unchanged (never after the read). So neither a jump of the wall clock nor a
slow store can expire a lease that is renewed; all it takes is that every renewal changes the row, which the store's
``updated_at_ms = max(now, previous + 1)`` ensures. The wall clock is used once, by a process that has just started and
has watched nobody: a row that shows up later was claimed since the scan before, so it cannot be old.

Of several nodes one takes a step back: the first by rendezvous hashing over those that are alive, its owner left out.
The next in the order waits for a turn and then acts too, and so on, so that a first one that stands still only delays::

    expirable since t ──▶ first at t ──▶ second at t + 2 s ──▶ third at t + 4 s ──▶ who is not in the order: last

An Expire is a wish. The store carries it out only if token, lease epoch, updated_at_ms and RUNNING still stand; if not,
nobody is harmed and the next scan shows what happened. Until then every further scan repeats it.
See docs/decisions/leases-and-the-monotonic-judge.md and docs/decisions/one-reclaimer.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from heapq import nsmallest
from typing import Final

from relaymesh.core.mesh.placement import ranked

__all__ = [
    "JUDGE_PATIENCE_PERCENT",
    "OWN_YOUNG_MS",
    "ROWS_MAX",
    "TURN_MS",
    "Cause",
    "Expire",
    "Reclaim",
    "RunningRow",
    "Scanned",
]

JUDGE_PATIENCE_PERCENT: Final = 103
"""A judge waits this share of the lease timeout: clocks whose rates differ by 1 % need 102.02 %."""

ROWS_MAX: Final = 10_000
"""Rows watched at a time; of more, the ones that were silent longest."""

OWN_YOUNG_MS: Final = 2_000
"""How long a lease of its own node is none of a judge's business: two rounds, and a renewal takes no longer."""

TURN_MS: Final = 2_000
"""How long the next node waits for the one before it: two rounds of maintenance, so that both have looked."""

_NS_PER_MS: Final = 1_000_000
_OLD_BY_WALL: Final = -(1 << 62)
_Key = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A RUNNING step, as a scan read it. ``updated_at_ms`` is its last heartbeat, in wall time.

    step_id: by what its reclaimer is chosen, the same on every node.
    """

    row_id: int
    token: str
    updated_at_ms: int
    owner: str
    lease_epoch: int
    step_id: str = ""


@dataclass(frozen=True, slots=True)
class Scanned:
    """One scan of all RUNNING rows (or of the ``ROWS_MAX`` with the oldest ``updated_at_ms``).

    Rows of the judge's own node that were written within OWN_YOUNG_MS may be left out: their watch begins later.

    asked_at_ns: monotonic time before the rows were read.
    wall_ms: wall time of the clock guard's reading of this scan; None when the guard doubts the wall clock.
    dead_owners: node ids that membership holds dead.
    reclaimers: the nodes that are alive and take steps back; empty: nobody else does.
    """

    rows: Sequence[RunningRow]
    asked_at_ns: int
    wall_ms: int | None
    dead_owners: frozenset[str] = frozenset()
    reclaimers: frozenset[str] = frozenset()


class Cause(Enum):
    """Why a lease is over."""

    DEAD_OWNER = "dead_owner"
    SILENT = "silent"
    """Not renewed for a lease and a bit, by our monotonic clock."""
    WALL = "wall"
    """Not renewed for a lease, by the wall clock, at the first look."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Take the step from its owner, if the row still is what the scan saw."""

    row: RunningRow
    cause: Cause


class Reclaim:
    """The judge of one process.

    lease_timeout_ms: equal on every node of a root.
    expire_max: rows to expire per scan and kind (dead owners, others), oldest first; the rest comes with the next scan.
    node_id: whose judge it is; "" is nobody's, who waits for no turn.

    Raises ValueError when a number is below 1.
    """

    def __init__(
        self, *, lease_timeout_ms: int, expire_max: int = 32, rows_max: int = ROWS_MAX, node_id: str = ""
    ) -> None:
        if rows_max < 1:
            raise ValueError("rows_max must be at least 1")
        self.change(lease_timeout_ms=lease_timeout_ms, expire_max=expire_max)
        self._rows_max = rows_max
        self._node_id = node_id
        self._since_ns: dict[_Key, int] = {}
        # Of rows that may be taken: since when, and how many turns are ours to wait.
        self._due: dict[_Key, tuple[int, int]] = {}
        self._reclaimers: frozenset[str] = frozenset()
        self._has_scanned = False
        self.due_ns: int | None = None
        """When a scan that shows no change would let the next row expire; None while nothing is watched. It is there so
        that a scan can be asked for at that instant, and an expiry need not wait for the next round."""

    def change(self, *, lease_timeout_ms: int, expire_max: int) -> None:
        """Judge by these from the next scan on; what is being watched stays watched.

        Raises ValueError when a number is below 1; nothing is changed then.
        """
        if min(lease_timeout_ms, expire_max) < 1:
            raise ValueError("lease_timeout_ms and expire_max must be at least 1")
        self._lease_ms = lease_timeout_ms
        self._patience_ns = lease_timeout_ms * _NS_PER_MS * JUDGE_PATIENCE_PERCENT // 100
        self._expire_max = expire_max

    def handle(self, now_ns: int, event: Scanned) -> list[Expire]:
        """Take one scan, received now; return what to expire, oldest first."""
        rows = nsmallest(self._rows_max, event.rows, key=_age_order)
        wall_ms = None if self._has_scanned else event.wall_ms
        self._has_scanned = True
        since_ns: dict[_Key, int] = {}
        due: dict[_Key, tuple[int, int]] = {}
        dead: list[Expire] = []
        expired: list[Expire] = []
        self.due_ns = None
        for row in rows:
            key = (row.row_id, row.token, row.updated_at_ms)
            old_by_wall = wall_ms is not None and wall_ms - row.updated_at_ms >= self._lease_ms
            since_ns[key] = since = _OLD_BY_WALL if old_by_wall else self._since_ns.get(key, now_ns)
            if row.owner in event.dead_owners:
                wish = Expire(row, Cause.DEAD_OWNER)
            elif since == _OLD_BY_WALL:
                wish = Expire(row, Cause.WALL)
            elif event.asked_at_ns - since >= self._patience_ns:
                wish = Expire(row, Cause.SILENT)
            else:
                self._note_due(since + self._patience_ns)
                continue
            if self._is_our_turn(now_ns, key, row, event.reclaimers, due):
                (dead if wish.cause is Cause.DEAD_OWNER else expired).append(wish)
        # Rows that ended, or fell out of the cap, are forgotten: their watch would start anew.
        self._since_ns, self._due, self._reclaimers = since_ns, due, event.reclaimers
        return [*dead[: self._expire_max], *expired[: self._expire_max]]

    def _is_our_turn(
        self, now_ns: int, key: _Key, row: RunningRow, reclaimers: frozenset[str], due: dict[_Key, tuple[int, int]]
    ) -> bool:
        if not self._node_id or not reclaimers:
            return True
        since_ns, turn = self._due.get(key, (now_ns, -1))
        if turn < 0 or reclaimers != self._reclaimers:
            # Its owner is as good as gone, whatever the table still says.
            order = ranked(row.step_id, reclaimers - {row.owner})
            turn = order.index(self._node_id) if self._node_id in order else len(order)
        due[key] = (since_ns, turn)
        ours_ns = since_ns + turn * TURN_MS * _NS_PER_MS
        if now_ns < ours_ns:
            self._note_due(ours_ns)
        return now_ns >= ours_ns

    def _note_due(self, at_ns: int) -> None:
        if self.due_ns is None or at_ns < self.due_ns:
            self.due_ns = at_ns


def _age_order(row: RunningRow) -> tuple[int, int]:
    return row.updated_at_ms, row.row_id
