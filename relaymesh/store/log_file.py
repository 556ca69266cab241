"""The write-ahead log's file, made long before it is needed.

A commit that makes the file longer has to write the file's new length too, which takes the file system a second trip to
the disk: 0.48 ms instead of 0.27 on ext4. So the file is given its length in advance, filled with zeros, and is not
cut back to nothing while it is small.

    [header][frames of this round][frames of former rounds, or zeros][end of the file]
                                  └── SQLite reads on until a frame is not valid, and neither of these is

SQLite reuses the file from its beginning after each complete checkpoint, and what lies behind the frames of the present
round is of no meaning to it: it is told by the salt and checksum of a frame, which zeros do not have.

Source: SQLite's "WAL-mode File Format", section 4, and its write lock, which is held here: nobody else can append.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

from relaymesh.store.connection import BUSY_TIMEOUT_MS

__all__ = ["LOG_AHEAD_BYTES", "LOG_KEPT_BYTES", "checkpoint", "log_bytes", "make_room"]

LOG_AHEAD_BYTES = 4 * 1024 * 1024
"""How long the file is made in advance: some 300 commits of single tasks between two checkpoints."""
LOG_KEPT_BYTES = 16 * 1024 * 1024
"""A file that has grown beyond this, in a burst or behind a slow reader, is cut when there is nothing to do."""
_FREE_BYTES_MIN = 64 * 1024 * 1024
_BLOCK = b"\0" * (256 * 1024)


def log_bytes(database: Path) -> int:
    """Return the length of the log's file; 0 when there is none."""
    try:
        return _log(database).stat().st_size
    except OSError:
        return 0


def make_room(conn: sqlite3.Connection, database: Path) -> None:
    """Give the log's file its length; do nothing when it has it, or when the disk is nearly full, or refuses.

    Must not be called within a transaction. Raises sqlite3.Error when the write lock cannot be had.
    """
    if log_bytes(database) >= LOG_AHEAD_BYTES:
        return
    conn.execute("BEGIN IMMEDIATE")
    try:
        _extend(_log(database))
    except OSError:
        pass  # commits will make it longer as they go
    finally:
        conn.execute("ROLLBACK")


def checkpoint(conn: sqlite3.Connection, database: Path, *, idle: bool) -> None:
    """Copy the log into the database as far as readers let us; ``idle``: and cut its file if it is long.

    Must not be called within a transaction. Raises sqlite3.Error.
    """
    conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    if not idle:
        return
    if log_bytes(database) > LOG_KEPT_BYTES:
        # A reader that holds an old view keeps it from being cut: try, do not wait for it.
        conn.execute("PRAGMA busy_timeout=0")
        try:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            conn.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    make_room(conn, database)


def _extend(log: Path) -> None:
    # Opening it a second time is harmless: SQLite keeps its locks on other files.
    with open(log, "r+b", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        if length >= LOG_AHEAD_BYTES or shutil.disk_usage(log.parent).free < _FREE_BYTES_MIN:
            return
        try:
            while (left := LOG_AHEAD_BYTES - file.tell()) > 0:
                file.write(_BLOCK[:left])
            os.fsync(file.fileno())
        except OSError:
            file.truncate(length)
            raise


def _log(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")
