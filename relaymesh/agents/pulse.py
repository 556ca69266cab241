"""One timer thread that looks after running attempts, and sleeps while there are none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Pulse"]


class Pulse:
    """Calls ``tick(now_ns)`` whenever it is due; ``tick`` returns when to call again (monotonic ns), or None.

    A tick that is due within ``BUSY_NS`` need not be poked: those who start quick steps only look at ``asleep``, which
    costs nothing, and wake the thread once for a burst instead of once for a step.
    """

    BUSY_NS = 6_000_000

    def __init__(self, tick: Callable[[int], int | None], *, name: str) -> None:
        self._tick = tick
        self._event = threading.Event()
        self._stopped = False
        self.asleep = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poke(self) -> None:
        """There is something new to look after: tick now."""
        self.asleep = False
        self._event.set()

    def stop(self) -> None:
        self._stopped = True
        self.poke()

    def _run(self) -> None:
        while not self._stopped:
            # In this order: what comes before the tick is seen by it, what comes after finds us asleep and pokes.
            self._event.clear()
            self.asleep = True
            now_ns = time.monotonic_ns()
            due_ns = self._tick(now_ns)
            if due_ns is not None and due_ns - now_ns <= self.BUSY_NS:
                self.asleep = False
            if not self._stopped:
                self._event.wait(None if due_ns is None else max(0.0, (due_ns - time.monotonic_ns()) / 1e9))
