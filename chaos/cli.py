"""``relaymesh chaos``: simulate a mesh under faults, and check histories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

__all__ = ["chaos"]


@click.group(name="chaos", no_args_is_help=True)
def chaos() -> None:
    """Break a mesh on purpose, and check that what must hold still holds."""


@chaos.command("sim")
@click.option("--nodes", type=int, help="Nodes of the mesh.  [default: those of the scenario, or 5]")
@click.option("--seconds", type=int, help="Simulated time.  [default: that of the scenario, or 60]")
@click.option("--seed", type=int, help="Decides all chance.  [default: that of the scenario, or 1]")
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
    from chaos.history import write
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
        plan = replace(drawn(number, seeded(number, "faults"), nodes=5 if nodes is None else nodes), **chosen)
    else:
        plan = Scenario(**chosen)
    if codec:
        plan = replace(plan, codec=True)
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


@chaos.command("check")
@click.argument("file")
@click.option("--overlap", is_flag=True, help="Leases of one step may overlap (a mesh without quorum).")
def check_history(file: str, overlap: bool) -> int:
    """Check a history (JSONL) for broken invariants; the exit status is 1 when there are any.

    Example: relaymesh chaos check history.jsonl
    """
    from chaos.checker import INVARIANTS, Bounds, check
    from chaos.history import read

    events = read(Path(file))
    broken = check(events, Bounds(exclusive=not overlap))
    answer = {
        "events": len(events),
        "checked": list(INVARIANTS),
        "broken": [{"invariant": one.invariant, "line": one.event + 1, "what": one.what} for one in broken],
    }
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
    return 1 if broken else 0
