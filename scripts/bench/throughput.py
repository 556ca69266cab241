"""throughput: tasks a second on one node, from submit to a result that is on disk.

    drafts ──▶ SubmitTasks ──▶ group commit ──▶ claim ──▶ agent ──▶ commit of the result ──▶ counted
      └── a bounded number of batches without an answer ┘

Each round runs the raw loop, the raw loop with rows like ours, and the node, each on a new database, in an order that
turns with each round; the ratios are taken round by round.
"""

from __future__ import annotations

import contextlib
import gc
import json
import random
import sqlite3
import statistics
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from actors.reply import Reply
from actors.system import Node
from bench.agent import ECHO, PROCESS_ECHO, write_agents
from bench.figure import budget, paired_ratio, rounded, spread
from bench.node import BenchError, node_inside
from bench.place import environment, new_root, python
from bench.raw import BATCH, RawLoop, Rows
from bench.setting import settings
from relaymesh.client import default_key
from relaymesh.core.ident import Ids
from relaymesh.store.draft import draft_task
from relaymesh.store.payload import PayloadFiles
from relaymesh.wire.store import Committed, NewTask, SubmitTasks

__all__ = ["Load", "Round", "measure_node", "measure_raw", "run"]

RATIO_MIN = 0.25
ANSWER_S = 120.0
# A node that commits nothing for so long does not do so any more.
SILENT_S = 60.0


@dataclass(frozen=True)
class Load:
    """What one round does. in_flight: batches of a submitter that may wait for their answer.

    keys: concurrency keys that the tasks take in turn; 0 is none.
    """

    tasks: int
    agent: str = ECHO
    from_outside: bool = False
    batch: int = BATCH
    in_flight: int = 3
    concurrency: int | None = None
    durability: str = "full"
    keys: int = 0

    @property
    def warm_up(self) -> int:
        return max(50, min(1_000, self.tasks // 5))


@dataclass
class Round:
    """What one round came to. cpu_s: of this process; by thread; of the workers and of the submitting process."""

    tasks: int
    seconds: float
    cpu_s: float
    by_thread: dict[str, float] = field(default_factory=dict)
    workers_cpu_s: float = 0.0
    submitter_cpu_s: float = 0.0

    @property
    def tasks_per_s(self) -> float:
        return self.tasks / self.seconds

    def cpu_ms(self, seconds: float) -> float:
        """Return CPU seconds of the round as milliseconds a task."""
        return seconds * 1000 / self.tasks


def measure_raw(folder: Path, load: Load, rows: Rows) -> Round:
    """Run the raw loop once on a new database."""
    loop = RawLoop(new_root(folder, load.durability) / "raw.db", load.durability, rows)
    try:
        loop.run(min(load.tasks, BATCH))
        gc.collect()
        cpu = time.process_time()
        seconds = loop.run(load.tasks)
        return Round(load.tasks, seconds, time.process_time() - cpu)
    finally:
        loop.close()


def measure_node(folder: Path, load: Load, prepare: Callable[[Path], None] = lambda _: None) -> Round:
    """Run a new node in this process once. prepare: is given the new root before the node starts.

    Raises:
        BenchError: it stopped committing, or a task came to something else than SUCCESS.
    """
    root = new_root(folder, load.durability)
    prepare(root)
    agents = [write_agents(folder)] if load.agent != ECHO else []
    with node_inside(root, agents, load.concurrency) as node:
        results = _Results(node)
        inside = _Inside(node, load)
        inside.submit(load.warm_up)
        results.wait_for(load.warm_up)
        extra = load.warm_up
        if load.from_outside:
            with _outside(root, load, agents) as submitter:
                results.wait_for(extra := extra + 1)
                result = _timed(submitter.submit, results, load, extra, not_a_worker=submitter.pid)
                result.submitter_cpu_s = submitter.cpu_s()
        else:
            result = _timed(lambda: inside.submit(load.tasks), results, load, extra)
    _check(root, load.tasks + extra)
    return result


def _timed(submit: Callable[[], None], results: _Results, load: Load, before: int, not_a_worker: int = -1) -> Round:
    me = psutil.Process()
    gc.collect()
    threads, workers = _thread_cpu(me), _children_cpu(me, not_a_worker)
    started, cpu = time.perf_counter(), time.process_time()
    submit()
    results.wait_for(before + load.tasks)
    seconds, cpu_s = results.last_at - started, time.process_time() - cpu
    after = _thread_cpu(me)
    by_thread = {name: after[name] - threads.get(name, 0.0) for name in after}
    workers_cpu_s = _cpu_between(workers, _children_cpu(me, not_a_worker))
    return Round(load.tasks, seconds, cpu_s, by_thread, workers_cpu_s)


class _Results:
    """Counts what the node has committed; called in its queue's thread."""

    def __init__(self, node: Node) -> None:
        self._count = 0
        self._changed = threading.Condition()
        self.last_at = 0.0
        node.on_committed(self._add)

    def _add(self, message: Committed) -> None:
        with self._changed:
            self._count += len(message.leases) - len(message.refused)
            self.last_at = time.perf_counter()
            self._changed.notify_all()

    def wait_for(self, count: int) -> None:
        with self._changed:
            while self._count < count:
                before = self._count
                if not self._changed.wait(SILENT_S) and self._count == before:
                    raise BenchError(
                        f"the node committed nothing for {SILENT_S:g} s, after {before} of {count} results: "
                        "see whether a task of this agent runs at all with `relaymesh explain TASK`"
                    )


class _Inside:
    """Submits through the node's group commit, from one thread, as a program that runs a node does."""

    def __init__(self, node: Node, load: Load) -> None:
        self._store = node.addresses["store"]
        self._files = PayloadFiles(node.root)
        self._load = load
        self._ids = Ids(lambda: time.time_ns() // 1_000_000, random.Random())
        self._number = 0

    def submit(self, tasks: int) -> None:
        waiting: deque[Reply] = deque()
        while tasks > 0 or waiting:
            if waiting and (tasks <= 0 or len(waiting) >= self._load.in_flight):
                waiting.popleft().wait(ANSWER_S)
                continue
            batch = tuple(self._draft() for _ in range(min(tasks, self._load.batch)))
            waiting.append(self._store.ask_later(SubmitTasks(batch)))
            tasks -= len(batch)

    def _draft(self) -> NewTask:
        self._number += 1
        payload, agent = f"payload {self._number}", self._load.agent
        return draft_task(
            self._ids,
            self._files,
            agent,
            payload,
            priority="NORMAL",
            key=default_key(agent, payload),
            concurrency_key=f"key-{self._number % self._load.keys}" if self._load.keys else None,
        )


class _Submitter:
    """Another process that submits through ``Client``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        assert process.stdin is not None and process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        if self._out.readline().strip() != "ready":
            raise BenchError("the submitting process ended before it was ready")

    def submit(self) -> None:
        self._in.write("go\n")
        self._in.flush()

    def cpu_s(self) -> float:
        answer = json.loads(self._out.readline())
        return float(answer["cpu_s"])


@contextlib.contextmanager
def _outside(root: Path, load: Load, agents: list[Path]) -> Iterator[_Submitter]:
    command = python("-m", "bench.submitter", str(root), load.agent, str(load.tasks), str(load.batch))
    process = subprocess.Popen(
        [*command, *map(str, agents)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=root,
    )
    with process:
        try:
            yield _Submitter(process)
            process.wait(ANSWER_S)
        finally:
            if process.poll() is None:
                process.kill()


def _thread_cpu(process: psutil.Process) -> dict[str, float]:
    """Return CPU seconds by thread name, as far as the platform tells (in steps of 10 ms on Linux)."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    with contextlib.suppress(psutil.Error):
        return {names.get(t.id, f"thread {t.id}"): t.user_time + t.system_time for t in process.threads()}
    return {}


def _children_cpu(process: psutil.Process, but: int) -> dict[int, float]:
    """Return CPU seconds by process id, of all processes below this one but one."""
    found = {}
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            found[child.pid] = times.user + times.system
    found.pop(but, None)
    return found


def _cpu_between(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def _check(root: Path, wanted: int) -> None:
    """See that the database agrees with the count."""
    conn = sqlite3.connect(root / "relaymesh.db")
    with contextlib.closing(conn):
        found = dict(conn.execute("SELECT status, count(*) FROM tasks GROUP BY status"))
    if found != {"SUCCESS": wanted}:
        raise BenchError(f"{wanted} tasks were to succeed, but the database holds {found}")


def run(folder: Path, *, load: Load, rounds: int) -> dict[str, Any]:
    """Return the figures of so many rounds."""
    measures: dict[str, Callable[[], Round]] = {
        "ours": lambda: measure_node(folder, load),
        "raw": lambda: measure_raw(folder, load, Rows.PLAIN),
        "like_ours": lambda: measure_raw(folder, load, Rows.LIKE_OURS),
    }
    taken: dict[str, list[Round]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in sorted(measures, reverse=bool(number % 2)):
            taken[name].append(measures[name]())
    ours, raw = taken["ours"], taken["raw"]
    rates = {name: [one.tasks_per_s for one in rounds_of] for name, rounds_of in taken.items()}
    ratio = paired_ratio(rates["ours"], rates["raw"])
    return {
        "benchmark": "throughput",
        "agent": load.agent,
        "submitted_by": "another process, Client.submit_many" if load.from_outside else "the node's own process",
        "tasks_per_s": spread(rates["ours"]),
        "raw_tasks_per_s": spread(rates["raw"]),
        "ratio": ratio,
        "raw_with_rows_like_ours": {
            "tasks_per_s": spread(rates["like_ours"]),
            "ratio": paired_ratio(rates["ours"], rates["like_ours"]),
        },
        "cpu_ms_per_task": {
            "node": spread([r.cpu_ms(r.cpu_s) for r in ours]),
            "workers": spread([r.cpu_ms(r.workers_cpu_s) for r in ours]),
            "submitter": spread([r.cpu_ms(r.submitter_cpu_s) for r in ours]),
            "raw": spread([r.cpu_ms(r.cpu_s) for r in raw]),
        },
        "node_cpu_ms_per_task_by_thread": _by_thread(ours),
        "budget": budget("tasks/s against the raw loop", ratio["median"], "at_least", RATIO_MIN),
        "settings": settings(
            folder,
            load.durability,
            tasks=load.tasks,
            rounds=rounds,
            batch=load.batch,
            batches_in_flight=load.in_flight,
            raw_batch=BATCH,
            warm_up_tasks=load.warm_up,
            worker_processes=load.concurrency if load.agent == PROCESS_ECHO else None,
        ),
    }


def _by_thread(rounds: list[Round]) -> dict[str, float]:
    """Return the median of each thread that took part, largest first."""
    names = {name for one in rounds for name in one.by_thread}
    medians = {name: statistics.median(r.cpu_ms(r.by_thread.get(name, 0.0)) for r in rounds) for name in names}
    return {name: rounded(value) for name, value in sorted(medians.items(), key=lambda i: -i[1]) if value > 0}
