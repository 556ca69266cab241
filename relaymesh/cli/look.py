"""The commands that only look: agents, tasks and their steps, logs, why something waits, counts, health."""

from __future__ import annotations

import os
from typing import Any

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import (
    LABEL,
    Flag,
    WholeNumber,
    agents_option,
    command,
    dead_letter_filters,
    given,
    task_argument,
)

__all__ = [
    "agents",
    "dead_list",
    "explain",
    "health",
    "lease_conflicts",
    "lease_report",
    "logs",
    "ownership_events",
    "stats",
    "task",
    "tasks",
    "workflow",
]


_UNUSABLE_MAX = 20
"""Entries of the agent files that were not taken, told one by one."""


@command("agents", example="relaymesh agents --agents my_agents.py")
@agents_option
@pass_call
def agents(call: Call, agent_sources: tuple[str, ...]) -> None:
    with call.client(agent_sources) as client:
        call.show(client.agents())
        for sentence in client.unusable_agents()[:_UNUSABLE_MAX]:
            click.echo(sentence, err=True)


@command("task", example="relaymesh task tsk_0190a1b2-...")
@task_argument
@pass_call
def task(call: Call, task_id: str) -> None:
    with call.client() as client:
        call.show(client.task(task_id))


@command("tasks", example="relaymesh tasks --status DEAD_LETTER --limit 10")
@click.option("--status", metavar="STATUS", help="Only tasks in this state, such as PENDING, RUNNING or DEAD_LETTER.")
@click.option("--limit", type=WholeNumber(min=1), default=50, help="At most this many.")
@click.option("--offset", type=WholeNumber(min=0), default=0, help="Leave out this many first.")
@click.option("--label", metavar="KEY=VALUE", type=LABEL, help="Only tasks with this label.")
@click.option("--after", metavar="CURSOR", help="Go on after this task: its updatedAtMs, a colon, its taskId.")
@pass_call
def tasks(
    call: Call, status: str | None, limit: int, offset: int, label: tuple[str, str] | None, after: str | None
) -> None:
    with call.client() as client:
        page = client.tasks_page(status=status, limit=limit, offset=offset, label=label, after=after)
        rows = list(page.tasks)
        asked = {"status": status, "limit": limit, "offset": offset, "count": len(rows)}
        call.looked(client, "tasks.list", "runtime/tasks", asked)
        call.show(rows, empty=_no_tasks(status, label, offset) if page.after is None else _MORE)
        if page.after is not None and len(rows) < limit:
            # A program needs it as well: without it a page that is not full looks like the end.
            click.echo(f"looked at part of the tasks only; go on with --after {page.after}", err=True)


_MORE = "none of the tasks that were looked at fits"


def _no_tasks(status: str | None, label: tuple[str, str] | None, offset: int) -> str:
    if status is not None or label is not None or offset:
        return "no tasks that fit; `relaymesh tasks` shows them all"
    return "no tasks here; `relaymesh submit --agent echo --input hello` makes one"


@command("dead-list", example="relaymesh dead-list --agent fetch --newer-than 2h")
@click.option("--limit", type=WholeNumber(min=1), default=100, help="At most this many.")
@dead_letter_filters
@pass_call
def dead_list(call: Call, /, limit: int, **filters: Any) -> None:
    """`replay-batch` takes the same filters and gives what they find a new start."""
    with call.client() as client:
        call.show(client.dead_letters(limit=limit, **given(filters)), empty="no dead letters that fit")


@command("workflow", example="relaymesh workflow tsk_0190a1b2-...")
@task_argument
@pass_call
def workflow(call: Call, task_id: str) -> int:
    from relaymesh.errors import TaskNotFoundError

    with call.client() as client:
        try:
            detail = client.workflow(task_id)
        except TaskNotFoundError:
            found = {"found": False}
            call.looked(client, "workflow.get", f"task/{task_id}", found, result="not_found", task_id=task_id)
            if call.tables:
                raise
            from relaymesh.cli.fault import not_found

            return not_found("workflow")
        call.looked(client, "workflow.get", f"task/{task_id}", {"found": True}, task_id=task_id)
        call.show(detail)
        return 0


@command("logs", example="relaymesh logs tsk_0190a1b2-... --follow")
@task_argument
@click.option("--follow", cls=Flag, default=False, help="Keep printing until the task has ended.")
@pass_call
def logs(call: Call, task_id: str, follow: bool) -> None:
    """In a pipe each line is one JSON object."""
    with call.client() as client:
        entry = None
        for entry in client.logs(task_id, follow=follow):
            call.stream(entry)
    if entry is None:
        call.note("No attempt of this task has logged anything.")


@command("explain", example="relaymesh explain tsk_0190a1b2-...")
@task_argument
@pass_call
def explain(call: Call, task_id: str) -> None:
    import shlex

    from msgspec.structs import replace

    from relaymesh.cli.paste import command_line

    with call.client() as client:
        found = client.explain(task_id)
    # A command that lacks our --root would look at another one when it is pasted.
    told = [
        why
        if why.command is None
        else replace(why, command=command_line(call.root, call.namespace, shlex.split(why.command)[1:]))
        for why in found
    ]
    call.show(told, empty="no step of this task waits")


@command("stats", example="relaymesh stats")
@pass_call
def stats(call: Call) -> None:
    with call.client() as client:
        counts = client.stats()
        numbers = {
            name: value
            for name in counts.__struct_fields__
            if isinstance(value := getattr(counts, name), int | float) and not isinstance(value, bool)
        }
        call.looked(client, "runtime.stats", "runtime/stats", numbers)
        call.show(counts)


@command("health", example="relaymesh health || echo unwell\nrelaymesh health --check live")
@click.option(
    "--check",
    "checked",
    type=click.Choice(["ready", "live"], case_sensitive=False),
    default="ready",
    help="What the exit status is about: ready, all is well; live, the database answers and work moves.",
)
@pass_call
def health(call: Call, checked: str) -> int:
    """The exit status is 1 when anything is wrong; with --check live only when starting the node anew may help. Work
    that is ready while slots are free and nothing has moved for 10 s is wrong either way.
    """
    obstacle = call.doors.obstacle()
    if obstacle is not None:
        click.echo(f"warning: {obstacle}", err=True)
    with call.client() as client:
        outcome = client.health()
        if outcome.audit_dir_ok:
            found = {
                "db_ok": outcome.db_ok,
                "inbox_ok": outcome.inbox_dir_ok,
                "processing_ok": outcome.processing_dir_ok,
                "disk_free_bytes": outcome.disk_free_bytes,
                "min_free_disk_bytes": outcome.min_free_disk_bytes,
                "disk_pressure": outcome.disk_pressure,
            }
            result = "ok" if outcome.ok else "degraded"
            call.looked(client, "runtime.health", "runtime/health", found, result=result)
    call.show(outcome)
    if checked.lower() == "live":
        return 0 if outcome.live else 1
    return 0 if outcome.ok and obstacle is None else 1


@command("lease-conflicts", example="relaymesh lease-conflicts --since-hours 1")
@click.option("--limit", type=WholeNumber(min=1), default=100, help="At most this many, newest first.")
@click.option("--since-hours", type=WholeNumber(min=1), default=24, help="Not older than this many hours.")
@pass_call
def lease_conflicts(call: Call, limit: int, since_hours: int) -> None:
    with call.client() as client:
        rows = client.lease_conflicts(limit, since_hours)
        asked = {"limit": limit, "since_hours": since_hours, "count": len(rows)}
        call.looked(client, "lease.conflicts.list", "runtime/lease-conflicts", asked)
        call.show(rows, empty="no lease conflicts in that time")


@command("ownership-events", example="relaymesh ownership-events --since-hours 1")
@click.option("--limit", type=WholeNumber(min=1), default=100, help="At most this many, newest first; up to 100,000.")
@click.option("--since-hours", type=WholeNumber(min=1), default=24, help="Not older than this many hours.")
@pass_call
def ownership_events(call: Call, limit: int, since_hours: int) -> None:
    """They come from the table of lease conflicts and from the audit log."""
    with call.client() as client:
        rows = client.ownership_events(limit, since_hours)
        asked = {"limit": limit, "since_hours": since_hours, "count": len(rows)}
        call.looked(client, "ownership.events.list", "runtime/ownership", asked)
        call.show(rows, empty="no result was refused in that time, and no step taken back from a dead node")


@command("lease-report", example="relaymesh lease-report --hours 48 --out conflicts.json")
@click.option("--hours", type=WholeNumber(min=1), default=24, help="Not older than this many hours.")
@click.option("--limit", type=WholeNumber(min=10), default=5000, help="At most this many, the newest; up to 100,000.")
@click.option(
    "--out", metavar="FILE", help="File to write.  [default: reports/lease-conflicts-manual.json in the root]"
)
@pass_call
def lease_report(call: Call, hours: int, limit: int, out: str | None) -> None:
    """Counts by type, the steps and nodes with most of them, and the conflicts themselves, as JSON. Nodes and
    `maintenance` write such a file once an hour.
    """
    with call.client() as client:
        call.show(client.lease_report(hours, limit, out=None if out is None else os.path.abspath(out)))
