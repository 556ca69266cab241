"""Whether a root can be used. One that is missing or broken is an answer, not an error.

Writes one counter, to see that the disk takes a write.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from relaymesh.errors import RelayMeshError
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from relaymesh.view import HealthOutcome

__all__ = ["check"]

# Reads every page: a second for a gigabyte, which is too long for a look. Of a larger one only the edges are read.
_CHECKED_BYTES_MAX = 134_217_728


def check(root: Path, *, now_ms: int) -> HealthOutcome:
    """Return what works and what does not."""
    folders = {
        "inbox": all(_usable(root / "inbox" / lane) for lane in ("high", "normal", "low")),
        "processing": _usable(root / "processing"),
        "meta": _usable(root / "meta"),
        "payload": _usable(root / "payload"),
        "audit": _usable(root / "audit"),
    }
    database = _database(root, now_ms)
    instant = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return HealthOutcome(
        ok=database and all(folders.values()),
        db_ok=database,
        inbox_dir_ok=folders["inbox"],
        processing_dir_ok=folders["processing"],
        meta_dir_ok=folders["meta"],
        payload_dir_ok=folders["payload"],
        audit_dir_ok=folders["audit"],
        disk_free_bytes=_free_bytes(root),
        min_free_disk_bytes=0,
        disk_pressure=False,
        checked_at=instant,
    )


def _usable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.W_OK)


def _database(root: Path, now_ms: int) -> bool:
    if not (root / DATABASE).is_file() or not os.access(root / DATABASE, os.W_OK):
        return False
    try:
        store = Store.open(root, now_ms=now_ms, create=False)
        try:
            with store.reading():
                answer = "ok"
                if (root / DATABASE).stat().st_size <= _CHECKED_BYTES_MAX:
                    (answer,) = store.conn.execute("PRAGMA quick_check(1)").fetchone()
            with store.write():  # the write lock can be had, and the disk takes a write
                store.add_counter("health_checks", 1)
            return bool(answer == "ok")
        finally:
            store.close()
    except RelayMeshError:
        return False


def _free_bytes(root: Path) -> int:
    try:
        return shutil.disk_usage(root if root.exists() else root.parent).free
    except OSError:
        return -1
