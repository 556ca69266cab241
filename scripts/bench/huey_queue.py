"""The peer: Huey on SQLite, syncing each commit, with the same task as ours."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.node import BenchError
from bench.place import environment, python

__all__ = ["Way", "measure_huey", "open_queue", "ways"]

SILENT_S = 20.0
# The write lock is fought for by all workers; with Huey's default of 5 s some would give up.
LOCK_S = 60


@dataclass(frozen=True)
class Way:
    """One way to run Huey. enqueue_first: nothing is consumed before everything is enqueued."""

    workers: int
    worker_type: str
    enqueue_first: bool

    def __str__(self) -> str:
        when = "enqueued before" if self.enqueue_first else "enqueued meanwhile"
        return f"{self.workers} {self.worker_type} workers, {when}"


def ways(workers_max: int) -> list[Way]:
    """Return the ways worth trying: threads 1, 2, 4, … and, where Huey can fork, processes."""
    counts = [count for count in (1, 2, 4, 8, 16) if count <= workers_max]
    found = [Way(count, "thread", first) for count in counts for first in (False, True)]
    if sys.platform != "win32":
        cores = min(workers_max, os.cpu_count() or 1)
        found += [Way(cores, "process", first) for first in (False, True)]
    return found


def open_queue(path: Path) -> tuple[Any, Callable[[str], Any]]:
    """Return the queue and its task."""
    import huey  # type: ignore[import-untyped]

    queue = huey.SqliteHuey("bench", filename=str(path), fsync=True, timeout=LOCK_S)

    @queue.task()  # type: ignore[untyped-decorator]
    def echo(text: str) -> str:
        return text

    return queue, echo


def measure_huey(path: Path, way: Way, tasks: int) -> float:
    """Return tasks a second, from the first enqueue to the last result in the database.

    Raises:
        BenchError: the consumer ended, or stores no results.
    """
    queue, echo = open_queue(path)
    warm_up = 2 * way.workers
    if way.enqueue_first:
        started = time.perf_counter()
        for number in range(tasks):
            echo(f"payload {number}")
        spent = time.perf_counter() - started
        with _consumer(path, way):
            # The start of the consumer is not part of it: it counts from its first result on.
            _wait_for(queue, 1)
            started = time.perf_counter()
            _wait_for(queue, tasks)
            spent += time.perf_counter() - started
    else:
        with _consumer(path, way):
            for number in range(warm_up):
                echo(f"warm {number}")
            _wait_for(queue, warm_up)
            started = time.perf_counter()
            for number in range(tasks):
                echo(f"payload {number}")
            _wait_for(queue, warm_up + tasks)
            spent = time.perf_counter() - started
    queue.storage.close()
    return tasks / spent


def _wait_for(queue: Any, results: int) -> None:
    latest, changed_at = -1, time.monotonic()
    while (count := queue.result_count()) < results:
        if count != latest:
            latest, changed_at = count, time.monotonic()
        elif time.monotonic() - changed_at > SILENT_S:
            raise BenchError(f"huey stored no result for {SILENT_S:g} s, after {count} of {results}")
        time.sleep(0.005)


@contextlib.contextmanager
def _consumer(path: Path, way: Way) -> Iterator[None]:
    command = python("-m", "bench.huey_consumer", str(path), str(way.workers), way.worker_type)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=path.parent
    )
    with process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise BenchError("the huey consumer ended before it was ready")
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
