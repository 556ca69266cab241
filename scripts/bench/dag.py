"""dag: a workflow that fans out and joins, from submit to SUCCESS, on a node in a process of its own.

listed   s0 … sN-1, each a step of the file    ──▶ join
mapped   last ──▶ each, one run for each item  ──▶ join
"""

from __future__ import annotations

import gc
import time
import uuid
from pathlib import Path
from typing import Any

from bench.agent import ECHO
from bench.figure import budget, spread
from bench.node import BenchError, node_outside
from bench.place import new_root
from bench.raw import RawLoop
from bench.setting import settings
from relaymesh.client import Client

__all__ = ["run"]

SECONDS_MAX = 1.0
SECONDS_MAX_AT = 1_000
RESULT_MS_MAX = 120_000
WARM_UP_WIDTH = 20


def run(folder: Path, *, width: int, rounds: int, durability: str = "full") -> dict[str, Any]:
    """Return the figures of so many workflows of each shape.

    Raises:
        BenchError: a workflow came to something else than SUCCESS.
        WaitTimeoutError: a workflow did not end.
    """
    shapes = {"listed": _listed, "mapped": _mapped}
    seconds: dict[str, list[float]] = {shape: [] for shape in shapes}
    submits: list[float] = []
    raw_seconds: list[float] = []
    root = new_root(folder, durability)
    raw = RawLoop(new_root(folder, durability) / "raw.db", durability)
    raw.run(WARM_UP_WIDTH)
    with node_outside(root) as node, Client(root) as client:
        for make in shapes.values():
            _measure(client, make(WARM_UP_WIDTH))
        for _ in range(rounds):
            raw_seconds.append(raw.run(width + 1))
            for shape, make in shapes.items():
                submit, whole = _measure(client, make(width))
                seconds[shape].append(whole)
                if shape == "listed":
                    submits.append(submit)
        command = node.command
    raw.close()
    listed = spread(seconds["listed"])
    result: dict[str, Any] = {
        "benchmark": "dag",
        "seconds": {"listed": listed, "mapped": spread(seconds["mapped"])},
        "of_which_submit": spread(submits),
        "raw_seconds": spread(raw_seconds),
        "settings": settings(folder, durability, width=width, rounds=rounds, node=command),
    }
    if width == SECONDS_MAX_AT:
        result["budget"] = budget("fan-out of 1,000 and a join, seconds", listed["median"], "at_most", SECONDS_MAX)
    return result


def _listed(width: int) -> dict[str, object]:
    names = [f"s{number}" for number in range(width)]
    steps: list[dict[str, object]] = [{"id": name, "agent": ECHO, "input": f"part {name}"} for name in names]
    join = {"id": "join", "agent": ECHO, "input": f"first: {{{{steps.s0.output}}}}, of {width}", "dependsOn": names}
    return {"steps": [*steps, join]}


def _mapped(width: int) -> dict[str, object]:
    return {
        "steps": [
            {"id": "last", "agent": ECHO, "input": "the item that makes the others wait"},
            {"id": "each", "agent": ECHO, "map": [*range(width - 1), {"$from": "last"}], "input": "part {{index}}"},
            {"id": "join", "agent": ECHO, "input": {"$from": "each"}},
        ]
    }


def _measure(client: Client, workflow: dict[str, object]) -> tuple[float, float]:
    """Return the seconds until the submit was answered, and until SUCCESS."""
    gc.collect()
    began = time.perf_counter()
    task = client.submit_workflow(workflow, idempotency_key=uuid.uuid4().hex)
    submitted = time.perf_counter()
    view = client.wait(task.task_id, timeout_ms=RESULT_MS_MAX)
    ended = time.perf_counter()
    if view.status != "SUCCESS":
        raise BenchError(f"the workflow came to {view.status}: {view.last_error}")
    return submitted - began, ended - began
