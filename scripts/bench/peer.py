"""peers: Huey on SQLite with fsync, and us, side by side: tasks a second from submit to a stored result.

First each way to run Huey is tried briefly, and each of ours: tasks come from the node's own process, or from another
as Huey's do. Then the best ways take turns. We are measured with the built-in agent and with a Python agent in worker
processes, both submitted in batches, and with the Python agent submitted one task at a time by another process, each
answered before the next, which is how Huey's enqueue works.
"""

from __future__ import annotations

import importlib.metadata
import statistics
from pathlib import Path
from typing import Any

from bench.agent import ECHO, PROCESS_ECHO
from bench.figure import budget, paired_ratio, rounded, spread
from bench.place import new_root
from bench.setting import settings
from bench.throughput import Load, measure_node

__all__ = ["run"]

RATIO_MIN = 8.0
IN_BATCHES = "in batches"
ONE_BY_ONE = "one at a time"


def run(
    folder: Path,
    *,
    tasks: int,
    peer_tasks: int,
    trial_tasks: int,
    our_trial_tasks: int,
    trial_passes: int = 3,
    workers_max: int = 8,
    rounds: int,
) -> dict[str, Any]:
    """Return the figures; ``skipped`` says why there are none."""
    try:
        version = importlib.metadata.version("huey")
    except importlib.metadata.PackageNotFoundError:
        return {"benchmark": "peers", "skipped": 'huey is not installed: pip install -e ".[bench]"'}
    from bench.huey_queue import measure_huey, ways

    def huey(way: Any, count: int) -> float:
        return measure_huey(new_root(folder, "full") / "huey.db", way, count)

    candidates = ways(workers_max)
    # In turns, because a disk may be slow for seconds: whoever meets that once must not be out for it.
    passes = [[huey(way, trial_tasks) for way in candidates] for _ in range(trial_passes)]
    trials = dict(zip(candidates, map(statistics.median, zip(*passes, strict=True)), strict=True))
    best = max(trials, key=lambda way: trials[way])
    our_trials = {
        (agent, outside): statistics.median(
            measure_node(folder, Load(our_trial_tasks, agent=agent, from_outside=outside)).tasks_per_s
            for _ in range(trial_passes)
        )
        for agent in (ECHO, PROCESS_ECHO)
        for outside in (False, True)
    }
    loads = {
        f"{agent}, {IN_BATCHES}": Load(
            tasks, agent=agent, from_outside=our_trials[agent, True] > our_trials[agent, False]
        )
        for agent in (ECHO, PROCESS_ECHO)
    }
    loads[f"{PROCESS_ECHO}, {ONE_BY_ONE}"] = Load(peer_tasks, agent=PROCESS_ECHO, from_outside=True, batch=1)
    theirs: list[float] = []
    ours: dict[str, list[float]] = {name: [] for name in loads}
    for _ in range(rounds):
        theirs.append(huey(best, peer_tasks))
        for name, load in loads.items():
            ours[name].append(measure_node(folder, load).tasks_per_s)
    ratios = {name: paired_ratio(rates, theirs) for name, rates in ours.items()}
    return {
        "benchmark": "peers",
        "huey_tasks_per_s": spread(theirs),
        "huey_run_as": str(best),
        "huey_trials_tasks_per_s": {str(way): rounded(rate) for way, rate in trials.items()},
        "trials_tasks_per_s": {
            f"{agent}, {_from(outside)}": rounded(rate) for (agent, outside), rate in our_trials.items()
        },
        "run_as": {name: _from(load.from_outside) for name, load in loads.items()},
        "tasks_per_s": {name: spread(rates) for name, rates in ours.items()},
        "ratio": ratios,
        "budget": [
            budget(f"{name}, over huey", ratio["median"], "at_least", RATIO_MIN)
            for name, ratio in ratios.items()
            if IN_BATCHES in name
        ],
        "settings": settings(
            folder,
            "full",
            huey=version,
            huey_fsync=True,
            tasks=tasks,
            huey_tasks=peer_tasks,
            one_by_one_tasks=peer_tasks,
            huey_trial_tasks=trial_tasks,
            trial_tasks=our_trial_tasks,
            trial_passes=trial_passes,
            rounds=rounds,
        ),
    }


def _from(outside: bool) -> str:
    return "submitted by another process" if outside else "submitted by the node's own process"
