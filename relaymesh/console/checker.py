"""The thread that looks at what a status does not: slower than the screen is drawn, and never in its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from relaymesh.errors import RelayMeshError
from relaymesh.status_view import StatusChecks

__all__ = ["EVERY_S", "Checker"]

EVERY_S: Final = 10.0
"""From the begin of one look to the next."""


class Checker:
    """One look at a time, in a thread that is a daemon: a disk may not answer."""

    def __init__(self) -> None:
        self._look: Callable[[], StatusChecks] | None = None
        self._wanted = threading.Event()
        self._over = False
        self._next_at_s = 0.0
        self._found: StatusChecks | None = None
        self._thread: threading.Thread | None = None

    def latest(self, look: Callable[[], StatusChecks]) -> StatusChecks | None:
        """Return what was found last, None before the first; returns at once, and has a new look begun in its time.

        look: called in the thread of this, beside whatever else its owner does.
        """
        now_s = time.monotonic()
        if now_s >= self._next_at_s and not self._wanted.is_set():
            self._next_at_s, self._look = now_s + EVERY_S, look
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="console-checks", daemon=True)
                self._thread.start()
        return self._found

    def forget(self) -> None:
        """What was found is about another root: look anew."""
        self._found, self._next_at_s = None, 0.0

    def close(self) -> None:
        """Look no more; a look that is under way ends by itself."""
        self._over = True
        self._wanted.set()

    def _work(self) -> None:
        while self._wanted.wait() and not self._over:
            assert self._look is not None
            try:
                self._found = self._look()
            except Exception as error:
                # The home of what goes wrong in this thread, as in the asker's: it becomes a sentence on the screen.
                cause = str(error) if isinstance(error, RelayMeshError) else f"{type(error).__name__}: {error}"
                self._found = StatusChecks(time.time_ns() // 1_000_000, (f"nothing can be checked: {cause}",), ())
            self._wanted.clear()
