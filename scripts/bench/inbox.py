"""inbox: files dropped at once into the lanes of a node in a process of its own, and one at a time.

``stored``    from the first rename into a lane until the last file's task is committed
``answered``  until the last file lies in ``done`` beside its result
``one file``  from its rename until its task is committed (as another process sees it), and until its result is there
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.agent import ECHO
from bench.figure import budget, quantiles, rounded, spread
from bench.node import BenchError, node_outside
from bench.place import new_root
from bench.setting import settings
from relaymesh.store.root import DATABASE

__all__ = ["run"]

SECONDS_MAX = 10.0
SECONDS_MAX_AT = 10_000
WAIT_S = 180.0
LANES = ("high", "normal", "low")


def run(folder: Path, *, files: int, singles: int, rounds: int, durability: str = "full") -> dict[str, Any]:
    """Return the figures of ``rounds`` times ``files`` files at once, then of ``singles`` one after the other.

    Raises:
        BenchError: files were not stored or not answered in time.
    """
    root = new_root(folder, durability)
    stored: list[float] = []
    answered: list[float] = []
    with node_outside(root) as node:
        conn = sqlite3.connect(f"{(root / DATABASE).as_uri()}?mode=ro", uri=True)
        _drop_all(root, conn, "warm-up", 20)
        for number in range(rounds):
            seconds = _drop_all(root, conn, f"round-{number}", files)
            stored.append(seconds[0])
            answered.append(seconds[1])
        noticed_ns, result_ns = _one_by_one(root, conn, singles)
        command = node.command
        conn.close()
    taken = spread(stored)
    result: dict[str, Any] = {
        "benchmark": "inbox",
        "seconds": {"stored": taken, "answered": spread(answered)},
        "files_per_s": {
            "stored": rounded(files / taken["median"]),
            "answered": rounded(files / spread(answered)["median"]),
        },
        "one_file": {"stored": quantiles(noticed_ns), "answered": quantiles(result_ns)},
        "settings": settings(folder, durability, files=files, singles=singles, rounds=rounds, node=command),
    }
    if files == SECONDS_MAX_AT:
        result["budget"] = budget("10,000 files at once, seconds until stored", taken["median"], "at_most", SECONDS_MAX)
    return result


def _drop_all(root: Path, conn: sqlite3.Connection, name: str, count: int) -> tuple[float, float]:
    """Write the files aside, move them into the lanes at once; return the seconds until stored, and until answered."""
    aside = root / "tmp" / name
    aside.mkdir()
    for number in range(count):
        document = {"agent": ECHO, "input": f"{name} {number}", "labels": {"round": name}}
        (aside / f"{name}-{number:06}.json").write_text(json.dumps(document), encoding="utf-8")
    names = sorted(os.listdir(aside))
    before = _tasks(conn)
    began = time.perf_counter()
    for number, file_name in enumerate(names):
        os.rename(aside / file_name, root / "inbox" / LANES[number % 3] / file_name)
    _wait(lambda: _tasks(conn) - before >= count, 0.02, f"{count} files were not stored")
    stored = time.perf_counter() - began
    _wait(lambda: _answers(root, f"{name}-") >= count, 0.2, f"{count} files were not answered")
    return stored, time.perf_counter() - began


def _one_by_one(root: Path, conn: sqlite3.Connection, count: int) -> tuple[list[int], list[int]]:
    noticed, answered = [], []
    for number in range(count):
        name = f"one-{number:06}.json"
        aside = root / "tmp" / name
        aside.write_text(json.dumps({"agent": ECHO, "input": name}), encoding="utf-8")
        before = _tasks(conn)
        # At all moments between two looks of the node.
        time.sleep(0.05 + 0.2 * (number * 0.618 % 1))
        began = time.perf_counter_ns()
        os.rename(aside, root / "inbox" / "normal" / name)
        _wait(lambda before=before: _tasks(conn) > before, 0.001, "a file was not stored")  # type: ignore[misc]
        noticed.append(time.perf_counter_ns() - began)
        _wait(lambda name=name: _answers(root, name) > 0, 0.005, "a file was not answered")  # type: ignore[misc]
        answered.append(time.perf_counter_ns() - began)
    return noticed, answered


def _tasks(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT coalesce(max(id), 0) FROM tasks").fetchone()[0])


def _answers(root: Path, name: str) -> int:
    """Count the files of this name, or beginning of one, that lie beside their results."""
    count = 0
    for day in os.scandir(root / "done"):
        if name.endswith(".json"):
            count += os.path.exists(os.path.join(day.path, name))
        else:
            names = [entry.name for entry in os.scandir(day.path) if entry.name.startswith(name)]
            count += sum(not found.endswith(".result.json") for found in names)
    return count


def _wait(claim: Callable[[], bool], every_s: float, complaint: str) -> None:
    until = time.monotonic() + WAIT_S
    while not claim():
        if time.monotonic() > until:
            raise BenchError(f"{complaint} within {WAIT_S:g} s")
        time.sleep(every_s)
