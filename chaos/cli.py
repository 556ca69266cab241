"""``relaymesh chaos``: simulate a mesh under faults, and check histories."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

from relaymesh.cli.option import Command, WholeNumber

__all__ = ["chaos"]


@click.group(name="chaos", no_args_is_help=True)
def chaos() -> None:
    """Break a mesh on purpose, and check that what must hold still holds."""


@chaos.command("sim", cls=Command)
@click.option("--nodes", type=WholeNumber(), help="Nodes of the mesh.  [default: those of the scenario, or 5]")
@click.option("--seconds", type=WholeNumber(), help="Simulated time.  [default: that of the scenario, or 60]")
@click.option("--seed", type=WholeNumber(), help="Decides all chance.  [default: that of the scenario, or 1]")
@click.option("--scenario", metavar="FILE", help="What goes wrong when, as JSON.  [default: nothing]")
@click.option("--random", "by_chance", is_flag=True, help="Draw the faults from the seed, in place of a scenario.")
@click.option("--codec", is_flag=True, help="Encode, authenticate and parse every packet; slower.")
@click.option("--history", metavar="FILE", help="Write what happened to a file, for `chaos check`.")
@click.option("--shrink/--no-shrink", default=True, help="Look for the shortest fault list when something broke.")
def sim(
    nodes: int | None,
    seconds: int | None,
    seed: int | None,
    scenario: str | None,
    by_chance: bool,
    codec: bool,
    history: str | None,
    shrink: bool,
) -> int:
    """Run a simulated mesh in virtual time and print its figures as JSON. The same seed gives the same trace hash.

    The exit status is 1 when an invariant is broken; then the seed and the shortest fault list are printed too.

    Example: relaymesh chaos sim --scenario chaos/scenarios/partition.json
    """
    from chaos.history import writable, write
    from chaos.sim.kernel import seeded
    from chaos.sim.run import run
    from chaos.sim.scenario import Fault, Scenario, drawn
    from chaos.sim.shrink import shortest

    if by_chance and scenario is not None:
        raise click.UsageError("--random draws the faults itself: leave --scenario out")
    given = {"nodes": nodes, "seconds": seconds, "seed": seed}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if scenario is not None:
        plan = Scenario.read(Path(scenario), given)
    elif by_chance:
        number = 1 if seed is None else seed
        # As scripts/sim_seeds.py draws it, who prints this command.
        plan = drawn(number, seeded(number, "faults"), nodes=5 if nodes is None else nodes, codec=codec)
        plan = replace(plan, **chosen)
    else:
        plan = Scenario(**chosen)
    if codec:
        plan = replace(plan, codec=True)
    if history is not None:
        writable(Path(history))
    result = run(plan)
    answer: dict[str, Any] = {**result.figures, "traceHash": result.trace, "broken": []}
    if history is not None:
        write(Path(history), result.history)
    if result.broken:
        names = sorted({broken.invariant for broken in result.broken})

        def fails(faults: tuple[Fault, ...]) -> bool:
            again = run(replace(plan, faults=faults)).broken
            return any(broken.invariant in names for broken in again)

        answer["broken"] = [f"{broken.invariant}: {broken.what}" for broken in result.broken[:20]]
        answer["faults"] = msgspec.to_builtins(shortest(plan.faults, fails) if shrink else plan.faults)
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    return 1 if result.broken else 0


@chaos.command("procs", cls=Command)
@click.option(
    "--nodes", type=WholeNumber(min=2, max=16), help="Nodes, at most 16.  [default: those of the scenario, or 3]"
)
@click.option(
    "--seconds", type=WholeNumber(min=1, max=3_600), help="How long it lasts.  [default: that of the scenario, or 20]"
)
@click.option("--seed", type=WholeNumber(), help="Decides what links do.  [default: that of the scenario, or 1]")
@click.option("--scenario", metavar="FILE", help="What goes wrong when, as for `chaos sim`.  [default: nothing]")
@click.option("--one-root", is_flag=True, help="All nodes work on one root.  [default: each on its own]")
@click.option("--history", metavar="FILE", help="Write what happened to a file, for `chaos check`.")
@click.option("--keep", metavar="DIR", help="An empty folder for roots and logs, which stay.  [default: removed]")
def procs(
    nodes: int | None,
    seconds: int | None,
    seed: int | None,
    scenario: str | None,
    one_root: bool,
    history: str | None,
    keep: str | None,
) -> int:
    """Run a scenario on real processes of this machine, with a proxy on the links between them, and print figures as
    JSON. The nodes are ended whatever happens.

    The exit status is 1 when an invariant is broken.

    Example: relaymesh chaos procs --scenario chaos/scenarios/procs.json
    """
    import tempfile

    from chaos.history import writable, write
    from chaos.procs.run import check_plan, run
    from chaos.sim.scenario import Scenario

    given = {"nodes": nodes, "seconds": seconds, "seed": seed}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    plan = (
        Scenario(**{"nodes": 3, "seconds": 20, **chosen}) if scenario is None else Scenario.read(Path(scenario), given)
    )
    check_plan(plan, one_root=one_root)
    if history is not None:
        writable(Path(history))
    with _ended_once():
        if keep is None:
            with tempfile.TemporaryDirectory(prefix="relaymesh-chaos-", ignore_cleanup_errors=True) as folder:
                result = run(plan, Path(folder), one_root=one_root)
        else:
            Path(keep).mkdir(parents=True, exist_ok=True)
            if any(Path(keep).iterdir()):
                raise click.UsageError(f"{keep} is not empty: name a folder that is")
            result = run(plan, Path(keep).absolute(), one_root=one_root)
    if history is not None:
        write(Path(history), result.history)
    broken = [f"{one.invariant}: {one.what}" for one in result.broken[:20]]
    answer = {**result.figures, "broken": broken}
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    return 1 if result.broken else 0


@contextlib.contextmanager
def _ended_once() -> Iterator[None]:
    """Let the first signal to end raise SystemExit, and no later one break off the clean-up that follows."""
    import signal
    import sys

    numbers = (signal.SIGTERM, signal.SIGINT)

    def end(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(128 + number)

    former = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            if signal.getsignal(number) is end:  # else the program is on its way out
                signal.signal(number, handler)


@chaos.command("check", cls=Command)
@click.argument("file", metavar="FILE")
@click.option("--overlap", is_flag=True, help="Leases of one step may overlap (a mesh without quorum).")
def check_history(file: str, overlap: bool) -> int:
    """Check a history (JSONL) for broken invariants; the exit status is 1 when there are any.

    Example: relaymesh chaos check history.jsonl
    """
    from chaos.checker import INVARIANTS, check
    from chaos.finding import bounds_of
    from chaos.history import read

    events = read(Path(file))
    bounds = bounds_of(events)
    broken = check(events, bounds._replace(exclusive=bounds.exclusive and not overlap))
    answer = {
        "events": len(events),
        "checked": list(INVARIANTS),
        "broken": [{"invariant": one.invariant, "line": one.event + 1, "what": one.what} for one in broken],
    }
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    return 1 if broken else 0
