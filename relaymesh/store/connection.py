"""One connection: its settings, read back, and its write transaction.

Every connection gets WAL, ``synchronous``, ``foreign_keys`` and ``busy_timeout`` and reads each one back: a file system
that silently refuses WAL would otherwise take the guarantees away without a word.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from relaymesh.store.error import PragmaMismatchError, RootCorruptError, StoreBusyError, translate

__all__ = ["BUSY_TIMEOUT_MS", "FOREIGN", "WRITE_WAIT_MS_MAX", "Durability", "connect", "keen", "write_transaction"]

BUSY_TIMEOUT_MS = 5_000
# SQLite's own wait polls and is not fair: with many busy writers one may miss its turn for seconds. A writer asks
# again until this long has passed; only a holder that stands still (a stopped process) makes it run out.
WRITE_WAIT_MS_MAX = 60_000

_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")
_PAUSE_S = 0.002
FOREIGN = "it holds tables of another program"


class Durability(Enum):
    """What a commit survives. FULL: power loss. FAST: a killed process, not power loss (WAL with NORMAL)."""

    FULL = "full"
    FAST = "fast"


def connect(
    path: Path, *, durability: Durability = Durability.FULL, read_only: bool = False, still: bool = False
) -> sqlite3.Connection:
    """Open the database and prove its settings.

    still: nobody changes it while it is open, so it is read without locks and without the files beside it.

    Raises:
        PragmaMismatchError: SQLite answers another value than was set.
        RootReadOnlyError, RootCorruptError, StoreIOError: the file cannot be used.
        StoreBusyError: another process held it for the whole busy timeout.
    """
    began = time.monotonic()
    try:
        conn = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}{'&immutable=1' if still else ''}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_MS / 1000,
            cached_statements=256,
            check_same_thread=False,  # an actor opens in its own thread and a stopping node closes from another
        )
        try:
            _refuse_foreign(conn, path)
            _configure_in_turn(conn, durability, read_only=read_only)
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as error:
        if _is_busy(error):
            raise StoreBusyError(int((time.monotonic() - began) * 1000)) from error
        raise translate(error, str(path)) from error
    return conn


def _refuse_foreign(conn: sqlite3.Connection, path: Path) -> None:
    """Leave the database of another program as it is: setting WAL would already change it."""
    (mode,) = conn.execute("PRAGMA journal_mode").fetchone()
    if mode == "wal":
        return  # left to the migration, which looks closer
    tables, ours = conn.execute("SELECT count(*), sum(name='schema_migrations') FROM sqlite_master").fetchone()
    if tables and not ours:
        raise RootCorruptError(str(path), FOREIGN)


def _configure_in_turn(conn: sqlite3.Connection, durability: Durability, *, read_only: bool) -> None:
    """Configure, again while other processes do it too: SQLite does not wait for the lock that WAL is set under."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            return _configure(conn, durability, read_only=read_only)
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)


def _configure(conn: sqlite3.Connection, durability: Durability, *, read_only: bool) -> None:
    wanted = {
        "busy_timeout": str(BUSY_TIMEOUT_MS),
        "journal_mode": "wal",
        "synchronous": "2" if durability is Durability.FULL else "1",
        "foreign_keys": "1",
        # Temporary b-trees of a query need no disk; a full disk must not fail a read.
        "temp_store": "2",
    }
    if not read_only and conn.execute("PRAGMA page_count").fetchone()[0] == 0:
        # Before the journal mode, and in an empty file only, where it has an effect: in any other it would wait for
        # the write lock, and each opening with it. `compact` can then give pages back in pieces.
        conn.execute("PRAGMA auto_vacuum=INCREMENTAL")
    for pragma, value in wanted.items():
        if read_only and pragma == "journal_mode":
            continue
        conn.execute(f"PRAGMA {pragma}={value}")
        found = str(conn.execute(f"PRAGMA {pragma}").fetchone()[0]).lower()
        if found != value:
            raise PragmaMismatchError(pragma, value, found)
    # The checkpoint is ours (timed, truncating); SQLite's own stays as a bound on the log of a busy writer.
    conn.execute("PRAGMA wal_autocheckpoint=4000")
    conn.execute("PRAGMA cache_size=-16384")


@contextmanager
def keen(conn: sqlite3.Connection) -> Iterator[None]:
    """Look for the write lock every two milliseconds, instead of ever more seldom as SQLite does.

    SQLite does not queue those who wait: beside a writer that leaves the lock for 2 ms at a time, who looks ten times a
    second hardly ever gets it. For who holds it for a moment, and leaves it alone for longer.
    """
    conn.execute("PRAGMA busy_timeout=0")
    try:
        yield
    finally:
        conn.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


@contextmanager
def write_transaction(conn: sqlite3.Connection, path: Path, *, wait_ms_max: int = WRITE_WAIT_MS_MAX) -> Iterator[None]:
    """Run the body in one ``BEGIN IMMEDIATE`` transaction; leave it committed, or rolled back with our error.

    Raises:
        StoreBusyError: the write lock did not come free within ``wait_ms_max``.
        StoreFullError, StoreIOError, RootReadOnlyError, RootCorruptError: the database refused; nothing was changed.
    """
    _begin(conn, path, wait_ms_max)
    try:
        yield
        conn.execute("COMMIT")
    except sqlite3.Error as error:
        _rollback(conn)
        raise translate(error, str(path)) from error
    except BaseException:
        _rollback(conn)
        raise


def _begin(conn: sqlite3.Connection, path: Path, wait_ms_max: int) -> None:
    started = time.monotonic()
    while True:
        try:
            conn.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.Error as error:
            if not _is_busy(error):
                raise translate(error, str(path)) from error
            waited_ms = int((time.monotonic() - started) * 1000)
            if waited_ms >= wait_ms_max:
                raise StoreBusyError(waited_ms) from error
            time.sleep(_PAUSE_S)  # mostly SQLite has waited already; when it did not, do not spin


def _is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorname", None) or "").startswith(_BUSY)


def _rollback(conn: sqlite3.Connection) -> None:
    if conn.in_transaction:
        try:
            conn.execute("ROLLBACK")
        except sqlite3.Error:
            # A failed disk can fail the rollback as well; the log is not committed, the next open drops it.
            return
