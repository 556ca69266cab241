"""What one worker process has been given and not yet answered. Pure bookkeeping for whoever supervises it.

A worker runs its orders in the order in which it got them, so the first that is neither reported nor revoked is the one
that runs, or ran a few milliseconds ago. Its time counts from when it became the first, or from ``StepStarted``, which
is nearer to the truth.

    head since t ──▶ t + timeout: the worker asks it to end ──▶ + grace: the worker kills a script
                                                            ──▶ + KILL_MARGIN_MS: kill the worker
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relaymesh.wire.work import StepOrder

__all__ = ["KILL_MARGIN_MS", "Backlog"]

KILL_MARGIN_MS: Final = 1_000
"""How much longer than the grace time a worker has before it is killed, so that it can end a script by itself."""


class Backlog:
    """Orders of one worker process, oldest first. Times are monotonic milliseconds, given by the caller."""

    def __init__(self) -> None:
        self._orders: dict[int, StepOrder] = {}
        self._kill_after_ms: dict[int, int] = {}
        self._head: int | None = None
        self._head_since_ms = 0
        self._cancelled_at_ms: int | None = None

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, row_id: int) -> bool:
        return row_id in self._orders

    @property
    def head(self) -> StepOrder | None:
        """The order that runs, or is about to."""
        return None if self._head is None else self._orders[self._head]

    @property
    def waiting(self) -> tuple[StepOrder, ...]:
        """The orders that have not begun, as far as we know."""
        return tuple(order for row_id, order in self._orders.items() if row_id != self._head)

    def sent(self, orders: Iterable[tuple[StepOrder, int]], now_ms: int) -> None:
        """Note what was sent; with each order the grace time of its agent."""
        for order, grace_ms in orders:
            self._orders[order.row_id] = order
            self._kill_after_ms[order.row_id] = grace_ms + KILL_MARGIN_MS
        self._find_head(now_ms)

    def started(self, row_id: int, lease_token: str, started_at_ms: int) -> None:
        """Take a ``StepStarted``: the time of the head counts from here."""
        order = self._orders.get(row_id)
        if order is not None and order.lease_token == lease_token and row_id == self._head:
            self._head_since_ms = started_at_ms

    def cancelled(self, row_id: int, now_ms: int) -> None:
        """Note that the head was told to end; others are revoked by the worker and need no deadline."""
        if row_id == self._head and self._cancelled_at_ms is None:
            self._cancelled_at_ms = now_ms

    def done(self, row_ids: Iterable[int], now_ms: int) -> list[StepOrder]:
        """Take reported or revoked rows; return the orders that were still open, in the given order."""
        gone = []
        for row_id in row_ids:
            order = self._orders.pop(row_id, None)
            if order is not None:
                del self._kill_after_ms[row_id]
                gone.append(order)
        self._find_head(now_ms)
        return gone

    def kill_at_ms(self) -> int | None:
        """Return when the worker must be killed unless it answers; None when nothing runs."""
        if self._head is None:
            return None
        after_ms = self._kill_after_ms[self._head]
        at_ms = self._head_since_ms + self._orders[self._head].timeout_ms + after_ms
        return at_ms if self._cancelled_at_ms is None else min(at_ms, self._cancelled_at_ms + after_ms)

    def lost(self, running_row_id: int | None) -> tuple[StepOrder | None, tuple[StepOrder, ...]]:
        """The worker is gone: return the step that died with it, if any ran, and all others that were not answered.

        running_row_id: what ``WorkerExited`` says. The others have not begun, or their reports are lost.
        """
        culprit = self._orders.pop(running_row_id, None) if running_row_id is not None else None
        others = tuple(self._orders.values())
        self._orders.clear()
        self._kill_after_ms.clear()
        self._head = self._cancelled_at_ms = None
        return culprit, others

    def _find_head(self, now_ms: int) -> None:
        head = next(iter(self._orders), None)
        if head != self._head:
            self._head, self._head_since_ms, self._cancelled_at_ms = head, now_ms, None
