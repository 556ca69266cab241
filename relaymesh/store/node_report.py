"""The reports of running nodes: files in ``run/``, written aside and renamed, read by whoever exposes metrics."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from relaymesh.run_file import put_run_file
from relaymesh.store.node_row import HEARTBEAT_STALE_MS
from relaymesh.store.presence import host_name, is_alive
from relaymesh.wire.node_report import NodeReport, decode_report, encode_report

__all__ = ["NODES_MAX", "read_reports", "remove_report", "write_report"]

NODES_MAX = 64
"""Nodes whose reports are read, those that wrote last."""
_FILE_BYTES_MAX = 1_048_576
_SUFFIX = ".metrics"


def write_report(run: Path, report: NodeReport) -> None:
    """Replace a node's report. It is news, not a record: nothing is forced to the disk.

    Raises OSError.
    """
    put_run_file(run / f"{report.node_id}{_SUFFIX}", encode_report(report))


def remove_report(run: Path, node_id: str) -> None:
    """Take a node's report away, at its orderly end."""
    with contextlib.suppress(OSError):
        (run / f"{node_id}{_SUFFIX}").unlink()


def read_reports(run: Path, *, now_ms: int) -> list[NodeReport]:
    """Return the reports of nodes that live, by node id: by their lock on this machine, by age elsewhere."""
    files: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError), os.scandir(run) as entries:
        for entry in entries:
            if entry.name.endswith(_SUFFIX):
                with contextlib.suppress(OSError):  # the node has just ended
                    files.append((entry.stat().st_mtime, Path(entry.path)))
    reports = [report for _, path in sorted(files)[-NODES_MAX:] if (report := _read(path)) is not None]
    here = host_name()
    living = [report for report in reports if _lives(run, report, here, now_ms)]
    return sorted(living, key=lambda report: report.node_id)


def _lives(run: Path, report: NodeReport, here: str, now_ms: int) -> bool:
    alive = is_alive(run, report.node_id, here) if report.host == here else None
    return alive if alive is not None else now_ms - report.written_at_ms <= HEARTBEAT_STALE_MS


def _read(path: Path) -> NodeReport | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except OSError:
        return None
    report = decode_report(data) if len(data) <= _FILE_BYTES_MAX else None
    return report if report is not None and path.name == f"{report.node_id}{_SUFFIX}" else None
