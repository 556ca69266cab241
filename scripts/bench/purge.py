"""Retention beside claims: what the removal of old tasks costs a store that works, and how long it holds the writer.

A thread removes what has expired, piece by piece as ``relaymesh purge`` and the node's RetentionActor do, on a
connection of its own, while the turns of ``backlog`` go on on another.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import backlog
from bench.figure import quantiles, rounded
from bench.node import BenchError
from relaymesh.core.retention import Ages
from relaymesh.store.cleanup import run_pieces
from relaymesh.store.connection import Durability, write_transaction
from relaymesh.store.purge import Purge
from relaymesh.store.store import Store

__all__ = ["HOLD_MS_MAX", "beside_claims"]

HOLD_MS_MAX = 50.0
SECONDS_MAX = 40.0
"""A purge beside claims ends after that: what it has done by then is the figure."""
# Between two turns of claims: a node that is busy half of the time.
_PAUSE_S = 0.02


class _EnoughError(Exception):
    """The time is over."""


class _Timed(Store):
    """A store that notes how long each of its transactions kept all other writers out, in ns, commit included."""

    holds: list[int]

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        self.transactions += 1
        began = 0
        with write_transaction(self.conn, self.path):
            began = time.perf_counter_ns()
            yield
        self.holds.append(time.perf_counter_ns() - began)


class _Purger(threading.Thread):
    """Removes what changed last before an instant, keys first."""

    def __init__(self, root: Path, before_ms: int, durability: str) -> None:
        super().__init__(name="purge", daemon=True)
        self._root, self._before_ms, self._durability = root, before_ms, durability
        self.holds: list[int] = []
        self.tasks = self.keys = 0
        self.seconds = 0.0
        self.error: Exception | None = None

    def run(self) -> None:
        at = self._before_ms
        try:
            store = _Timed.open(self._root, now_ms=backlog.now_ms(), durability=Durability(self._durability))
            store.holds = self.holds
            work = Purge(store, Ages(done_before_ms=at, dead_before_ms=at, keys_before_ms=at), now_ms=backlog.now_ms)
            began = time.perf_counter()

            def sleep(seconds: float) -> None:
                time.sleep(seconds)
                if time.perf_counter() - began > SECONDS_MAX:
                    raise _EnoughError

            with contextlib.suppress(_EnoughError):
                run_pieces(work, sleep)
            self.keys = work.purged.keys
            self.seconds, self.tasks = time.perf_counter() - began, work.purged.tasks
            store.close()
        except Exception as error:
            self.error = error  # told by who waits for the thread


def beside_claims(root: Path, *, rows: int, turns: int, durability: str) -> dict[str, Any]:
    """Remove about so many of the oldest tasks of a root while claims go on; return the figures, and those of before.

    turns: claims before the purge; beside it there are as many as it lasts.

    Raises:
        BenchError: the purge failed, or removed nothing.
    """
    store = backlog.open_store(root, durability)
    one = backlog.Turns(store)
    for _ in range(turns):
        one.turn()
    before = {what: quantiles(one.samples[what]) for what in ("claim", "claim_with_commit")}
    one.samples.clear()
    ((before_ms,),) = store.conn.execute(
        "SELECT updated_at_ms FROM tasks ORDER BY updated_at_ms LIMIT 1 OFFSET ?", (rows,)
    ).fetchall()
    purger = _Purger(root, before_ms, durability)
    purger.start()
    while purger.is_alive():
        one.turn()
        time.sleep(_PAUSE_S)
    store.close()
    if purger.error is not None or not purger.tasks + purger.keys:
        raise BenchError(f"the purge let go of {purger.keys} keys: {purger.error}")
    return {
        "tasks": purger.tasks,
        "seconds": rounded(purger.seconds),
        "keys": purger.keys,
        "tasks_and_keys_per_s": rounded((purger.tasks + purger.keys) / purger.seconds),
        "writer_held": quantiles(purger.holds),
        "before": before,
        "beside": {what: quantiles(one.samples[what]) for what in ("claim", "claim_with_commit")},
    }
