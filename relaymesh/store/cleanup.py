"""``purge`` and ``compact``: a clean-up by hand, from its beginning to its end, beside nodes that work."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from relaymesh.audit import AuditTrail
from relaymesh.core.retention import Ages, Pace, next_pace, pause_ns
from relaymesh.outcome import CompactOutcome, PurgeOutcome
from relaymesh.store.connection import BUSY_TIMEOUT_MS
from relaymesh.store.durable import remove_tree
from relaymesh.store.lease_report import drop_reports
from relaymesh.store.log_file import log_bytes
from relaymesh.store.own_folder import is_own_folder
from relaymesh.store.purge import Purge, Purged
from relaymesh.store.store import Store
from relaymesh.store.sweep import sweep

__all__ = ["compact", "preview", "purge", "purge_files", "run_pieces", "tell"]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_DAY_MS = 86_400_000
Sleep = Callable[[float], None]


def purge(
    store: Store,
    *,
    done_days: int,
    dead_days: int,
    key_days: int,
    now_ms: int,
    files_are_messages: bool = False,
    trail: AuditTrail | None = None,
    sleep: Sleep = time.sleep,
) -> PurgeOutcome:
    """Remove done and dead work of former days, and keys whose time is over; return what went.

    done_days: by the local date on which a task succeeded. files_are_messages: message files are copies of rows
    (``busMode: files``), so that a message is counted once.

    Raises:
        StoreError, RootError: what went before is gone; call it again for the rest.
    """
    done_before, ages = _ages(now_ms, done_days, dead_days, key_days)
    work = Purge(store, ages, now_ms=lambda: now_ms)
    run_pieces(work, sleep)
    days, dead, retry = purge_files(store.root, done_before, (ages.dead_before_ms or 0) / 1000, remove=True)
    drop_reports(store.root, ages.conflicts_before_ms)
    sweep(store, now_ms=now_ms)  # also when nothing went now: a purge before may have been killed between the two
    trail = trail or AuditTrail(store.root, store.namespace)
    return tell(store, trail, "cli", work.purged, days, dead, retry, files_are_messages=files_are_messages)


def tell(
    store: Store,
    trail: AuditTrail,
    actor: str,
    purged: Purged,
    days: set[str],
    dead: int,
    retry: int,
    *,
    files_are_messages: bool,
    segments: int = 0,
) -> PurgeOutcome:
    """Write down what a purge removed, rows, files and segments of the audit log, and return it."""
    outcome = _outcome(purged, days, dead, retry, files_are_messages)
    trail.record(
        "storage.purge",
        actor=actor,
        resource="runtime/storage",
        result="ok",
        details={
            "done_dirs_purged": outcome.done_directories_purged,
            "dead_files_purged": outcome.dead_files_purged,
            "retry_files_purged": outcome.retry_files_purged,
            "idempotency_rows_purged": outcome.idempotency_rows_purged,
            "tasks": purged.tasks,
            "steps": purged.steps,
            "conflicts": purged.conflicts,
            "audit_segments": segments,
        },
    )
    return outcome


def preview(
    store: Store, *, done_days: int, dead_days: int, key_days: int, now_ms: int, files_are_messages: bool = False
) -> PurgeOutcome:
    """Return what ``purge`` would remove; changes nothing and writes no audit row."""
    done_before, ages = _ages(now_ms, done_days, dead_days, key_days)
    found = Purge(store, ages, now_ms=lambda: now_ms).count()
    days, dead, retry = purge_files(store.root, done_before, (ages.dead_before_ms or 0) / 1000, remove=False)
    return _outcome(found, days, dead, retry, files_are_messages)


def run_pieces(work: Purge, sleep: Sleep = time.sleep) -> None:
    """Do all pieces of a round, each sized by the last, with the writer left to others in between."""
    pace = Pace()
    while True:
        rows = work.piece(pace.rows)
        if rows is None:
            return
        pace = next_pace(pace, rows=rows, took_ns=work.held_ns)
        sleep(pause_ns(work.worked_ns) / 1e9)


def compact(store: Store, *, now_ms: int, sleep: Sleep = time.sleep) -> CompactOutcome:
    """Give free pages, the log and unused payload files back to the file system, beside nodes that work.

    A database that an earlier release made keeps its free pages for new rows, and its length.

    Raises:
        StoreError, RootError
    """
    conn, path = store.conn, store.path
    before, log_before = _length(conn), log_bytes(path)
    pace = Pace()
    with store.reading():
        (incremental,) = conn.execute("PRAGMA auto_vacuum").fetchone()
        while incremental == 2 and conn.execute("PRAGMA freelist_count").fetchone()[0]:
            began_ns = time.monotonic_ns()
            conn.execute(f"PRAGMA incremental_vacuum({pace.rows})").fetchall()
            took_ns = time.monotonic_ns() - began_ns
            pace = next_pace(pace, rows=pace.rows, took_ns=took_ns)
            sleep(pause_ns(took_ns) / 1e9)
    with store.reading():
        _truncate_log(conn)
    swept = sweep(store, now_ms=now_ms, pause=lambda: sleep(0.001))
    return CompactOutcome(
        database_bytes_before=before,
        database_bytes_after=_length(conn),
        log_bytes_before=log_before,
        log_bytes_after=log_bytes(path),
        payload_files_removed=swept.files,
        payload_bytes_removed=swept.bytes,
    )


def _length(conn: sqlite3.Connection) -> int:
    """Return the length of the database in bytes, its log included where that has the newer pages."""
    return int(conn.execute("PRAGMA page_count").fetchone()[0]) * int(conn.execute("PRAGMA page_size").fetchone()[0])


def _truncate_log(conn: sqlite3.Connection) -> None:
    # First without keeping anybody waiting, so that the second has next to nothing left to copy.
    conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    conn.execute("PRAGMA busy_timeout=0").fetchall()
    try:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        conn.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}").fetchall()


def _ages(now_ms: int, done_days: int, dead_days: int, key_days: int) -> tuple[str, Ages]:
    """Return the first local date that stays, and the instants."""
    midnight = datetime.fromtimestamp(now_ms / 1000).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        first = midnight - timedelta(days=done_days)
        day, done_before_ms = first.strftime("%Y-%m-%d"), int(first.timestamp() * 1000)
    except (OverflowError, ValueError, OSError):  # before the year 1: nothing is as old as that
        day, done_before_ms = "0000-00-00", 0
    dead_before_ms = max(0, now_ms - dead_days * _DAY_MS)
    return day, Ages(
        done_before_ms=done_before_ms,
        dead_before_ms=dead_before_ms,
        keys_before_ms=max(0, now_ms - key_days * _DAY_MS),
        conflicts_before_ms=dead_before_ms,
    )


def _outcome(purged: Purged, days: set[str], dead: int, retry: int, files_are_messages: bool) -> PurgeOutcome:
    return PurgeOutcome(
        done_directories_purged=len(purged.days | days),
        dead_files_purged=max(dead, purged.dead_messages) if files_are_messages else dead + purged.dead_messages,
        retry_files_purged=max(retry, purged.retried_messages)
        if files_are_messages
        else retry + purged.retried_messages,
        idempotency_rows_purged=purged.keys,
    )


def purge_files(root: Path, done_before: str, before_s: float, *, remove: bool = True) -> tuple[set[str], int, int]:
    """Remove old day folders and message files, with the copies of their envelopes; return days, dead and retried."""
    days = set()
    for folder in _entries_of(root / "done"):
        if _DAY.fullmatch(folder.name) and folder.name < done_before and folder.is_dir(follow_symlinks=False):
            days.add(folder.name)
            if remove:
                for file in _entries(Path(folder.path)):
                    _drop_envelope(root, file.name)
                remove_tree(Path(folder.path))
    counts = []
    for lane in ("dead", "retry"):
        count = 0
        for file in _entries_of(root / lane):
            try:
                old = file.is_file(follow_symlinks=False) and file.stat(follow_symlinks=False).st_mtime < before_s
                if old and remove:
                    _drop_envelope(root, file.name)  # first: who is killed in between finds the file again
                    os.unlink(file.path)
            except FileNotFoundError:
                continue
            count += old
        counts.append(count)
    return days, counts[0], counts[1]


def _entries_of(folder: Path) -> Iterator[os.DirEntry[str]]:
    """As ``_entries``; nothing of a link that stands in the place of a folder of the root."""
    return _entries(folder) if is_own_folder(folder) else iter(())


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from found
    except (FileNotFoundError, NotADirectoryError):
        return


def _drop_envelope(root: Path, name: str) -> None:
    """Remove the copy of an envelope; a file is named ``<createdAtMs>_<msgId>.meta.json``."""
    _, _, message = name.partition("_")
    if message.endswith(".meta.json"):
        (root / "meta" / message).unlink(missing_ok=True)
