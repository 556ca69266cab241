"""backlog: what a claim costs in a store full of finished and delayed tasks, against an empty one.

Both stores are open at the same time and take turns, so that whatever else the machine does meets both. In each turn 64
tasks are submitted (not timed), then claimed and finished; the cost of the statements is told apart from that of the
commit, which is the disk's.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.agent import ECHO
from bench.figure import budget, quantiles, rounded
from bench.fill import RESULT_CHARS, fill
from bench.node import BenchError
from bench.place import new_root
from bench.setting import settings
from relaymesh.client import default_key
from relaymesh.core.fairness import Fairness
from relaymesh.core.ident import Ids
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.claim import Slots
from relaymesh.store.connection import Durability
from relaymesh.store.draft import draft_task
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from relaymesh.wire.store import FinishedStep
from relaymesh.wire.work import StepReport

__all__ = ["CLAIM", "WARM_UP", "Turns", "in_turns", "now_ms", "open_store", "progress", "run"]

CLAIM = 64
RATIO_MAX = 1.2
WARM_UP = 20
MIB = 1024 * 1024


def run(folder: Path, *, finished: int, delayed: int, turns: int, durability: str = "full") -> dict[str, Any]:
    """Return the figures of so many turns of each store."""
    filled_root = new_root(folder, durability)
    open_store(filled_root, durability).close()
    started = time.monotonic()
    fill(filled_root / DATABASE, finished=finished, delayed=delayed, now_ms=now_ms(), progress=progress)
    fill_s = time.monotonic() - started
    sizes = {"finished": finished, "delayed": delayed, "database_mib": rounded(_size(filled_root) / MIB)}
    compared = in_turns(filled_root, new_root(folder, durability), turns=turns, durability=durability)
    ratios = compared["filled_over_empty"]
    return {
        "benchmark": "backlog",
        **compared,
        "budget": budget("claim of 64, p50, filled over empty", ratios["claim"]["p50"], "at_most", RATIO_MAX),
        "settings": settings(
            folder,
            durability,
            **sizes,
            fill_s=rounded(fill_s),
            result_chars=RESULT_CHARS,
            claim=CLAIM,
            turns=turns,
            warm_up_turns=WARM_UP,
        ),
    }


def in_turns(filled: Path, empty: Path, *, turns: int, durability: str) -> dict[str, Any]:
    """Return what so many turns of each of two roots took, and the ratios."""
    bench = {
        "empty": Turns(open_store(empty, durability)),
        "filled": Turns(open_store(filled, durability)),
    }
    for one in bench.values():
        for _ in range(WARM_UP):
            one.turn()
        one.samples.clear()
    gc.collect()
    for number in range(turns):
        for name in ("empty", "filled") if number % 2 else ("filled", "empty"):
            bench[name].turn()
    figures = {name: {what: quantiles(values) for what, values in one.samples.items()} for name, one in bench.items()}
    for one in bench.values():
        one.store.close()
    ratios = {
        what: {
            rank: rounded(figures["filled"][what][f"{rank}_ms"] / max(figures["empty"][what][f"{rank}_ms"], 1e-6))
            for rank in ("p50", "p99")
        }
        for what in figures["empty"]
    }
    return {**figures, "filled_over_empty": ratios}


class Turns:
    """One store, and what its turns took, in ns by what was done."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.samples: dict[str, list[int]] = defaultdict(list)
        self._ids = Ids(now_ms, random.Random())
        self._slots = Slots(pools={ECHO: "inline"}, free={"inline": CLAIM}, room={}, limits={}, limit=CLAIM)
        self._policy = RetryPolicy()
        self._number = 0

    def turn(self) -> None:
        """Submit, claim and finish 64 tasks, and look for what is due as the node does."""
        with self.store.write():
            self.store.submit([self._draft() for _ in range(CLAIM)], now_ms=now_ms())
        began = time.perf_counter_ns()
        self.store.has_ready(lambda agent: agent == ECHO)
        looked = time.perf_counter_ns()
        self.store.next_due_ms()
        due = time.perf_counter_ns()
        with self.store.write():
            claiming = time.perf_counter_ns()
            claim = self.store.claim(
                self._slots, Fairness(), node_id="bench", generation=1, token=f"{self._ids.lease()}.", now_ms=now_ms()
            )
            claimed = time.perf_counter_ns()
        committed = time.perf_counter_ns()
        if len(claim.rows) != CLAIM:
            raise BenchError(f"{len(claim.rows)} steps were claimed instead of {CLAIM}")
        steps = [self._finished(row.lease, row.payload) for row in claim.rows]
        finish_began = time.perf_counter_ns()
        with self.store.write():
            finishing = time.perf_counter_ns()
            self.store.finish(steps, node_id="bench", spilled={}, policy_of=lambda _: self._policy, now_ms=now_ms())
            finished = time.perf_counter_ns()
        ended = time.perf_counter_ns()
        for what, took in (
            ("claim", claimed - claiming),
            ("claim_with_commit", committed - due),
            ("finish", finished - finishing),
            ("finish_with_commit", ended - finish_began),
            ("look_for_ready", looked - began),
            ("look_for_due", due - looked),
        ):
            self.samples[what].append(took)

    def _draft(self) -> Any:
        self._number += 1
        payload = f"payload {self._number} of {id(self)}"
        return draft_task(
            self._ids, self.store.payloads, ECHO, payload, priority="NORMAL", key=default_key(ECHO, payload)
        )

    def _finished(self, lease: Any, payload: str | None) -> FinishedStep:
        at_ms = now_ms()
        report = StepReport(
            lease.row_id,
            lease.lease_token,
            "succeeded",
            output=payload or "",
            started_at_ms=at_ms,
            finished_at_ms=at_ms,
        )
        return FinishedStep(lease, report, "bench")


def open_store(root: Path, durability: str) -> Store:
    """Open a store with the durability that is measured."""
    return Store.open(root, now_ms=now_ms(), durability=Durability(durability))


def now_ms() -> int:
    """Return wall time."""
    return time.time_ns() // 1_000_000


def _size(root: Path) -> int:
    return (root / DATABASE).stat().st_size


def progress(sentence: str) -> None:
    """Tell a person how far the filling has come."""
    if sys.stderr.isatty():
        print(f"\r{sentence}  ", end="", file=sys.stderr, flush=True)
