"""The commands about the space that a root takes, and about the schema of its database."""

from __future__ import annotations

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import Flag, WholeNumber, command

__all__ = ["compact", "purge"]

_DAYS = WholeNumber(min=0)


@command("purge", example="relaymesh purge --done-retention-days 30 --dry-run")
@click.option("--done-retention-days", type=_DAYS, default=7, help="Keep tasks that succeeded so many days; 0: today.")
@click.option("--dead-retention-days", type=_DAYS, default=7, help="Keep dead-lettered and cancelled ones so long.")
@click.option("--idempotency-ttl-days", type=_DAYS, default=7, help="Hold the key of an ended task so long.")
@click.option("--dry-run", cls=Flag, default=False, help="Only count what would go.")
@pass_call
def purge(
    call: Call, done_retention_days: int, dead_retention_days: int, idempotency_ttl_days: int, dry_run: bool
) -> None:
    """Nodes may work meanwhile. A task whose idempotency key is still held stays. Lease conflicts go with dead letters.
    Payload files go when no task names them any more.
    """
    with call.client() as client:
        outcome = client.purge(
            done_retention_days=done_retention_days,
            dead_retention_days=dead_retention_days,
            idempotency_ttl_days=idempotency_ttl_days,
            dry_run=dry_run,
        )
    call.show(outcome)
    if dry_run:
        call.note("nothing was removed")


@command("compact", example="relaymesh compact")
@pass_call
def compact(call: Call) -> None:
    """Nodes may work meanwhile. It cuts the write-ahead log and removes payload files that nothing names."""
    with call.client() as client:
        call.show(client.compact())
