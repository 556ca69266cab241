"""``budgets``: what agents, keys and tasks may spend."""

from __future__ import annotations

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import Command, F

__all__ = ["budgets"]

_EXAMPLE = """\b
Example:
  relaymesh budgets set --agent ask --kind units:tokens --amount 9000 --per 1d
  relaymesh budgets set --key tenant-7 --kind units:usd --amount 2.50 --per 1d
  relaymesh budgets show
  relaymesh budgets remove --agent ask --kind units:tokens"""


@click.group("budgets", epilog=_EXAMPLE)
def budgets() -> None:
    """Budgets are kept in the root: they hold for all processes and over restarts. Agents say what they spend;
    docs/budgets.md tells how, and what happens when a budget is used up.
    """


def _whose(function: F) -> F:
    options = [
        click.option("--agent", metavar="ID", help="The budget of one agent."),
        click.option("--key", metavar="KEY", help="The budget of the steps with one concurrency key."),
        click.option("--task", metavar="ID", help="The budget of one task, a workflow say."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


_kind = click.option(
    "--kind",
    required=True,
    metavar="wall_seconds|cpu_seconds|units:NAME",
    help="Run time, processor time of worker processes, or what agents report.",
)


def _owner(agent: str | None, key: str | None, task: str | None) -> tuple[str, str]:
    given = [(scope, name) for scope, name in (("agent", agent), ("key", key), ("task", task)) if name is not None]
    if len(given) != 1:
        raise click.UsageError("Give one of --agent, --key and --task")
    return given[0]


@budgets.command(
    "set",
    cls=Command,
    example="relaymesh budgets set --agent ask --kind units:tokens --amount 9000 --per 1d",
)
@_whose
@_kind
@click.option("--amount", required=True, metavar="N", help="How much may be spent, such as 1000000 or 2.50.")
@click.option("--per", metavar="TIME", help="In each period, such as 1h or 1d (a day of UTC).  [default: in all]")
@pass_call
def set_(
    call: Call, agent: str | None, key: str | None, task: str | None, kind: str, amount: str, per: str | None
) -> None:
    """Set a budget, or change it. It counts from now on; what was spent stays when only the amount changes."""
    scope, name = _owner(agent, key, task)
    with call.client() as client:
        call.show(client.budgets.set(scope, name, kind, amount, per=per))
        call.note_unknown_agent(client, agent)


@budgets.command("show", cls=Command, example="relaymesh budgets show")
@_whose
@pass_call
def show(call: Call, agent: str | None, key: str | None, task: str | None) -> None:
    """Print each budget, what was spent of it, and what is left."""
    scope, name = (None, None) if agent is key is task is None else _owner(agent, key, task)
    with call.client() as client:
        call.show(client.budgets.list(scope, name), empty="no budgets are set")


@budgets.command("remove", cls=Command, example="relaymesh budgets remove --agent ask --kind units:tokens")
@_whose
@_kind
@pass_call
def remove(call: Call, agent: str | None, key: str | None, task: str | None, kind: str) -> int:
    """Remove a budget and what was spent of it; the exit status is 1 when there is none."""
    scope, name = _owner(agent, key, task)
    with call.client() as client:
        outcome = client.budgets.remove(scope, name, kind)
    call.show(outcome)
    return 0 if outcome.changed else 1
