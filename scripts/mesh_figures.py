#!/usr/bin/env python3
"""The figures of the mesh, measured in the simulator: the table of docs/performance.md, one JSON object a line.

    scripts/mesh_figures.py --nodes 10 --nodes 100 --seeds 20
    scripts/mesh_figures.py --nodes 1000 --seeds 5 --only crash --only heal --budget-seconds 1800
    scripts/mesh_figures.py --false-dead --nodes 10 --hours 100 --budget-seconds 600
    scripts/mesh_figures.py --slow-nodes --budget-seconds 300
    scripts/mesh_figures.py --random --seeds 10000 --budget-seconds 3600

Everything but CPU time is decided by the seeds. A figure whose seeds do not fit into the budget says how many were run.
``--random`` runs 5 nodes under random faults, with packets as bytes for every tenth seed, and ends with status 1 when
an invariant is broken. Run it with the Python of .venv.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What lies beside us wins over what may be installed.
sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from chaos.sim import figure  # noqa: E402
from chaos.sim.kernel import seeded  # noqa: E402
from chaos.sim.run import run  # noqa: E402
from chaos.sim.scenario import drawn  # noqa: E402

LOSSES = (0, 10, 30)


def main() -> int:
    options = _options()
    until = time.monotonic() + options.budget_seconds if options.budget_seconds else None
    seeds = _within(range(options.first_seed, options.first_seed + options.seeds), until)
    if options.random:
        return _random(seeds)
    for nodes in options.nodes or [10]:
        if options.false_dead:
            _false_dead(nodes, options.hours, until)
        elif options.slow_nodes:
            counts = [figure.slow_nodes(128, seed, 120, blocked=4) for seed in seeds]
            _print("slow-nodes", 128, seeds=len(counts), dead=sum(one["dead"] for one in counts))
        else:
            for what, experiment in _experiments(nodes).items():
                if not options.only or what.split("@")[0] in options.only:
                    numbers = range(options.first_seed, options.first_seed + options.seeds)
                    _summary(what, nodes, [experiment(seed) for seed in _within(numbers, until)])
    return 0


def _experiments(nodes: int) -> dict[str, Callable[[int], Any]]:
    found: dict[str, Callable[[int], Any]] = {
        "spread": lambda seed: figure.spread(nodes, seed),
        "join": lambda seed: figure.join(nodes, seed),
        "idle": lambda seed: figure.idle(nodes, seed, max(20, 2_000 // nodes)),
        "heal": lambda seed: figure.heal(nodes, seed),
    }
    for loss in LOSSES:
        found[f"crash@{loss}"] = lambda seed, loss=loss: figure.crash(nodes, seed, loss)
    return found


def _summary(what: str, nodes: int, results: list[Any]) -> None:
    good = [one for one in results if one is not None]
    facts: dict[str, Any] = {"seeds": len(results), "unfinished": len(results) - len(good)}
    if good and isinstance(good[0], dict):
        for name in good[0]:
            facts[name] = sorted(one[name] for one in good)[len(good) // 2]
    elif good:
        if what == "heal":
            facts["falseDead"] = sum(one[1] for one in good)
            good = [one[0] for one in good]
        elif isinstance(good[0], tuple):
            first = [one[0] for one in good]
            facts["firstSuspectMs"] = [figure.percentile(first, 50), figure.percentile(first, 99)]
            good = [one[1] for one in good]
        facts["p50Ms"], facts["p99Ms"] = figure.percentile(good, 50), figure.percentile(good, 99)
    _print(what, nodes, **facts)


def _false_dead(nodes: int, hours: int, until: float | None) -> None:
    for loss in LOSSES:
        counts = {"suspect": 0, "dead": 0}
        ran = 0
        for seed in _within(range(1, hours + 1), until):
            for name, count in figure.false_verdicts(nodes, seed, 3_600, loss).items():
                counts[name] += count
            ran += 1
        _print(f"false-dead@{loss}", nodes, nodeHours=ran * nodes, **counts)


def _random(seeds: Iterator[int]) -> int:
    ran, broken = 0, []
    for seed in seeds:
        result = run(drawn(seed, seeded(seed, "faults"), codec=seed % 10 == 0))
        ran += 1
        if result.broken:
            broken.append({"seed": seed, "trace": result.trace, "first": result.broken[0].what})
    _print("random", 5, seeds=ran, broken=broken[:20])
    return 1 if broken else 0


def _within(numbers: range, until: float | None) -> Iterator[int]:
    for number in numbers:
        if until is not None and time.monotonic() >= until:
            return
        yield number


def _print(what: str, nodes: int, **facts: Any) -> None:
    print(json.dumps({"figure": what, "nodes": nodes, **facts}), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The figures of the mesh, measured in the simulator.")
    parser.add_argument("--nodes", type=int, action="append", help="size of the mesh; may be given again; default 10")
    parser.add_argument("--seeds", type=int, default=20, help="seeds per figure, default 20")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="spread, join, idle, heal or crash; may be given again")
    parser.add_argument(
        "--budget-seconds", type=float, default=0, help="begin no further seed after so long; 0: no end"
    )
    parser.add_argument("--false-dead", action="store_true", help="count verdicts without reason")
    parser.add_argument("--hours", type=int, default=100, help="simulated hours for --false-dead, default 100")
    parser.add_argument("--slow-nodes", action="store_true", help="4 of 128 nodes blocked for 16 s at a time")
    parser.add_argument("--random", action="store_true", help="random faults, as many seeds as --seeds says")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
