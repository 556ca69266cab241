"""encryption: what ``payloadEncryption`` costs a node.

    off    a root as it is made
    on     the same with the setting on: inputs, outputs and log lines are encrypted before they are stored

Each round runs both, each on a new database, in an order that turns; ratios are taken round by round. Afterwards the
rows are looked at: the figures count only if they are encrypted in the one and not in the other.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from bench.figure import paired_ratio, spread
from bench.node import BenchError
from bench.setting import settings
from bench.throughput import Load, Round, measure_node
from relaymesh.client import Client
from relaymesh.store.root import DATABASE

__all__ = ["run"]


def run(folder: Path, *, load: Load, rounds: int) -> dict[str, Any]:
    """Return the figures of so many rounds."""
    taken: dict[str, list[Round]] = {"off": [], "on": []}
    for number in range(rounds):
        for name in sorted(taken, reverse=bool(number % 2)):
            taken[name].append(_measure(folder, load, on=name == "on"))
    rates = {name: [one.tasks_per_s for one in its] for name, its in taken.items()}
    return {
        "benchmark": "encryption",
        "tasks_per_s": {name: spread(its) for name, its in rates.items()},
        "ratio": paired_ratio(rates["on"], rates["off"]),
        "node_cpu_ms_per_task": {name: spread([one.cpu_ms(one.cpu_s) for one in its]) for name, its in taken.items()},
        "settings": settings(
            folder,
            load.durability,
            tasks=load.tasks,
            rounds=rounds,
            agent=load.agent,
            batch=load.batch,
            batches_in_flight=load.in_flight,
        ),
    }


def _measure(folder: Path, load: Load, *, on: bool) -> Round:
    roots: list[Path] = []

    def prepare(root: Path) -> None:
        roots.append(root)
        if on:
            with Client(root) as client:
                client.set_setting("payloadEncryption", "true")

    result = measure_node(folder, load, prepare)
    (root,) = roots
    conn = sqlite3.connect(root / DATABASE)
    try:
        (clear,) = conn.execute(
            "SELECT count(*) FROM steps WHERE typeof(payload)='text' OR typeof(result_payload)='text'"
        ).fetchone()
        (steps,) = conn.execute("SELECT count(*) FROM steps").fetchone()
    finally:
        conn.close()
    if clear != (0 if on else steps):
        raise BenchError(f"{clear} of {steps} steps lie in clear text with payloadEncryption {'on' if on else 'off'}")
    return result
