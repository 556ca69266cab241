"""limits: what limits cost a node that is not held back by them.

    none      a root without limits
    limits    overall, agent and key: running steps and rates, all of them far above what one node reaches
    keyed     the same, and each task has one of 100 concurrency keys

Each round runs all of them, each on a new database, in an order that turns; ratios are taken round by round.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figure import budget, paired_ratio, spread
from bench.setting import settings
from bench.throughput import Load, Round, measure_node
from relaymesh.client import Client

__all__ = ["run", "set_limits"]

RATIO_MIN = 0.9
KEYS = 100


def run(folder: Path, *, tasks: int, rounds: int, durability: str) -> dict[str, Any]:
    """Return the figures of so many rounds."""
    plain, keyed = Load(tasks, durability=durability), Load(tasks, durability=durability, keys=KEYS)
    measures: dict[str, Callable[[], Round]] = {
        "none": lambda: measure_node(folder, plain),
        "limits": lambda: measure_node(folder, plain, set_limits),
        "keyed": lambda: measure_node(folder, keyed, set_limits),
    }
    taken: dict[str, list[Round]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in sorted(measures, reverse=bool(number % 2)):
            taken[name].append(measures[name]())
    rates = {name: [one.tasks_per_s for one in its] for name, its in taken.items()}
    ratio = paired_ratio(rates["limits"], rates["none"])
    return {
        "benchmark": "limits",
        "tasks_per_s": {name: spread(its) for name, its in rates.items()},
        "ratio": ratio,
        "ratio_keyed": paired_ratio(rates["keyed"], rates["none"]),
        "node_cpu_ms_per_task": {name: spread([one.cpu_ms(one.cpu_s) for one in its]) for name, its in taken.items()},
        "budget": budget("tasks/s with limits against without", ratio["median"], "at_least", RATIO_MIN),
        "settings": settings(
            folder,
            durability,
            tasks=tasks,
            rounds=rounds,
            batch=plain.batch,
            keys=KEYS,
            batches_in_flight=plain.in_flight,
        ),
    }


def set_limits(root: Path) -> None:
    """Set limits and rates on everything, far above what a node reaches."""
    with Client(root) as client:
        for scope, name in (("overall", ""), ("agent", "echo"), ("each-key", "")):
            client.set_limit(scope, name, max_concurrency=100_000, rate="1000000/s", burst=1_000_000)
