"""latency: submit to result on an idle node, seen from another process, one task at a time.

    this process                     a process with `relaymesh up`
    Client.submit ─(commit 1)── wake ──▶ claim (commit 2) ──▶ agent ──▶ result (commit 3)
    Client.wait   ◀────────────────────────────────────── seen in the database

Between two tasks there is a pause, so that the node is idle indeed. The floor of the figure is three commits of one row
each, taken in turn with the tasks.
"""

from __future__ import annotations

import gc
import time
import uuid
from pathlib import Path
from typing import Any

from bench.agent import ECHO, PROCESS_ECHO, write_agents
from bench.figure import budget, quantiles, rounded
from bench.node import BenchError, node_outside
from bench.place import new_root
from bench.raw import RawLoop
from bench.setting import settings
from relaymesh.client import Client

__all__ = ["run"]

P50_MS_MAX = 3.0
P99_MS_MAX = 15.0
PAUSE_MS = 3
WARM_UP = 20
RESULT_MS_MAX = 30_000


def run(folder: Path, *, count: int, durability: str = "full") -> dict[str, Any]:
    """Return the figures of ``count`` tasks for each agent.

    Raises:
        BenchError: a task came to something else than SUCCESS.
        WaitTimeoutError: a task did not end.
    """
    root = new_root(folder, durability)
    agents = write_agents(folder)
    raw = RawLoop(new_root(folder, durability) / "raw.db", durability)
    raw.run(WARM_UP, batch=1)
    figures: dict[str, Any] = {}
    floor: list[int] = []
    with node_outside(root, [agents]) as node, Client(root, agents=[str(agents)]) as client:
        for agent in (ECHO, PROCESS_ECHO):
            for _ in range(WARM_UP):
                _measure(client, agent)
            gc.collect()
            samples = []
            for _ in range(count):
                floor.append(int(raw.run(1, batch=1) * 1e9))
                time.sleep(PAUSE_MS / 1000)
                samples.append(_measure(client, agent))
            figures[agent] = {
                "submit_to_result": quantiles([submit + wait for submit, wait in samples]),
                "submit": quantiles([submit for submit, _ in samples]),
                "wait": quantiles([wait for _, wait in samples]),
            }
        command = node.command
    raw.close()
    three_commits = quantiles(floor)
    echo = figures[ECHO]["submit_to_result"]
    return {
        "benchmark": "latency",
        "agents": figures,
        "raw_three_commits": three_commits,
        "echo_p50_over_raw_p50": rounded(echo["p50_ms"] / three_commits["p50_ms"]),
        "budget": [
            budget("echo, p50 in ms", echo["p50_ms"], "at_most", P50_MS_MAX),
            budget("echo, p99 in ms", echo["p99_ms"], "at_most", P99_MS_MAX),
        ],
        "settings": settings(folder, durability, count=count, warm_up_tasks=WARM_UP, pause_ms=PAUSE_MS, node=command),
    }


def _measure(client: Client, agent: str) -> tuple[int, int]:
    """Return how long the submit and the wait after it took, in ns."""
    payload = uuid.uuid4().hex
    began = time.perf_counter_ns()
    task = client.submit(agent, payload)
    submitted = time.perf_counter_ns()
    view = client.wait(task.task_id, timeout_ms=RESULT_MS_MAX)
    ended = time.perf_counter_ns()
    if view.status != "SUCCESS":
        raise BenchError(f"a task of {agent} came to {view.status}")
    return submitted - began, ended - submitted
