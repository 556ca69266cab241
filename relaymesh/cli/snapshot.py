"""The commands about a whole root: copy it, put a copy back, check and compare copies."""

from __future__ import annotations

import os
from pathlib import Path

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import Command, Flag, WholeNumber, command
from relaymesh.errors import RelayMeshError

__all__ = ["dr_automation", "snapshot", "snapshot_export", "snapshot_import"]


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


@snapshot.command("verify", cls=Command, example="relaymesh snapshot verify /backup/today")
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


@snapshot.command("diff", cls=Command, example="relaymesh snapshot diff /backup/yesterday /backup/today")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@pass_call
def diff(call: Call, before: str, after: str) -> None:
    """Say what B has other than A: tasks, steps, payloads, settings, files.

    The counts are complete; of each kind the first 50 differences are named.
    """
    from relaymesh.store.snapshot_diff import diff_snapshots

    call.show(diff_snapshots(_path(before), _path(after)))


@command("dr-automation", example="relaymesh dr-automation --drill --offsite-root /mnt/second")
@click.option("--snapshot-root", metavar="DIR", help="Where snapshots go.  [default: dr/NAMESPACE/snapshots]")
@click.option("--offsite-root", metavar="DIR", help="Where copies go.  [default: dr/NAMESPACE/offsite]")
@click.option("--report-out", metavar="FILE", help="Report to write.  [default: dr/NAMESPACE/report-latest.json]")
@click.option("--interval-ms", type=WholeNumber(min=0), default=0, help="Again and again; 0: once. At least 1000.")
@click.option("--drill", cls=Flag, default=False, help="Make a root of the copy and check its health.")
@click.option("--keep", type=WholeNumber(min=1), default=7, help="Snapshots that stay in each of the two folders.")
@pass_call
def dr_automation(
    call: Call,
    snapshot_root: str | None,
    offsite_root: str | None,
    report_out: str | None,
    interval_ms: int,
    drill: bool,
    keep: int,
) -> int:
    """The default folders are in the data root; put the second place on
    another disk. In a loop a round that fails is told and the next one tries again. The exit status is 1 when a drill
    failed; in a loop, when the last one did.
    """
    import signal
    import threading

    from relaymesh.disaster import every

    over = threading.Event()
    if interval_ms:
        for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: over.set())
    ok = True
    with call.client() as client:
        for _ in every(interval_ms, over):
            try:
                report = client.dr_automation(
                    snapshot_root=_path(snapshot_root) if snapshot_root else None,
                    offsite_root=_path(offsite_root) if offsite_root else None,
                    report_out=_path(report_out) if report_out else None,
                    drill=drill,
                    keep=keep,
                )
            except RelayMeshError as error:
                if not interval_ms:
                    raise
                ok = False
                click.echo(f"error[{error.code}]: {error}", err=True)
            else:
                ok = report.drill_ok
                call.show(report)
            if not interval_ms:
                break
    return 0 if ok else 1


def _path(text: str) -> Path:
    return Path(os.path.abspath(text))
