"""The built-in benchmark: submit, run a node until all has ended or the time is over, measure.

A run in which nothing moves is told about once for each reason that keeps its first open task back, since its time may
be long: a limit of 0, a pause or a budget that is used up would otherwise look like a command that hangs.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from relaymesh.client import Client
from relaymesh.core.explain import Reason
from relaymesh.core.percentile import percentiles
from relaymesh.node_view import BenchmarkRunOutcome

if TYPE_CHECKING:
    from relaymesh.node import NodeOptions, RunningNode
    from relaymesh.view import Explanation

__all__ = ["run_benchmark"]

_CHECK_S: Final = 0.05
_STILL_S: Final = 1.0
"""No task may have ended for this long before anybody asks why; then it is asked this often."""
_MOVES: Final = {Reason.RUNNING, Reason.READY, Reason.OWNER_LOST, Reason.NO_FREE_SLOT}
"""What passes by itself while a node runs, so that nobody needs to be told."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def run_benchmark(
    options: NodeOptions,
    start: Callable[[], RunningNode],
    *,
    tasks: int,
    agent: str,
    priority: str,
    input_size: int,
    max_seconds: int,
    on_held: Callable[[Explanation], None] | None,
) -> BenchmarkRunOutcome:
    """Submit, run, measure. See ``relaymesh.node.benchmark``."""
    filler = "x" * input_size
    run = uuid.uuid4().hex
    with Client(options.root, namespace=options.namespace, agents=options.agents) as client:
        submit_started = _now_ms()
        ids = [
            client.submit(
                agent, f"benchmark {filler} {number}", priority=priority, idempotency_key=f"benchmark-{run}-{number}"
            ).task_id
            for number in range(tasks)
        ]
        submit_finished = _now_ms()
        run_started = _now_ms()
        node = start()
        try:
            loops = _wait(client, ids, deadline=time.monotonic() + max_seconds, on_held=on_held)
            run_finished = _now_ms()
        finally:
            node.stop()
        rows = _rows(client, ids)
        completed = [row for row in rows if row[0] not in ("PENDING", "RUNNING", "RETRYING")]
        duration_ms = max(1, run_finished - run_started)
        p50, p95, p99 = percentiles((updated - created for _, created, updated in completed), (50, 95, 99))
        return BenchmarkRunOutcome(
            submitted_tasks=len(ids),
            completed_tasks=len(completed),
            pending_tasks=len(ids) - len(completed),
            timed_out=len(completed) < len(ids),
            submit_started_at_ms=submit_started,
            submit_finished_at_ms=submit_finished,
            run_started_at_ms=run_started,
            run_finished_at_ms=run_finished,
            run_duration_ms=duration_ms,
            loops=loops,
            throughput_tasks_per_sec=len(completed) * 1000 / duration_ms,
            latency_p50_ms=p50,
            latency_p95_ms=p95,
            latency_p99_ms=p99,
            status_counts=dict(Counter(row[0] for row in rows)),
            stats=client.stats(),
        )


def _wait(client: Client, ids: list[str], *, deadline: float, on_held: Callable[[Explanation], None] | None) -> int:
    """Wait until all tasks have ended or the time is over; return how many times we looked."""
    loops = 0
    open_ids = msgspec.json.encode(ids).decode()
    left_before, told = len(ids), set[str]()
    ask_at = time.monotonic() + _STILL_S
    while (now := time.monotonic()) < deadline:
        loops += 1
        left, first = client.query(
            "SELECT count(*), min(task_id) FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))"
            " AND status IN ('PENDING','RUNNING','RETRYING')",
            (open_ids,),
        )[0]
        if not left:
            break
        if left != left_before:
            left_before, ask_at = left, now + _STILL_S
        elif now >= ask_at and on_held is not None:
            ask_at = now + _STILL_S
            for why in client.explain(first):
                if why.reason not in _MOVES and why.reason not in told:
                    told.add(why.reason)
                    on_held(why)
        time.sleep(_CHECK_S)
    return loops


def _rows(client: Client, ids: list[str]) -> list[tuple[str, int, int]]:
    return client.query(
        "SELECT status, created_at_ms, updated_at_ms FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(ids).decode(),),
    )
