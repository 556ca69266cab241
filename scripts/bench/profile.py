"""profile: where the time of a task goes. Not a benchmark: it finds what to look at next.

by thread      CPU of a node under load, thread by thread
statements     what the store's thread spends in SQLite, statement by statement: more wall than CPU is waiting, for the
               disk, for a processor, or for the interpreter lock, which every statement gives up and wins back
stages         CPU of the same work in one thread without actors: the difference to the node is what threads cost;
               once for tasks that are claimed as they are stored, once for tasks that waited
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
from bench.counter import InstructionCounter
from bench.figure import rounded
from bench.place import new_root
from bench.raw import RawLoop
from bench.setting import settings
from bench.throughput import Load, measure_node
from relaymesh.agents.builtin import BUILTINS
from relaymesh.agents.execute import run_inline
from relaymesh.agents.order import order_for
from relaymesh.client import default_key
from relaymesh.core.fairness import Fairness
from relaymesh.core.ident import Ids
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.claim import Claim, Slots
from relaymesh.store.connection import Durability
from relaymesh.store.draft import draft_task
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from relaymesh.wire.codec import decode, encode
from relaymesh.wire.store import Claimed, FinishedStep, FinishSteps, Grant, NewTask, RunGrants, SubmitTasks

__all__ = ["run"]

SUBMIT = 500
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
    in_one_thread = {
        name: _stages(folder, max(SUBMIT, tasks // SUBMIT * SUBMIT), durability, straight=straight)
        for name, straight in (("claimed_as_stored", True), ("claimed_later", False))
    }
    in_one_thread["raw_loop"] = _raw(folder, tasks, durability)
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
        "in_one_thread": in_one_thread,
        "settings": settings(folder, durability, tasks=tasks, submit=SUBMIT),
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


class _Stages:
    """CPU and instructions of this thread by stage."""

    def __init__(self) -> None:
        self._counter = InstructionCounter()
        self._cpu_ns: dict[str, int] = defaultdict(int)
        self._instructions: dict[str, int] = defaultdict(int)

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count the body for this stage."""
        before, began_ns = self._counter.read(), time.thread_time_ns()
        yield
        self._cpu_ns[name] += time.thread_time_ns() - began_ns
        after = self._counter.read()
        if before is not None and after is not None:
            self._instructions[name] += after - before

    def per_task(self, tasks: int) -> dict[str, Any]:
        """Return both tables; the instructions are None where they cannot be counted."""
        self._counter.close()
        cpu = {name: rounded(ns / 1000 / tasks) for name, ns in self._cpu_ns.items()}
        instructions = {name: round(count / tasks) for name, count in self._instructions.items()}
        return {
            "cpu_us_per_task": {**cpu, "all": rounded(sum(self._cpu_ns.values()) / 1000 / tasks)},
            "instructions_per_task": {**instructions, "all": sum(instructions.values())} if instructions else None,
        }


def _raw(folder: Path, tasks: int, durability: str) -> dict[str, Any]:
    loop, stages = RawLoop(new_root(folder, durability) / "raw.db", durability), _Stages()
    with stages.of("insert, claim and complete with commits"):
        loop.run(tasks)
    loop.close()
    return stages.per_task(tasks)


def _stages(folder: Path, tasks: int, durability: str, *, straight: bool) -> dict[str, Any]:
    """Return what each stage costs a task, and how much each task adds to the write-ahead log in bytes."""
    root = new_root(folder, durability)
    store = Store.open(root, now_ms=now_ms(), durability=Durability(durability))
    store.conn.execute("PRAGMA wal_autocheckpoint=0")
    ids, policy, stages = Ids(now_ms, random.Random()), RetryPolicy(), _Stages()
    slots = Slots({ECHO: "inline"}, {"inline": SUBMIT}, {}, {}, SUBMIT)

    def claimed(drafts: list[NewTask]) -> Claim:
        owner: dict[str, Any] = {"node_id": "bench", "generation": 1, "token": f"{ids.lease()}.", "now_ms": now_ms()}
        if straight:
            with stages.of("submit and claim with commit"), store.write():
                return store.submit_and_claim(drafts, slots, Fairness(), **owner)[1]
        with stages.of("submit with commit"), store.write():
            store.submit(drafts, now_ms=now_ms())
        with stages.of("claim with commit"), store.write():
            return store.claim(slots, Fairness(), **owner)

    for number in range(0, tasks, SUBMIT):
        with stages.of("draft"):
            payloads = [f"payload {number + offset}" for offset in range(SUBMIT)]
            drafts = [
                draft_task(ids, store.payloads, ECHO, payload, priority="NORMAL", key=default_key(ECHO, payload))
                for payload in payloads
            ]
        with stages.of("message to the store and back"):
            decode(encode(SubmitTasks(tuple(drafts))))
        claim = claimed(drafts)
        with stages.of("render"):
            grants = tuple(grant for row in claim.rows if isinstance(grant := store.render(row), Grant))
        with stages.of("messages to the queue and the worker and back"):
            decode(encode(Claimed(1, {}, grants, 0, 0, 0)))
            decode(encode(RunGrants(grants, 0)))
        with stages.of("run the built-in"):
            steps = [
                FinishedStep(grant.lease, run_inline(BUILTINS[ECHO], order_for(grant, BUILTINS[ECHO]), 0), "bench")
                for grant in grants
            ]
        with stages.of("message of the results and back"):
            decode(encode(FinishSteps(tuple(steps))))
        with stages.of("finish with commit"), store.write():
            store.finish(steps, node_id="bench", spilled={}, policy_of=lambda _: policy, now_ms=now_ms())
    wal_bytes = os.path.getsize(root / f"{DATABASE}-wal")
    store.close()
    return {**stages.per_task(tasks), "wal_bytes_per_task": rounded(wal_bytes / tasks)}
