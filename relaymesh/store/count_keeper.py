"""Keep a root with very much that is open or did not succeed counted, in the background (``count_cache``).

Of several nodes on a root one counts at a time; the others find its count fresh.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from relaymesh.core.retention import pause_ns
from relaymesh.file_lock import Hold, holding
from relaymesh.store.count_cache import age_ms_max, is_large, keep_counts, kept_counts
from relaymesh.store.database import Database
from relaymesh.store.recount import Recount, waiting

__all__ = ["GUARD", "CountKeeper"]

GUARD: Final = "counts.guard"
_PAUSES: Final = 4
"""How often as long as a piece took nothing is counted: a fifth of a processor while it lasts."""


class CountKeeper:
    """What one node does about it. Not thread-safe."""

    def __init__(self, reads: Database) -> None:
        self._reads = reads
        self._count: Recount | None = None
        self._held = ExitStack()

    @property
    def counts(self) -> bool:
        """Whether a count has begun and is not over."""
        return self._count is not None

    def begin(self, now_ms: int) -> bool:
        """Begin to count if it is time to; return whether."""
        reads = self._reads
        with reads.reading():
            if self._count is not None or not is_large(reads.conn):
                return False
        kept = kept_counts(reads.path, now_ms)
        if kept is not None and now_ms - kept.at_ms <= age_ms_max(kept.took_ms):
            return False
        if not self._held.enter_context(holding(reads.root / "run" / GUARD, Hold.EXCLUSIVE)):
            self._held.close()
            return False
        self._count = Recount(reads.conn)
        return True

    def piece(self, now_ms: int) -> int | None:
        """Count some; return how long to leave it, in ns; None when it is over: what was counted is written down."""
        count = self._count
        assert count is not None, "the caller asks whether one has begun"
        before_ns = count.took_ns
        try:
            with self._reads.reading():
                more = count.piece()
                if not more:
                    # As of the end: what the pieces found first is the oldest of it.
                    keep_counts(self._reads.path, count.counts(now_ms, lanes=waiting(self._reads.conn, -1)))
        except BaseException:
            self.stop()
            raise
        if not more:
            self.stop()
            return None
        return _PAUSES * pause_ns(count.took_ns - before_ns)

    def stop(self) -> None:
        """Leave off."""
        self._count = None
        self._held.close()
