"""The commands of an operator: set up a root, run a maintenance tick, write exports."""

from __future__ import annotations

import os

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import WholeNumber, command, node_id_option, task_argument

__all__ = ["dead_export", "init", "maintenance", "task_export"]


@command("init", example="relaymesh --root /srv/relaymesh init")
@pass_call
def init(call: Call) -> None:
    with call.client() as client:
        click.echo(f"data root ready: {client.init()}")


@command("maintenance", example="relaymesh maintenance")
@node_id_option("node-local")
@pass_call
def maintenance(call: Call, node_id: str) -> None:
    """It also takes in the files that lie in the inbox, and puts away those whose tasks have ended. A running node does
    all of this by itself.
    """
    with call.client() as client:
        call.show(client.maintenance(node_id))


@command("task-export", example="relaymesh task-export tsk_0190a1b2-... --out task.json")
@task_argument
@click.option("--out", required=True, metavar="FILE", help="File to write.")
@pass_call
def task_export(call: Call, task_id: str, out: str) -> int:
    """The file holds the task, its steps, what it spent and its audit rows. The exit status is 1 when nothing was
    written.
    """
    with call.client() as client:
        outcome = client.task_export(task_id, os.path.abspath(out))
    call.show(outcome)
    return 0 if outcome.exported else 1


@command("dead-export", example="relaymesh dead-export --out dead.json")
@click.option("--out", required=True, metavar="FILE", help="File to write.")
@click.option("--limit", type=WholeNumber(min=1), default=1000, help="At most this many dead letters.")
@pass_call
def dead_export(call: Call, out: str, limit: int) -> None:
    with call.client() as client:
        call.show(client.dead_export(os.path.abspath(out), limit))
