"""history: what ten million finished tasks cost a claim, and the commands that look.

Claims take turns with an empty store, as in ``backlog``. Then ``tasks``, ``task ID`` and ``stats`` run as commands of
the command line, in this process: what starting Python costs is the business of ``cli``.
"""

from __future__ import annotations

import contextlib
import gc
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import backlog
from bench.figure import budget, quantiles, rounded
from bench.fill import fill
from bench.node import BenchError
from bench.place import new_root
from bench.setting import settings
from relaymesh.store.root import DATABASE

__all__ = ["run"]

RATIO_MAX = 1.2
ANSWER_MS_MAX = 150.0
MIB = 1024 * 1024


def run(folder: Path, *, finished: int, turns: int, looks: int, durability: str = "full") -> dict[str, Any]:
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
    p99 = figures["filled_over_empty"]["claim"]["p99"]
    return {
        "benchmark": "history",
        **figures,
        "answers": answers,
        "budget": [
            budget("claim of 64, p99, filled over empty", p99, "at_most", RATIO_MAX),
            *(budget(f"{name}, p99, ms", took["p99_ms"], "at_most", ANSWER_MS_MAX) for name, took in answers.items()),
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
        ),
    }


def _commands(root: Path, durability: str) -> dict[str, list[str]]:
    store = backlog.open_store(root, durability)
    middle = store.conn.execute("SELECT max(id)/2 FROM tasks").fetchone()[0]
    task_id, at_ms = store.conn.execute("SELECT task_id, updated_at_ms FROM tasks WHERE id=?", (middle,)).fetchone()
    store.close()
    return {
        "tasks": ["tasks"],
        "tasks --after, half-way": ["tasks", "--after", f"{at_ms}:{task_id}"],
        "tasks --offset 5000": ["tasks", "--offset", "5000"],
        "tasks --label": ["tasks", "--label", "customer=7"],
        "task": ["task", task_id],
        "stats": ["stats"],
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
