"""The commands about a whole root: copy it, put a copy back, check and compare copies."""

from __future__ import annotations

import os
from pathlib import Path

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import command

__all__ = ["snapshot", "snapshot_export", "snapshot_import"]


@command("snapshot-export", example="relaymesh snapshot-export --out /backup/today")
@click.option("--out", required=True, metavar="DIR", help="Folder that gets the copy; an older one is replaced.")
@pass_call
def snapshot_export(call: Call, out: str) -> None:
    """The folder gets relaymesh-root and manifest.json. It must not lie inside the data root."""
    with call.client() as client:
        call.show(client.snapshot_export(os.path.abspath(out)))


@command("snapshot-import", example="relaymesh snapshot-import --in /backup/today")
@click.option("--in", "source", required=True, metavar="DIR", help="Folder that snapshot-export wrote.")
@pass_call
def snapshot_import(call: Call, source: str) -> None:
    """Everything is verified before anything changes. Stop the nodes first. What was there is kept in the folder
    replaced of the data root, the newest three of them.
    """
    with call.client() as client:
        call.show(client.snapshot_import(os.path.abspath(source)))
        call.note(f"the former content is kept in {client.root / 'replaced'}")


@click.group("snapshot", epilog="\b\nExample:\n  relaymesh snapshot verify /backup/today")
def snapshot() -> None:
    """Both only read."""


@snapshot.command("verify")
@click.argument("folder", metavar="DIR")
@pass_call
def verify(call: Call, folder: str) -> int:
    """Check every hash, the database and its references.

    The exit status is 1 when anything is wrong.
    """
    from relaymesh.store.verify import verify_snapshot

    outcome = verify_snapshot(_path(folder))
    call.show(outcome)
    return 0 if outcome.ok else 1


def _path(text: str) -> Path:
    return Path(os.path.abspath(text))
