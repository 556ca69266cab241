"""idle: what a node costs that has nothing to do: CPU over a time, and memory; alone, and in a mesh with two others."""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from bench.agent import ECHO, PROCESS_ECHO, write_agents
from bench.figure import budget, rounded
from bench.node import NodeProcess, node_outside
from bench.place import new_root
from bench.setting import settings
from relaymesh.client import Client

__all__ = ["run"]

CPU_PERCENT_MAX = 1.0
RSS_MIB_MAX = 60.0
SETTLE_S = 2.0
MIB = 1024 * 1024


def run(
    folder: Path, *, seconds: float, tasks: int, settle_s: float = SETTLE_S, durability: str = "full"
) -> dict[str, Any]:
    """Return CPU and memory of a node that has just started, and after it ran ``tasks`` tasks of each agent."""
    root = new_root(folder, durability)
    agents = write_agents(folder)
    with node_outside(root, [agents]) as node, Client(root, agents=[str(agents)]) as client:
        time.sleep(settle_s)
        phases = {"just_started": _watch(node, seconds)}
        for agent in (ECHO, PROCESS_ECHO):
            waiting = [client.submit(agent, uuid.uuid4().hex).task_id for _ in range(tasks)]
            for task_id in waiting:
                client.wait(task_id, timeout_ms=60_000)
            time.sleep(settle_s)
            phases[f"after_{tasks}_tasks_of_{agent}"] = _watch(node, seconds)
        with node_outside(root, [agents], 1), node_outside(root, [agents], 1):
            time.sleep(2 * settle_s)
            phases["in_a_mesh_of_3"] = _watch(node, seconds)
        command = node.command
    return {
        "benchmark": "idle",
        "phases": phases,
        "budget": [
            budget(
                "CPU of the idle node in %, worst phase",
                max(phase["cpu_percent"] for phase in phases.values()),
                "at_most",
                CPU_PERCENT_MAX,
            ),
            budget(
                "RSS of the node's process in MiB, worst phase",
                max(phase["node_rss_mib"] for phase in phases.values()),
                "at_most",
                RSS_MIB_MAX,
            ),
        ],
        "settings": settings(folder, durability, seconds_per_phase=seconds, settle_s=settle_s, node=command),
    }


def _watch(node: NodeProcess, seconds: float) -> dict[str, Any]:
    """Return the CPU of the node with its workers over the time, in % of one core, and memory at its end.

    Shared pages count for each worker process anew in RSS; USS is what each has for itself.
    """
    before, started = _cpu_s(node), time.monotonic()
    time.sleep(seconds)
    spent, elapsed = _cpu_s(node) - before, time.monotonic() - started
    main, *workers = node.tree()
    return {
        "cpu_percent": rounded(100 * spent / elapsed),
        "node_rss_mib": rounded(main.memory_info().rss / MIB),
        "node_uss_mib": _uss_mib([main]),
        "node_threads": main.num_threads(),
        "worker_processes": len(workers),
        "workers_rss_mib": rounded(sum(worker.memory_info().rss for worker in workers) / MIB),
        "workers_uss_mib": _uss_mib(workers),
    }


def _cpu_s(node: NodeProcess) -> float:
    total = 0.0
    for process in node.tree():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _uss_mib(processes: list[psutil.Process]) -> float | None:
    try:
        return rounded(sum(process.memory_full_info().uss for process in processes) / MIB)
    except psutil.Error:
        return None  # not every platform lets us look
