"""The commands that steer a running queue: limits, pauses, drained nodes. All hold until they are taken back."""

from __future__ import annotations

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import Command, F, WholeNumber

__all__ = ["limits", "queue"]


def _epilog(lines: str) -> str:
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines.splitlines())


_LIMITS = """\
relaymesh limits set --agent summarize --max-concurrency 4 --rate 100/m
relaymesh limits set --each-key --max-concurrency 2
relaymesh limits show
relaymesh limits remove --agent summarize"""
_QUEUE = """\
relaymesh queue pause --agent summarize --reason 'the model is down'
relaymesh queue resume --agent summarize
relaymesh queue drain node-7
relaymesh queue status"""


@click.group("limits", epilog=_epilog(_LIMITS))
def limits() -> None:
    """Limits are kept in the root: they hold for all processes and over restarts. Running nodes go by a change from
    their next claim on. docs/limits.md says how limits work together.
    """


def _whose(function: F) -> F:
    options = [
        click.option("--overall", is_flag=True, help="Limit all steps of the root together."),
        click.option("--agent", metavar="ID", help="Limit the steps of one agent."),
        click.option("--key", metavar="KEY", help="Limit the steps with one concurrency key."),
        click.option("--each-key", is_flag=True, help="Limit the steps of each key that has no limit of its own."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def _scope(overall: bool, agent: str | None, key: str | None, each_key: bool) -> tuple[str, str]:
    given = [
        (scope, name)
        for scope, name, there in (
            ("overall", "", overall),
            ("agent", agent or "", agent is not None),
            ("key", key or "", key is not None),
            ("each-key", "", each_key),
        )
        if there
    ]
    if len(given) != 1:
        raise click.UsageError("Give one of --overall, --agent, --key and --each-key")
    return given[0]


@limits.command("set", cls=Command, example="relaymesh limits set --agent summarize --max-concurrency 4 --rate 100/m")
@_whose
@click.option("--max-concurrency", type=WholeNumber(min=0), metavar="N", help="Steps that may run at a time.")
@click.option("--rate", metavar="N/TIME", help="Steps that may start in a time, such as 5/s, 100/m or 1000/24h.")
@click.option(
    "--burst", type=WholeNumber(min=1), metavar="N", help="Starts at once after a pause.  [default: as in one TIME]"
)
@pass_call
def set_(
    call: Call,
    overall: bool,
    agent: str | None,
    key: str | None,
    each_key: bool,
    max_concurrency: int | None,
    rate: str | None,
    burst: int | None,
) -> None:
    """Set a limit, or change the part of it that is given.

    A limit on an agent beats the one in the agent's own code. With 0 nothing new starts.
    """
    scope, name = _scope(overall, agent, key, each_key)
    if max_concurrency is None and rate is None and burst is None:
        raise click.UsageError("Say what the limit is: give --max-concurrency, --rate, or both")
    with call.client() as client:
        call.show(client.set_limit(scope, name, max_concurrency=max_concurrency, rate=rate, burst=burst))
        call.note_unknown_agent(client, agent)


@limits.command("show", cls=Command, example="relaymesh limits show")
@pass_call
def show(call: Call) -> None:
    """Print each limit, what runs against it, and the room that it leaves."""
    with call.client() as client:
        call.show(client.limits(), empty="no limits are set")


@limits.command("remove", cls=Command, example="relaymesh limits remove --agent summarize")
@_whose
@pass_call
def remove(call: Call, overall: bool, agent: str | None, key: str | None, each_key: bool) -> int:
    """Remove a limit; the exit status is 1 when there is none. Each key goes back to one step at a time."""
    scope, name = _scope(overall, agent, key, each_key)
    with call.client() as client:
        outcome = client.remove_limit(scope, name)
    call.show(outcome)
    return 0 if outcome.changed else 1


@click.group("queue", epilog=_epilog(_QUEUE))
def queue() -> None:
    """A pause keeps new steps from being taken; what runs goes on to its end, and submits are stored as ever. It holds
    for all processes and over restarts, until it is taken back.
    """


_agent = click.option("--agent", metavar="ID", help="Only the steps of this agent.")
_priority = click.option("--priority", metavar="high|normal|low", help="Only the steps of this priority.")
_reason = click.option("--reason", default="", help="Shown by `queue status` and kept in the audit log.")


@queue.command("pause", cls=Command, example="relaymesh queue pause --agent summarize --reason 'the model is down'")
@_agent
@_priority
@_reason
@pass_call
def pause(call: Call, agent: str | None, priority: str | None, reason: str) -> None:
    """Let nothing new be taken: of the whole queue, of one agent, or of one priority."""
    with call.client() as client:
        call.show(client.pause_queue(agent=agent, priority=priority, reason=reason))
        call.note_unknown_agent(client, agent)


@queue.command("resume", cls=Command, example="relaymesh queue resume --agent summarize")
@_agent
@_priority
@click.option("--node", metavar="ID", help="Let a drained node take steps again.")
@pass_call
def resume(call: Call, agent: str | None, priority: str | None, node: str | None) -> int:
    """End the pause of just that; the exit status is 1 when there is none."""
    with call.client() as client:
        outcome = client.resume_queue(agent=agent, priority=priority, node=node)
    call.show(outcome)
    return 0 if outcome.changed else 1


@queue.command("drain", cls=Command, example="relaymesh queue drain node-7")
@click.argument("node", metavar="NODE")
@_reason
@pass_call
def drain(call: Call, node: str, reason: str) -> None:
    """Let a node take nothing new; its steps go on to their end. `queue resume --node NODE` takes it back."""
    with call.client() as client:
        call.show(client.drain_node(node, reason=reason))


@queue.command("status", cls=Command, example="relaymesh queue status")
@pass_call
def status(call: Call) -> None:
    """Print what is paused, how much waits and runs, and which drained nodes run nothing more."""
    with call.client() as client:
        call.show(client.queue_status())
