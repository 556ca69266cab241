"""The commands about the audit log. Rows are printed as they stand in it, one JSON object per line."""

from __future__ import annotations

import os

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import INSTANT, Flag, WholeNumber, command

__all__ = ["audit_query", "audit_siem_export", "audit_tail", "audit_verify"]


@command("audit-tail", example="relaymesh audit-tail --lines 20")
@click.option("--lines", type=WholeNumber(min=1), default=50, help="How many records, the newest last.")
@pass_call
def audit_tail(call: Call, lines: int) -> None:
    with call.client() as client:
        rows = client.audit_tail(lines)
    for row in rows:
        click.echo(row)


@command("audit-query", example="relaymesh audit-query --action task.cancel --from 2030-01-31T08:00:00Z")
@click.option("--task-id", help="Records of this task only.")
@click.option("--action", help="Records of exactly this action only.")
@click.option("--from", "from_ms", type=INSTANT, help="Not older than this instant.")
@click.option("--to", "to_ms", type=INSTANT, help="Not newer than this instant.")
@click.option("--limit", type=WholeNumber(min=1), default=100, help="At most this many, newest first.")
@pass_call
def audit_query(
    call: Call, task_id: str | None, action: str | None, from_ms: int | None, to_ms: int | None, limit: int
) -> None:
    with call.client() as client:
        rows = client.audit_query(task=task_id, action=action, from_ms=from_ms, to_ms=to_ms, limit=limit)
    for row in rows:
        click.echo(row)


@command("audit-verify", example="relaymesh audit-verify || echo tampered")
@click.option("--limit", type=WholeNumber(min=0), default=0, help="Check this many of the last records; 0 checks all.")
@click.option("--accept-key", cls=Flag, default=False, help="The key was replaced on purpose: record that, and go on.")
@pass_call
def audit_verify(call: Call, limit: int, accept_key: bool) -> int:
    """The exit status is 1 when a record was changed, removed, inserted, moved or cut off, or when the key that seals
    the log is not the one that it was.
    """
    with call.client() as client:
        outcome = client.audit_verify(
            limit, accept_key=accept_key, on_fault=lambda sentence: click.echo(sentence, err=True)
        )
    call.show(outcome)
    return 0 if outcome.ok else 1


@command("audit-siem-export", example="relaymesh audit-siem-export --out audit.ndjson --limit 10000")
@click.option("--out", required=True, metavar="FILE", help="File to write, one JSON object per line.")
@click.option("--limit", type=WholeNumber(min=1), default=200, help="At most this many, newest first.")
@click.option("--action", help="Records of exactly this action only.")
@click.option("--task-id", help="Records of this task only.")
@pass_call
def audit_siem_export(call: Call, out: str, limit: int, action: str | None, task_id: str | None) -> None:
    with call.client() as client:
        call.show(client.audit_siem_export(os.path.abspath(out), limit, action=action, task=task_id))
