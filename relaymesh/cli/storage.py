"""The commands about the space that a root takes, and about the schema of its database."""

from __future__ import annotations

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import Flag, WholeNumber, command

__all__ = [
    "compact",
    "payload_key_remove",
    "payload_key_rotate",
    "payload_key_status",
    "purge",
    "schema_migrations",
    "schema_rollback",
]

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
    """Nodes may work meanwhile. A task whose idempotency key is still held stays, so to remove younger ones lower
    --idempotency-ttl-days as well. Lease conflicts go with dead letters. Payload files go when no task names them any
    more.
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


@command("payload-key-status", example="relaymesh payload-key-status")
@click.option("--count", cls=Flag, default=False, help="Also count the texts under each key; reads all rows.")
@pass_call
def payload_key_status(call: Call, count: bool) -> None:
    """The keys themselves are never shown. Without a keyring `activeKid` is empty: it is made with the first text
    that is encrypted.
    """
    with call.client() as client:
        call.show(client.payload_keys.status(count=count))


@command("payload-key-rotate", example="relaymesh payload-key-rotate")
@pass_call
def payload_key_rotate(call: Call) -> None:
    """Running processes take it before their next write. Nodes bring what is stored under the new key, a piece at a
    time; the old keys stay until you remove them.
    """
    with call.client() as client:
        call.show(client.payload_keys.rotate())


@command("payload-key-remove", example="relaymesh payload-key-remove k1764000000000")
@click.argument("kid")
@pass_call
def payload_key_remove(call: Call, kid: str) -> None:
    """KID is an old key. It is refused while a text of the root needs it, and within 10 minutes of the rotation.
    Snapshots have keyrings of their own.
    """
    with call.client() as client:
        call.show(client.payload_keys.remove(kid))


@command("schema-migrations", example="relaymesh schema-migrations")
@click.option("--limit", type=WholeNumber(min=1), default=50, help="At most this many, the newest.")
@pass_call
def schema_migrations(call: Call, limit: int) -> None:
    """It opens the database as it is, and brings nothing up to date."""
    with call.client() as client:
        call.show(client.schema_migrations(limit))


@command("schema-rollback", example="relaymesh schema-rollback --version 20261121_002_plain_rare")
@click.option("--version", required=True, metavar="VERSION", help="The newest one that schema-migrations lists.")
@pass_call
def schema_rollback(call: Call, version: str) -> int:
    """For a return to the release before: the next start of this one applies it again. Stop the nodes first. The exit
    status is 1 when the migration was not there.
    """
    with call.client() as client:
        outcome = client.schema_rollback(version)
    call.show(outcome)
    return 0 if outcome.removed_migration_row else 1
