"""profile: where the time of a task goes. Not a benchmark: it finds what to look at next.

by thread      CPU of a node under load, thread by thread
statements     what the store's thread spends in SQLite, statement by statement: more wall than CPU is waiting, for the
               disk, for a processor, or for the interpreter lock, which every statement gives up and wins back
stages         CPU of the same work in one thread without actors: the difference to the node is what threads cost
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.agent import ECHO
from bench.backlog import now_ms
from bench.figure import rounded
from bench.place import new_root
from bench.setting import settings
from bench.throughput import Load, measure_node
from relaymesh.agents.builtin import BUILTINS
from relaymesh.agents.execute import run_inline
from relaymesh.agents.order import order_for
from relaymesh.client import default_key
from relaymesh.core.fairness import Fairness
from relaymesh.core.ident import Ids
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.claim import Slots
from relaymesh.store.connection import Durability
from relaymesh.store.draft import draft_task
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from relaymesh.wire.codec import decode, encode
from relaymesh.wire.store import FinishedStep, FinishSteps, Grant, SubmitTasks

__all__ = ["run"]

SUBMIT = 500
CLAIM = 250
STATEMENTS_MAX = 20
_HEAD_CHARS = 64


def run(folder: Path, *, tasks: int, agent: str, durability: str = "full") -> dict[str, Any]:
    """Return the three tables, in microseconds a task."""
    load = Load(tasks, agent=agent, durability=durability)
    plain = measure_node(folder, load)
    with _counting() as statements:
        counted = measure_node(folder, load)
    done = tasks + load.warm_up
    table = sorted(statements.items(), key=lambda item: -item[1].wall_ns)[:STATEMENTS_MAX]
    stages, wal_bytes = _stages(folder, max(SUBMIT, tasks // SUBMIT * SUBMIT), durability)
    return {
        "benchmark": "profile",
        "agent": agent,
        "tasks_per_s": rounded(plain.tasks_per_s),
        "wall_us_per_task": rounded(1e6 / plain.tasks_per_s),
        "cpu_us_per_task": {
            "node": rounded(plain.cpu_ms(plain.cpu_s) * 1000),
            "workers": rounded(plain.cpu_ms(plain.workers_cpu_s) * 1000),
            "node_by_thread": {
                name: rounded(plain.cpu_ms(seconds) * 1000)
                for name, seconds in sorted(plain.by_thread.items(), key=lambda item: -item[1])
                if seconds > 0
            },
        },
        "statements_of_the_store_thread": [
            {
                "statement": head,
                "calls": spent.calls,
                "wall_us_per_task": rounded(spent.wall_ns / 1000 / done),
                "cpu_us_per_task": rounded(spent.cpu_ns / 1000 / done),
            }
            for head, spent in table
        ],
        "tasks_per_s_while_counting": rounded(counted.tasks_per_s),
        "stages_in_one_thread_cpu_us_per_task": stages,
        "wal_bytes_per_task": wal_bytes,
        "settings": settings(folder, durability, tasks=tasks, submit=SUBMIT, claim=CLAIM),
    }


class _Spent:
    __slots__ = ("calls", "cpu_ns", "wall_ns")

    def __init__(self) -> None:
        self.calls = self.wall_ns = self.cpu_ns = 0


@contextlib.contextmanager
def _counting() -> Iterator[dict[str, _Spent]]:
    """Have connections that are opened meanwhile count what the store's thread executes."""
    spent: dict[str, _Spent] = defaultdict(_Spent)

    class Counting(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if threading.current_thread().name != "store":
                return super().execute(sql, *values)
            wall_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            try:
                return super().execute(sql, *values)
            finally:
                one = spent[" ".join(sql.split())[:_HEAD_CHARS]]
                one.calls += 1
                one.wall_ns += time.perf_counter_ns() - wall_ns
                one.cpu_ns += time.thread_time_ns() - cpu_ns

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **options: connect(*args, **{**options, "factory": Counting})
    try:
        yield spent
    finally:
        sqlite3.connect = connect


def _stages(folder: Path, tasks: int, durability: str) -> tuple[dict[str, float], float]:
    """Return CPU per stage in µs a task, and how much each task adds to the write-ahead log in bytes."""
    root = new_root(folder, durability)
    store = Store.open(root, now_ms=now_ms(), durability=Durability(durability))
    store.conn.execute("PRAGMA wal_autocheckpoint=0")
    ids, policy = Ids(now_ms, random.Random()), RetryPolicy()
    slots = Slots({ECHO: "inline"}, {"inline": CLAIM}, {}, {}, CLAIM)
    spent: dict[str, int] = defaultdict(int)

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        began = time.thread_time_ns()
        yield
        spent[name] += time.thread_time_ns() - began

    for number in range(0, tasks, SUBMIT):
        with stage("draft"):
            payloads = [f"payload {number + offset}" for offset in range(SUBMIT)]
            drafts = [
                draft_task(ids, store.payloads, ECHO, payload, priority="NORMAL", key=default_key(ECHO, payload))
                for payload in payloads
            ]
        with stage("message to the store and back"):
            decode(encode(SubmitTasks(tuple(drafts))))
        with stage("submit with commit"), store.write():
            store.submit(drafts, now_ms=now_ms())
        for _ in range(SUBMIT // CLAIM):
            with stage("claim with commit"), store.write():
                claim = store.claim(
                    slots, Fairness(), node_id="bench", generation=1, token=f"{ids.lease()}.", now_ms=now_ms()
                )
            with stage("render"):
                grants = [grant for row in claim.rows if isinstance(grant := store.render(row), Grant)]
            with stage("run the built-in"):
                steps = [
                    FinishedStep(grant.lease, run_inline(BUILTINS[ECHO], order_for(grant, BUILTINS[ECHO]), 0), "bench")
                    for grant in grants
                ]
            with stage("message of the results and back"):
                decode(encode(FinishSteps(tuple(steps))))
            with stage("finish with commit"), store.write():
                store.finish(steps, node_id="bench", spilled={}, policy_of=lambda _: policy, now_ms=now_ms())
    wal_bytes = os.path.getsize(root / f"{DATABASE}-wal")
    store.close()
    stages = {name: rounded(ns / 1000 / tasks) for name, ns in spent.items()}
    return {**stages, "all": rounded(sum(spent.values()) / 1000 / tasks)}, rounded(wal_bytes / tasks)
