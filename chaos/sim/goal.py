"""The figures that the mesh is held to, and the experiments that give them: what to run, and what came of it.

One job is one experiment of one seed. Jobs are independent, so a table is filled by as many calls as it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from chaos.sim import figure
from chaos.sim.run import run
from chaos.sim.scenario import Fault, LinkState, Scenario

__all__ = ["GOALS", "LOSSES", "Goal", "Job", "Result", "behaviour", "jobs", "rows", "run_job"]

LOSSES: Final = (0, 10, 30)
_SIZES: Final = (10, 100, 1_000)
_SEEDS: Final = {10: 20, 100: 20, 1_000: 5}
_FALSE_DEAD_HOURS: Final = {10: 100, 100: 10}
"""Hours of the whole mesh, so 1,000 node-hours each."""
_SLOW_NODES: Final = 128
_SLOW_SEEDS: Final = 10


class Job(NamedTuple):
    """One run: what, with how many nodes, by which seed."""

    what: str
    nodes: int
    seed: int


class Result(NamedTuple):
    """What came of a job: numbers by name, None when it did not come to its end. cpu_s: CPU time that it took."""

    job: Job
    found: Mapping[str, int | float] | None
    cpu_s: float


class Goal(NamedTuple):
    """What is demanded of one figure at one size: of p50 and p99 (or worst, or the median) of one number.

    at_least: whether more is better.
    """

    what: str
    nodes: int
    number: str
    p50: int | None
    p99: int | None
    at_least: bool = False


def _crash(loss: int) -> list[Goal]:
    bounds = {10: (6_000, 11_000), 100: (10_500, 16_000), 1_000: (14_500, 20_000)}
    return [Goal(f"crash@{loss}", nodes, "ms", *bounds[nodes]) for nodes in _SIZES]


GOALS: Final = (
    *(goal for loss in LOSSES for goal in _crash(loss)),
    *(Goal("spread", nodes, "ms", None, most) for nodes, most in zip(_SIZES, (500, 800, 1_200), strict=True)),
    *(Goal("join", nodes, "ms", None, most) for nodes, most in zip(_SIZES, (1_000, 3_000, 10_000), strict=True)),
    *(Goal("heal", nodes, "ms", None, most) for nodes, most in zip(_SIZES, (12_000, 12_000, 20_000), strict=True)),
    *(
        Goal(what, nodes, "bytesPerSecond", most, None)
        for what in ("idle", "young")
        for nodes, most in zip(_SIZES, (250, 250, 300), strict=True)
    ),
    *(
        Goal("idle", nodes, "secondsPerCpuSecond", least, None, at_least=True)
        for nodes, least in zip(_SIZES, (10_000, 800, 40), strict=True)
    ),
    *(Goal(f"false-dead@{loss}", nodes, "dead", None, 0) for loss in (0, 10) for nodes in _FALSE_DEAD_HOURS),
    Goal("slow-nodes", _SLOW_NODES, "verdicts", None, 0),
)
"""LAN profile; crash: from the crash until every live node holds it DEAD."""


def jobs() -> list[Job]:
    """Return all jobs, those first that show most for their price."""
    found: list[Job] = []
    for nodes in _SIZES:
        for what in ("idle", "young", "spread", "join", *(f"crash@{loss}" for loss in LOSSES), "heal"):
            found += [Job(what, nodes, seed) for seed in range(1, _SEEDS[nodes] + 1)]
        if nodes in _FALSE_DEAD_HOURS:
            for loss in (0, 10):
                found += [Job(f"false-dead@{loss}", nodes, seed) for seed in range(1, _FALSE_DEAD_HOURS[nodes] + 1)]
        if nodes == 100:
            found += [Job("slow-nodes", _SLOW_NODES, seed) for seed in range(1, _SLOW_SEEDS + 1)]
    return found


def behaviour() -> str:
    """Return the trace hash of a small run: figures that were taken under another one are not comparable."""
    faults = (Fault(at=8_000, fault="crash", nodes=(1,), duration=20_000), Fault(at=35_000, fault="pause", nodes=(4,)))
    plan = Scenario(nodes=7, seconds=60, seed=7, link=LinkState(loss_percent=10), faults=faults)
    return run(plan).trace


def run_job(job: Job) -> Mapping[str, int | float] | None:
    """Run one job; None when the experiment did not come to its end."""
    what, _, loss = job.what.partition("@")
    nodes, seed = job.nodes, job.seed
    experiments: dict[str, Callable[[], Mapping[str, int | float] | None]] = {
        "crash": lambda: _named(figure.crash(nodes, seed, int(loss)), "firstSuspectMs", "ms"),
        "spread": lambda: _named(figure.spread(nodes, seed), "ms"),
        "join": lambda: _named(figure.join(nodes, seed), "ms"),
        "heal": lambda: _named(figure.heal(nodes, seed), "ms", "falseDead"),
        "idle": lambda: figure.idle(nodes, seed, max(60, 20_000 // nodes)),
        "young": lambda: figure.young(nodes, seed, min(60, nodes)),
        "false-dead": lambda: figure.false_verdicts(nodes, seed, 3_600, int(loss)),
        "slow-nodes": lambda: figure.slow_nodes(nodes, seed, 120, blocked=4),
    }
    with figure.uncollected():
        return experiments[what]()


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return what is known of each goal: the figure, how many seeds it rests on, and whether it is met.

    met: None while there is no result, or nothing is demanded. unfinished: runs that did not come to their end; then a
    goal is not met.
    """
    by_kind: dict[tuple[str, int], list[Result]] = {}
    for result in results:
        by_kind.setdefault((result.job.what, result.job.nodes), []).append(result)
    table = []
    for goal in GOALS:
        ran = by_kind.get((goal.what, goal.nodes), [])
        values = [result.found[goal.number] for result in ran if result.found is not None]
        row: dict[str, Any] = {"figure": goal.what, "nodes": goal.nodes, "number": goal.number, "seeds": len(ran)}
        row["unfinished"] = len(ran) - len(values)
        row["p50"] = figure.percentile(values, 50) if values else None
        row["p99"] = figure.percentile(values, 99) if values else None
        row["goal"] = {"p50": goal.p50, "p99": goal.p99}
        row["met"] = None if not ran or goal.p50 is goal.p99 is None else _met(goal, row)
        table.append(row)
    return table


def _met(goal: Goal, row: Mapping[str, Any]) -> bool:
    if row["unfinished"] or row["p50"] is None:
        return False
    if goal.at_least:
        return goal.p50 is not None and row["p50"] >= goal.p50
    return all(bound is None or row[name] <= bound for name, bound in (("p50", goal.p50), ("p99", goal.p99)))


def _named(values: int | tuple[int, ...] | None, *names: str) -> dict[str, int | float] | None:
    if values is None:
        return None
    return dict(zip(names, values if isinstance(values, tuple) else (values,), strict=True))
