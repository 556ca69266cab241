"""blocked: what a claim costs while nearly all that is ready waits behind keys that are used up.

Two stores take turns: a thousand keys of which one step may run at a time, each of them running, with few and with many
steps behind each. A turn ends 64 of the running steps and claims the 64 that follow them.
"""

from __future__ import annotations

import gc
import random
import time
from pathlib import Path
from typing import Any

from bench.agent import ECHO
from bench.backlog import now_ms, open_store
from bench.figure import budget, quantiles, rounded
from bench.node import BenchError
from bench.place import new_root
from bench.setting import settings
from relaymesh.client import default_key
from relaymesh.core.fairness import Fairness
from relaymesh.core.ident import Ids
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.claim import ClaimedRow, Slots
from relaymesh.store.draft import draft_task
from relaymesh.store.store import Store
from relaymesh.wire.store import FinishedStep
from relaymesh.wire.work import StepReport

__all__ = ["run"]

KEYS = 1_000
ENDED = 64
FEW = 4
RATIO_MAX = 1.2
WARM_UP = 5
_BATCH = 2_000


def run(folder: Path, *, behind: int, turns: int, durability: str) -> dict[str, Any]:
    """Return the figures of so many turns of each store, with so many steps behind each key in one of them."""
    stores = {
        "few": _Blocked(open_store(new_root(folder, durability), durability), FEW),
        "many": _Blocked(open_store(new_root(folder, durability), durability), behind),
    }
    for number in range(WARM_UP + turns):
        if number == WARM_UP:
            for one in stores.values():
                one.samples.clear()
            gc.collect()
        for name in sorted(stores, reverse=bool(number % 2)):
            stores[name].turn()
    figures = {name: quantiles(one.samples) for name, one in stores.items()}
    for one in stores.values():
        one.store.close()
    ratio = rounded(figures["many"]["p50_ms"] / figures["few"]["p50_ms"])
    return {
        "benchmark": "blocked",
        "claim": figures,
        "ratio": ratio,
        "budget": budget("claim behind used up keys, p50, many over few", ratio, "at_most", RATIO_MAX),
        "settings": settings(
            folder, durability, keys=KEYS, steps_of_a_key={"few": FEW, "many": behind}, claim=ENDED, turns=turns
        ),
    }


class _Blocked:
    """One store whose keys all have a running step, and what its claims took, in ns."""

    def __init__(self, store: Store, behind: int) -> None:
        self.store = store
        self.samples: list[int] = []
        self._ids = Ids(now_ms, random.Random())
        self._policy = RetryPolicy()
        self._number = 0
        for start in range(0, KEYS * behind, _BATCH):
            self._submit(f"key-{number % KEYS}" for number in range(start, min(start + _BATCH, KEYS * behind)))
        self._running = self._claim(KEYS)

    def turn(self) -> None:
        """End some, put as many behind their keys, and claim those that follow."""
        ended, self._running = self._running[:ENDED], self._running[ENDED:]
        at_ms = now_ms()
        steps = [
            FinishedStep(
                row.lease,
                StepReport(
                    row.lease.row_id,
                    row.lease.lease_token,
                    "succeeded",
                    output="",
                    started_at_ms=at_ms,
                    finished_at_ms=at_ms,
                ),
                "bench",
            )
            for row in ended
        ]
        with self.store.write():
            self.store.finish(steps, node_id="bench", spilled={}, policy_of=lambda _: self._policy, now_ms=at_ms)
        self._submit(str(row.payload).partition(" ")[0] for row in ended)
        self._running += self._claim(ENDED)

    def _submit(self, keys: Any) -> None:
        drafts = []
        for key in keys:
            self._number += 1
            payload = f"{key} {self._number}"
            drafts.append(
                draft_task(
                    self._ids,
                    self.store.payloads,
                    ECHO,
                    payload,
                    priority="NORMAL",
                    key=default_key(ECHO, payload),
                    concurrency_key=key,
                )
            )
        with self.store.write():
            self.store.submit(drafts, now_ms=now_ms())

    def _claim(self, count: int) -> list[ClaimedRow]:
        # Slots for more than there is room, as on a node that has other work to do.
        slots = Slots(pools={ECHO: "inline"}, free={"inline": 2 * count}, room={}, limits={}, limit=2 * count)
        with self.store.write():
            began = time.perf_counter_ns()
            claim = self.store.claim(
                slots, Fairness(), node_id="bench", generation=1, token=f"{self._ids.lease()}.", now_ms=now_ms()
            )
            self.samples.append(time.perf_counter_ns() - began)
        if len(claim.rows) != count:
            raise BenchError(f"{len(claim.rows)} steps were claimed where {count} keys had room")
        return list(claim.rows)
