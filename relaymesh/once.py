"""Commands that run a node for a moment: one poll of a worker, and the built-in benchmark."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from relaymesh.client import Client
from relaymesh.core.percentile import percentiles
from relaymesh.settings import load_settings
from relaymesh.store.root import create_layout, normalize_namespace, scoped_root
from relaymesh.store.store import Store
from relaymesh.view import BenchmarkRunOutcome, WorkerOutcome

if TYPE_CHECKING:
    from relaymesh.node import NodeOptions, RunningNode

__all__ = ["outcome_of", "poll", "run_benchmark"]

_CHECK_S = 0.05
_PAUSED = ("SUSPECT", "DEAD")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _open(options: NodeOptions) -> Store:
    namespace = normalize_namespace(options.namespace)
    root = scoped_root(options.root, namespace)
    create_layout(root)
    load_settings(root)
    return Store.open(root, namespace=namespace, now_ms=_now_ms())


def poll(options: NodeOptions) -> WorkerOutcome | None:
    """Return why a poll would take nothing now, or None when there is a step to run."""
    from relaymesh.agents.registry import load_registry

    store = _open(options)
    try:
        node_id = options.node_id or "node-local"
        row = store.conn.execute("SELECT status FROM mesh_nodes WHERE node_id=?", (node_id,)).fetchone()
        if row is not None and row[0] in _PAUSED:
            return _nothing(f"paused: the local node {node_id} is {row[0]}")
        agents = load_registry(store.root, options.agents).specs
        due = store.next_due_ms()
        if due is not None and due <= _now_ms():
            with store.write():
                store.promote_due(now_ms=_now_ms(), limit=32)
        if not store.has_ready(lambda agent: agent in agents):
            return _nothing("nothing is ready for the agents of this process")
        return None
    finally:
        store.close()


def _nothing(message: str) -> WorkerOutcome:
    return WorkerOutcome(processed=False, task_id=None, msg_id=None, message=message)


def outcome_of(options: NodeOptions, claimed: tuple[str, str, int] | None) -> WorkerOutcome:
    """Return what became of the step that a poll took."""
    if claimed is None:
        return _nothing("another process was faster")
    task_id, step_id, lease_epoch = claimed
    store = _open(options)
    try:
        status, attempt, retry_at, error, task_status = store.conn.execute(
            "SELECT s.status, s.attempt, s.next_retry_at_ms, s.last_error, t.status FROM steps s"
            " JOIN tasks t ON t.task_id=s.task_id WHERE s.step_id=?",
            (step_id,),
        ).fetchone()
    finally:
        store.close()
    messages = {
        "SUCCESS": "the task is complete" if task_status == "SUCCESS" else "the step is complete",
        "RETRYING": f"attempt {attempt} failed, the next one is due at {retry_at}: {error}",
        "DEAD_LETTER": f"attempt {attempt} failed and was the last: {error}",
        "CANCELLED": "the task was cancelled",
        "PENDING": "the step was given back to the queue",
    }
    return WorkerOutcome(
        processed=True,
        task_id=task_id,
        msg_id=f"msg_{step_id}.{lease_epoch}",
        message=messages.get(status, f"the step is {status}"),
    )


def run_benchmark(
    options: NodeOptions,
    start: Callable[[], RunningNode],
    *,
    tasks: int,
    agent: str,
    priority: str,
    input_size: int,
    max_seconds: int,
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
            loops = _wait(client, ids, deadline=time.monotonic() + max_seconds)
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


def _wait(client: Client, ids: list[str], *, deadline: float) -> int:
    """Wait until all tasks have ended or the time is over; return how many times we looked."""
    loops = 0
    open_ids = msgspec.json.encode(ids).decode()
    while time.monotonic() < deadline:
        loops += 1
        (left,) = client.query(
            "SELECT count(*) FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))"
            " AND status IN ('PENDING','RUNNING','RETRYING')",
            (open_ids,),
        )[0]
        if not left:
            break
        time.sleep(_CHECK_S)
    return loops


def _rows(client: Client, ids: list[str]) -> list[tuple[str, int, int]]:
    return client.query(
        "SELECT status, created_at_ms, updated_at_ms FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(ids).decode(),),
    )
