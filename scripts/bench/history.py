"""history: what ten million finished tasks cost a claim, the commands that look, and their own removal.

Claims take turns with an empty store, as in ``backlog``. Then the commands that look run as those of the command line,
in this process: what starting Python costs is the business of ``cli``. At the end the oldest tasks are purged while
claims go on (``bench.purge``).
"""

from __future__ import annotations

import contextlib
import gc
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import backlog, purge
from bench.figure import budget, quantiles, rounded
from bench.fill import fill
from bench.node import BenchError, node_outside
from bench.place import new_root
from bench.setting import settings
from relaymesh.store.root import DATABASE

__all__ = ["run"]

RATIO_MAX = 1.2
ANSWER_MS_MAX = 150.0
MIB = 1024 * 1024


def run(
    folder: Path, *, finished: int, turns: int, looks: int, purged: int, durability: str = "full"
) -> dict[str, Any]:
    """Return the figures of so many turns of each store, and of so many calls of each command."""
    root = new_root(folder, durability)
    backlog.open_store(root, durability).close()
    started = time.monotonic()
    fill(root / DATABASE, finished=finished, delayed=0, now_ms=backlog.now_ms(), progress=backlog.progress)
    fill_s = time.monotonic() - started
    size_mib = rounded((root / DATABASE).stat().st_size / MIB)
    figures = backlog.in_turns(root, new_root(folder, durability), turns=turns, durability=durability)
    gc.collect()
    answers = {name: _answers(root, words, looks) for name, words in _commands(root, durability).items()}
    opening = _opening(root, looks, durability)
    removal = purge.beside_claims(root, rows=purged, turns=turns, durability=durability)
    p99 = figures["filled_over_empty"]["claim"]["p99"]
    held = removal["writer_held"]["max_ms"]
    return {
        "benchmark": "history",
        **figures,
        "answers": answers,
        **opening,
        "purge": removal,
        "budget": [
            budget("claim of 64, p99, filled over empty", p99, "at_most", RATIO_MAX),
            *(budget(f"{name}, p99, ms", took["p99_ms"], "at_most", ANSWER_MS_MAX) for name, took in answers.items()),
            budget("writer held by a piece of a purge, largest, ms", held, "at_most", purge.HOLD_MS_MAX),
        ],
        "settings": settings(
            folder,
            durability,
            finished=finished,
            database_mib=size_mib,
            fill_s=rounded(fill_s),
            claim=backlog.CLAIM,
            turns=turns,
            warm_up_turns=backlog.WARM_UP,
            looks=looks,
            purged=purged,
        ),
    }


def _commands(root: Path, durability: str) -> dict[str, list[str]]:
    store = backlog.open_store(root, durability)
    middle = store.conn.execute("SELECT max(id)/2 FROM tasks").fetchone()[0]
    task_id, at_ms, key = store.conn.execute(
        "SELECT task_id, updated_at_ms, idempotency_key FROM tasks WHERE id=?", (middle,)
    ).fetchone()
    store.close()
    return {
        "tasks": ["tasks"],
        "tasks --after, half-way": ["tasks", "--after", f"{at_ms}:{task_id}"],
        "tasks --offset 5000": ["tasks", "--offset", "5000"],
        "tasks --status SUCCESS": ["tasks", "--status", "SUCCESS"],
        "tasks --status RUNNING": ["tasks", "--status", "RUNNING"],
        "tasks --label": ["tasks", "--label", "customer=7"],
        "tasks --status SUCCESS --label": ["tasks", "--status", "SUCCESS", "--label", "customer=7"],
        "dead-list --text": ["dead-list", "--text", "refused"],
        "task": ["task", task_id],
        "workflow": ["workflow", task_id],
        "explain": ["explain", task_id],
        "stats": ["stats"],
        "health": ["health"],
        "metrics": ["metrics"],
        "submit, a duplicate": ["submit", "--agent", "echo", "--input", "x", "--idempotency-key", key],
        "submit": ["submit", "--agent", "echo", "--input", "y", "--idempotency-key", "bench-history"],
    }


def _answers(root: Path, words: Sequence[str], looks: int) -> dict[str, Any]:
    from relaymesh.cli import main

    samples = []
    for _ in range(looks + 1):
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        began = time.perf_counter_ns()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(["--root", str(root), *words])
        samples.append(time.perf_counter_ns() - began)
        out.flush()
        if status or not out.buffer.tell():
            raise BenchError(f"`relaymesh {' '.join(words)}` failed: {err.getvalue().strip()}")
    return quantiles(samples[1:])  # the first one loads the command's modules


def _opening(root: Path, looks: int, durability: str) -> dict[str, Any]:
    """Return what it takes to open the store, and until a node is up in a process of its own."""
    samples = []
    for _ in range(looks):
        began = time.perf_counter_ns()
        backlog.open_store(root, durability).close()
        samples.append(time.perf_counter_ns() - began)
    began = time.perf_counter_ns()
    with node_outside(root):
        up_ns = time.perf_counter_ns() - began
    return {"open_store": quantiles(samples), "node_up_ms": rounded(up_ns / 1e6)}
