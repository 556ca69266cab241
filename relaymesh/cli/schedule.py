"""``schedule``: hand in work that comes again, look at it, pause it, make up for what was missed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import DURATION, INSTANT, Command, WholeNumber, agents_option, split_budget, split_labels

if TYPE_CHECKING:
    from relaymesh.schedule_view import ScheduleChange

__all__ = ["schedule"]


_EXAMPLE = """\b
Example:
  relaymesh schedule create poll --every 30s --agent echo --input look
  relaymesh schedule list"""


@click.group("schedule", epilog=_EXAMPLE)
def schedule() -> None:
    """A tick is made once, by whichever running node comes first, or by `maintenance` on a root without a node."""


def _command(name: str, *, example: str) -> Callable[[Callable[..., Any]], click.Command]:
    return schedule.command(name, cls=Command, example=example)


_name = click.argument("name", metavar="NAME")


@_command(
    "create",
    example="""relaymesh schedule create nightly --cron "30 2 * * *" --timezone Europe/Berlin --agent echo --input hi
relaymesh schedule create poll --every 30s --agent echo --input look --overlap skip
relaymesh schedule create report --cron @daily --workflow flow.json --missed all --missed-max 7""",
)
@_name
@click.option("--cron", help="Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly.")
@click.option("--every", "every_ms", type=DURATION, help="One tick per interval, from now on: 30s, 5m, 2h; 1s or more.")
@click.option("--at", "at_ms", type=INSTANT, help="One tick only, at this instant.")
@click.option("--timezone", default="UTC", metavar="ZONE", help="Zone of --cron, such as Europe/Berlin.")
@click.option("--agent", help="Id of the agent that each tick submits to.")
@click.option(
    "--input", "text", default="", metavar="TEXT|@FILE|-", help="Its input: text, @ and a file, or - for stdin."
)
@click.option("--workflow", metavar="FILE|-", help="Workflow file that each tick submits instead.")
@click.option("--priority", metavar="high|normal|low", help="Lane of the queue.")
@click.option(
    "--label",
    "labels",
    metavar="KEY=VALUE",
    multiple=True,
    callback=split_labels,
    help="Label of the tasks beside schedule and tick; comma-separated, may be repeated.",
)
@click.option("--missed", default="latest", metavar="skip|latest|all", help="Which ticks are made up for after a gap.")
@click.option("--missed-max", type=WholeNumber(min=1), default=10, help="With --missed all: at most the newest N.")
@click.option("--jitter", "jitter_ms", type=DURATION, help="Start up to this long after the tick, to spread the load.")
@click.option(
    "--budget",
    metavar="KIND=AMOUNT",
    multiple=True,
    callback=split_budget,
    help="What each run may spend in all: wall_seconds, cpu_seconds or units:NAME; may be repeated.",
)
@click.option(
    "--overlap", default="allow", metavar="allow|skip|queue", help="What becomes of a tick while the last run goes on."
)
@agents_option
@pass_call
def create(
    call: Call,
    name: str,
    cron: str | None,
    every_ms: int | None,
    at_ms: int | None,
    timezone: str,
    agent: str | None,
    text: str,
    workflow: str | None,
    priority: str | None,
    labels: dict[str, str],
    missed: str,
    missed_max: int,
    jitter_ms: int | None,
    budget: dict[str, str],
    overlap: str,
    agent_sources: tuple[str, ...],
) -> None:
    """Store a schedule. One of --cron, --every and --at, and --agent or --workflow, are required."""
    from relaymesh.cli.source import read_bytes, text_of
    from relaymesh.core.limit import PAYLOAD_BYTES_MAX, WORKFLOW_BYTES_MAX

    payload = text_of(text, bytes_max=PAYLOAD_BYTES_MAX)
    document = read_bytes(workflow, bytes_max=WORKFLOW_BYTES_MAX + 1) if workflow is not None else None
    with call.client(agent_sources) as client:
        call.show(
            client.schedules.create(
                name,
                cron=cron,
                every_ms=every_ms,
                at_ms=at_ms,
                timezone=timezone,
                agent=agent,
                input=payload,
                workflow=document,
                priority=priority,
                labels=labels,
                missed=missed,
                missed_max=missed_max,
                jitter_ms=jitter_ms or 0,
                overlap=overlap,
                budget=budget,
            )
        )


@_command("list", example="relaymesh schedule list --state PAUSED")
@click.option("--state", metavar="STATE", help="Only those that are ACTIVE, PAUSED or ENDED.")
@click.option("--limit", type=WholeNumber(min=1), default=1000, help="At most this many.")
@click.option("--after", default="", metavar="NAME", help="Those whose name comes behind this one.")
@pass_call
def list_(call: Call, state: str | None, limit: int, after: str) -> None:
    """List schedules by name."""
    with call.client() as client:
        found = client.schedules.list(state=state.strip().upper() if state else None, limit=limit, after=after)
        call.show(found, empty="no schedules")


@_command("show", example="relaymesh schedule show nightly")
@_name
@click.option("--runs", type=WholeNumber(min=0), default=10, help="How many of the last ticks.")
@pass_call
def show(call: Call, name: str, runs: int) -> None:
    """Show one schedule with the ticks that were made last."""
    with call.client() as client:
        call.show(client.schedules.show(name, runs=runs))


@_command("next", example="relaymesh schedule next nightly --count 3")
@_name
@click.option("--count", type=WholeNumber(min=1), default=5, help="How many, at most 1,000.")
@pass_call
def next_(call: Call, name: str, count: int) -> None:
    """Say when the next ticks are."""
    with call.client() as client:
        call.show(client.schedules.next(name, count=count), empty="no tick is to come")


@_command("pause", example="relaymesh schedule pause nightly")
@_name
@pass_call
def pause(call: Call, name: str) -> int:
    """Make no more ticks until it is resumed. The exit status is 1 when it was not active."""
    with call.client() as client:
        return _tell(call, client.schedules.pause(name))


@_command("resume", example="relaymesh schedule resume nightly")
@_name
@pass_call
def resume(call: Call, name: str) -> int:
    """Go on from now; the ticks of the pause are not made. The exit status is 1 when it was not paused."""
    with call.client() as client:
        return _tell(call, client.schedules.resume(name))


@_command("trigger", example="relaymesh schedule trigger nightly")
@_name
@pass_call
def trigger(call: Call, name: str) -> int:
    """Start one run now, beside the ticks that are planned."""
    with call.client() as client:
        return _tell(call, client.schedules.trigger(name))


@_command(
    "backfill", example="relaymesh schedule backfill nightly --from 2030-01-01T00:00:00Z --to 2030-01-31T23:59:59Z"
)
@_name
@click.option("--from", "from_ms", type=INSTANT, required=True, help="Where the span begins.")
@click.option("--to", "to_ms", type=INSTANT, help="Where it ends.  [default: now]")
@pass_call
def backfill(call: Call, name: str, from_ms: int, to_ms: int | None) -> None:
    """Make the ticks of a past span that were not made, at most 1,000. Running it again makes none twice."""
    with call.client() as client:
        call.show(client.schedules.backfill(name, from_ms=from_ms, to_ms=to_ms))


@_command("delete", example="relaymesh schedule delete nightly")
@_name
@pass_call
def delete(call: Call, name: str) -> int:
    """Take a schedule away; its tasks stay."""
    with call.client() as client:
        return _tell(call, client.schedules.delete(name))


def _tell(call: Call, change: ScheduleChange) -> int:
    call.show(change)
    return 0 if change.changed else 1
