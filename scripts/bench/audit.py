"""audit: what a row costs the writer, and how long a query and the check take on a log of many rows.

The log is written by AuditTrail itself, in batches as a node makes them, rotated and compressed as it is at work.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figure import budget, rounded
from bench.place import new_root
from bench.setting import settings
from relaymesh.audit import AuditTrail
from relaymesh.audit.event import ended_bodies
from relaymesh.audit.read import Filter, newest, tail
from relaymesh.audit.verify import verify
from relaymesh.core.ident import Ids
from relaymesh.store.finish import FinishResult
from relaymesh.store.root import create_layout
from relaymesh.wire.audit import chain
from relaymesh.wire.store import SHAPE_SOLE, FinishedStep, LeaseRef
from relaymesh.wire.work import StepReport

__all__ = ["run"]

ROW_US_MAX = 4.0
QUERY_MS_MAX = 500.0
BATCH = 2_000
# One row in so many is of a kind that is looked for: an operator's own.
RARE_EACH = 50_000
NOTHING_SPECIAL = FinishResult((), False, None)
START_MS = 1_900_000_000_000


def run(folder: Path, *, rows: int, rounds: int, durability: str = "full") -> dict[str, Any]:
    """Return the figures of one log."""
    root = new_root(folder, durability)
    create_layout(root)
    row_us = _cost_of_a_row(rounds)
    clock = [START_MS]
    trail = AuditTrail(root, now_ms=lambda: clock[0])
    ids = Ids(lambda: clock[0], random.Random(7))
    kept: list[str] = []
    began = time.perf_counter()
    for start in range(0, rows, BATCH):
        steps = _steps(ids, min(BATCH, rows - start))
        bodies = _bodies(steps, clock[0])
        trail.append(bodies)
        kept.append(steps[0].lease.task_id)
        if start % RARE_EACH == 0:
            trail.record("task.cancel", actor="cli", resource=f"task/{kept[-1]}", result="cancelled", task_id=kept[-1])
        clock[0] += 1_000
    written_s = time.perf_counter() - began
    began = time.perf_counter()
    packed = trail.pack()
    pack_s = time.perf_counter() - began
    middle = kept[len(kept) // 2]
    from_ms = START_MS + len(kept) // 2 * 1_000
    place = trail.place
    queries: dict[str, Callable[[], list[str]]] = {
        "tail of 50": lambda: tail(place, 50),
        "by a task in the middle": lambda: newest(place, Filter(task_id=middle), 100),
        "by a task that is not there": lambda: newest(place, Filter(task_id="tsk_none"), 100),
        "by a rare action, newest 100": lambda: newest(place, Filter(action="task.cancel"), 100),
        "by a common action, newest 100": lambda: newest(place, Filter(action="step.execute"), 100),
        "by an action and one second in the middle": lambda: newest(
            place, Filter(action="step.execute", from_ms=from_ms, to_ms=from_ms + 999), 100
        ),
    }
    query_ms = {name: _milliseconds(ask) for name, ask in queries.items()}
    began = time.perf_counter()
    checked = verify(place)
    verify_s = time.perf_counter() - began
    assert checked.reason == "", checked.where
    size = sum(path.stat().st_size for path in (root / "audit").rglob("*") if path.is_file())
    return {
        "benchmark": "audit",
        "row_us": row_us,
        "write": {
            "rows": checked.total,
            "seconds": rounded(written_s),
            "us_per_row_compression_included": rounded(written_s / rows * 1e6),
            "segments_packed_at_the_end": packed,
            "seconds_of_that": rounded(pack_s),
            "bytes_per_row_on_disk": rounded(size / checked.total),
        },
        "query_ms": query_ms,
        "verify": {"seconds": rounded(verify_s), "rows_per_s": rounded(checked.checked / verify_s)},
        "budget": [
            budget("a row of a step, µs of CPU", row_us["all"], "at_most", ROW_US_MAX),
            budget("the slowest query, ms", max(query_ms.values()), "at_most", QUERY_MS_MAX),
        ],
        "settings": settings(folder, durability, rows=rows, rounds=rounds),
    }


def _cost_of_a_row(rounds: int) -> dict[str, Any]:
    """Return the least CPU per row over the rounds: to make it, to chain it, and of that the hash function alone."""
    from hashlib import sha256

    ids = Ids(lambda: START_MS, random.Random(7))
    steps = _steps(ids, BATCH)
    bodies = _bodies(steps, START_MS)
    row = f'{bodies[0]}{"a" * 64}"}}'.encode()

    def hashes() -> None:
        for _ in range(BATCH):
            sha256(row).hexdigest()

    def chained() -> None:
        pieces: list[str] = []
        chain(bodies, "a" * 64, pieces)
        "".join(pieces).encode("ascii")

    made = _cpu_us(lambda: _bodies(steps, START_MS), rounds)
    linked = _cpu_us(chained, rounds)
    return {
        "make": rounded(made),
        "chain": rounded(linked),
        "of_which_sha256": rounded(_cpu_us(hashes, rounds)),
        "all": rounded(made + linked),
        "bytes": len(row),
    }


def _cpu_us(work: Callable[[], object], rounds: int) -> float:
    least = float("inf")
    for _ in range(max(3, rounds)):
        began = time.thread_time_ns()
        work()
        least = min(least, time.thread_time_ns() - began)
    return least / BATCH / 1_000


def _milliseconds(ask: Callable[[], list[str]]) -> float:
    began = time.perf_counter()
    ask()
    return rounded((time.perf_counter() - began) * 1_000)


def _steps(ids: Ids, count: int) -> list[FinishedStep]:
    steps = []
    for number in range(count):
        task_id = ids.task()
        token = f"lease_{task_id[4:]}.{number}"
        lease = LeaseRef(number, f"stp_{task_id[4:]}", task_id, "echo", 1, token, 1, 1, SHAPE_SOLE)
        steps.append(FinishedStep(lease, StepReport(number, token, "succeeded"), "inline"))
    return steps


def _bodies(steps: list[FinishedStep], now_ms: int) -> list[str]:
    return ended_bodies(steps, NOTHING_SPECIAL, {}, actor="worker-local", namespace="default", now_ms=now_ms)
