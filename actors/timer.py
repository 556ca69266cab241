"""Messages that come later: one thread and one heap for all timers of a node.

    after, every ──▶ heap, ordered by due time ──▶ thread sleeps until the first is due ──▶ address

A timer belongs to an address, not to an incarnation of its actor, and is told apart by its key: setting it again
replaces it, so an actor that sets its timers in ``started`` has each of them once, however often it is restarted. What
a timer brings may be late, and may come after it was replaced if it was in the mailbox by then: messages carry a
version where that matters.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from relaymesh.core.look import next_due_ns
from relaymesh.errors import ActorError
from relaymesh.wire.codec import Message, encode

__all__ = ["TIMERS_MAX", "Target", "Timer", "TimerHeap", "TimerService", "Timers", "TooManyTimersError"]

log = logging.getLogger("relaymesh.actors")

# One timer takes about half a KiB.
TIMERS_MAX = 100_000
# A one-shot message that finds the mailbox full is tried again, since an actor may be waiting for nothing else.
FULL_MAILBOX_RETRY_NS = 20_000_000


class TooManyTimersError(ActorError):
    """The timer service is full."""

    code = "too_many_timers"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.limit} timers are set, which is the limit: cancel some, or use one timer for many deadlines"


class Target(Protocol):
    """What a timer needs of an address."""

    @property
    def name(self) -> str: ...
    @property
    def closed(self) -> bool: ...
    def offer_bytes(self, data: bytes) -> bool: ...


@dataclass(slots=True, eq=False)
class Timer:
    """One timer that was set. period_ns is 0 for a one-shot."""

    target: Target
    key: str
    data: bytes
    due_ns: int
    period_ns: int
    live: bool = True
    _heap: TimerHeap | None = field(default=None, repr=False)

    def cancel(self) -> bool:
        """Forget it; return False when it had fired, or was cancelled or replaced before. Callable from any thread."""
        return self._heap is not None and self._heap.cancel(self)


class Timers(Protocol):
    """What actors ask of the timer service."""

    def now_ns(self) -> int:
        """The clock that timers run on (monotonic)."""
        ...

    def after(self, delay_ns: int, target: Target, message: Message, *, key: str) -> Timer:
        """Send ``message`` once, ``delay_ns`` from now. Replaces this target's timer of the same key.

        Raises:
            TooManyTimersError: TIMERS_MAX are set.
        """
        ...

    def every(self, period_ns: int, target: Target, message: Message, *, key: str) -> Timer:
        """Send ``message`` each ``period_ns``, the first within one period. Raises and replaces as ``after``.

        Due times are whole periods of the clock: delays do not add up, and timers whose periods divide each other come
        in one wake-up of the thread, which costs more than all they do. Periods that were missed are skipped, not made
        up for. A tick that finds the mailbox full is skipped.
        """
        ...

    def cancel(self, target: Target, key: str) -> bool:
        """Forget this target's timer of this key; return whether there was one."""
        ...


class TimerHeap:
    """The timers in order of due time; thread-safe, waits for nothing."""

    def __init__(self, limit: int = TIMERS_MAX) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._heap: list[tuple[int, int, Timer]] = []
        self._by_key: dict[tuple[Target, str], Timer] = {}
        self._serial = 0  # keeps timers of one instant in the order in which they were set

    def __len__(self) -> int:
        return len(self._by_key)

    def set(self, target: Target, key: str, data: bytes, due_ns: int, period_ns: int) -> tuple[Timer, bool]:
        """Set a timer; return it, and whether it is the next one due."""
        timer = Timer(target, key, data, due_ns, period_ns, _heap=self)
        with self._lock:
            former = self._by_key.get((target, key))
            if former is not None:
                former.live = False
            elif len(self._by_key) >= self._limit:
                raise TooManyTimersError(self._limit)
            self._by_key[target, key] = timer
            self._push(timer)
            return timer, self._heap[0][2] is timer

    def cancel(self, timer: Timer) -> bool:
        with self._lock:
            return self._forget(timer)

    def cancel_key(self, target: Target, key: str) -> bool:
        with self._lock:
            timer = self._by_key.get((target, key))
            return timer is not None and self._forget(timer)

    def next_due_ns(self) -> int | None:
        """Return when the next timer is due, None when there is none."""
        with self._lock:
            while self._heap and not self._heap[0][2].live:
                heapq.heappop(self._heap)
            return self._heap[0][0] if self._heap else None

    def fire(self, now_ns: int) -> int:
        """Send what is due, in order of due time; return how many were sent."""
        sent = 0
        for timer in self._take_due(now_ns):
            try:
                taken = timer.target.offer_bytes(timer.data)
            except Exception:
                # One target must not cost all the others their timers.
                log.exception("timer: the message for %s could not be sent", timer.target.name)
                continue
            if taken:
                sent += 1
            elif not timer.period_ns and not timer.target.closed:
                self._try_again(timer, now_ns)
        return sent

    def _take_due(self, now_ns: int) -> list[Timer]:
        due: list[Timer] = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now_ns:
                timer = heapq.heappop(self._heap)[2]
                if not timer.live:
                    continue
                due.append(timer)
                if timer.period_ns and not timer.target.closed:
                    timer.due_ns = next_due_ns(now_ns, timer.period_ns, since_ns=timer.due_ns)
                    self._push(timer)
                else:
                    self._forget(timer)
        return due

    def _try_again(self, timer: Timer, now_ns: int) -> None:
        with self._lock:
            if (timer.target, timer.key) not in self._by_key:  # else it was set anew meanwhile
                timer.live, timer.due_ns = True, now_ns + FULL_MAILBOX_RETRY_NS
                self._by_key[timer.target, timer.key] = timer
                self._push(timer)

    def _push(self, timer: Timer) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (timer.due_ns, self._serial, timer))
        # Cancelled timers stay in the heap until they come up; this bounds how many.
        if len(self._heap) > 2 * len(self._by_key) + 64:
            self._heap = [entry for entry in self._heap if entry[2].live]
            heapq.heapify(self._heap)

    def _forget(self, timer: Timer) -> bool:
        if not timer.live:
            return False
        timer.live = False
        del self._by_key[timer.target, timer.key]
        return True


class TimerService:
    """The thread behind ``Timers``. It starts with the first timer and costs nothing while none is due.

    clock: nanoseconds that only grow; for tests of the thread itself. Tests of actors use a manual one instead.
    """

    def __init__(self, *, clock: Callable[[], int] = time.monotonic_ns, limit: int = TIMERS_MAX) -> None:
        self.now_ns = clock
        self._heap = TimerHeap(limit)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._heap)

    def after(self, delay_ns: int, target: Target, message: Message, *, key: str) -> Timer:
        return self._set(target, message, key, self.now_ns() + max(0, delay_ns), 0)

    def every(self, period_ns: int, target: Target, message: Message, *, key: str) -> Timer:
        if period_ns <= 0:
            raise ValueError(f"a period must be positive, not {period_ns} ns")
        return self._set(target, message, key, next_due_ns(self.now_ns(), period_ns), period_ns)

    def cancel(self, target: Target, key: str) -> bool:
        return self._heap.cancel_key(target, key)

    def stop(self, timeout_s: float = 1.0) -> None:
        """Send nothing more; return when the thread is over."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _set(self, target: Target, message: Message, key: str, due_ns: int, period_ns: int) -> Timer:
        timer, first = self._heap.set(target, key, encode(message), due_ns, period_ns)
        if first or self._thread is None or not self._thread.is_alive():
            with self._changed:
                self._run_thread()
                self._changed.notify()
        return timer

    def _run_thread(self) -> None:
        """Start the thread at the first timer, and again should it ever have died."""
        if not self._stopped and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._loop, name="timer", daemon=True)
            self._thread.start()

    def _loop(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                due_ns = self._heap.next_due_ns()
                wait_ns = None if due_ns is None else due_ns - self.now_ns()
                if wait_ns is None or wait_ns > 0:
                    self._changed.wait(None if wait_ns is None else min(wait_ns / 1e9, threading.TIMEOUT_MAX))
                    continue
            self._heap.fire(self.now_ns())
