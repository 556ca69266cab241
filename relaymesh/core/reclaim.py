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

An Expire is a wish. The store carries it out only if token, lease epoch, updated_at_ms and RUNNING still stand; if not,
nobody is harmed and the next scan shows what happened. Until then every further scan repeats it.
See docs/decisions/leases-and-the-monotonic-judge.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from heapq import nsmallest
from typing import Final

__all__ = ["JUDGE_PATIENCE_PERCENT", "ROWS_MAX", "Cause", "Expire", "Reclaim", "RunningRow", "Scanned"]

JUDGE_PATIENCE_PERCENT: Final = 103
"""A judge waits this share of the lease timeout: clocks whose rates differ by 1 % need 102.02 %."""

ROWS_MAX: Final = 10_000
"""Rows watched at a time; of more, the ones that were silent longest."""

_NS_PER_MS: Final = 1_000_000
_OLD_BY_WALL: Final = -(1 << 62)


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A RUNNING step, as a scan read it. ``updated_at_ms`` is its last heartbeat, in wall time."""

    row_id: int
    token: str
    updated_at_ms: int
    owner: str
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class Scanned:
    """One scan of all RUNNING rows (or of the ``ROWS_MAX`` with the oldest ``updated_at_ms``).

    asked_at_ns: monotonic time before the rows were read.
    wall_ms: wall time of the clock guard's reading of this scan; None when the guard doubts the wall clock.
    dead_owners: node ids that membership holds dead.
    """

    rows: Sequence[RunningRow]
    asked_at_ns: int
    wall_ms: int | None
    dead_owners: frozenset[str] = frozenset()


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

    Raises ValueError when a number is below 1.
    """

    def __init__(self, *, lease_timeout_ms: int, expire_max: int = 32, rows_max: int = ROWS_MAX) -> None:
        if rows_max < 1:
            raise ValueError("rows_max must be at least 1")
        self.change(lease_timeout_ms=lease_timeout_ms, expire_max=expire_max)
        self._rows_max = rows_max
        self._since_ns: dict[tuple[int, str, int], int] = {}
        self._has_scanned = False

    def change(self, *, lease_timeout_ms: int, expire_max: int) -> None:
        """Judge by these from the next scan on; what is being watched stays watched.

        Raises ValueError when a number is below 1; nothing is changed then.
        """
        if min(lease_timeout_ms, expire_max) < 1:
            raise ValueError("lease_timeout_ms and expire_max must be at least 1")
        self._lease_ms = lease_timeout_ms
        self._patience_ns = lease_timeout_ms * _NS_PER_MS * JUDGE_PATIENCE_PERCENT // 100
        self._expire_max = expire_max

    @property
    def watched(self) -> int:
        """How many rows are being watched."""
        return len(self._since_ns)

    def handle(self, now_ns: int, event: Scanned) -> list[Expire]:
        """Take one scan, received now; return what to expire, oldest first."""
        rows = nsmallest(self._rows_max, event.rows, key=_age_order)
        wall_ms = None if self._has_scanned else event.wall_ms
        self._has_scanned = True
        since_ns: dict[tuple[int, str, int], int] = {}
        dead: list[Expire] = []
        expired: list[Expire] = []
        for row in rows:
            key = (row.row_id, row.token, row.updated_at_ms)
            old_by_wall = wall_ms is not None and wall_ms - row.updated_at_ms >= self._lease_ms
            since_ns[key] = since = _OLD_BY_WALL if old_by_wall else self._since_ns.get(key, now_ns)
            if row.owner in event.dead_owners:
                dead.append(Expire(row, Cause.DEAD_OWNER))
            elif since == _OLD_BY_WALL:
                expired.append(Expire(row, Cause.WALL))
            elif event.asked_at_ns - since >= self._patience_ns:
                expired.append(Expire(row, Cause.SILENT))
        # Rows that ended, or fell out of the cap, are forgotten: their watch would start anew.
        self._since_ns = since_ns
        return [*dead[: self._expire_max], *expired[: self._expire_max]]


def _age_order(row: RunningRow) -> tuple[int, int]:
    return row.updated_at_ms, row.row_id
