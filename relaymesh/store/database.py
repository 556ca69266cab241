"""Database: one connection to a root, opened, proven and migrated. What only reads needs no more than this.

``relaymesh.store.store.Store`` is the same with everything that writes. Loading that is a good part of a command's
start-up, so a command that only looks does without.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from relaymesh.errors import RelayMeshError
from relaymesh.store.connection import Durability, connect, write_transaction
from relaymesh.store.error import BadNumberError, BadTextError, RootMissingError, RootMovedError, translate
from relaymesh.store.migration import migrate
from relaymesh.store.payload import PayloadFiles
from relaymesh.store.root import DATABASE, create_layout, has_database, refuse_emptied

if TYPE_CHECKING:
    from random import Random

__all__ = ["Database"]


class Database:
    """The database and payload files of one scoped root."""

    def __init__(self, conn: sqlite3.Connection, root: Path, namespace: str, rng: Random | None) -> None:
        self.conn = conn
        self.root = root
        self.namespace = namespace
        self.payloads = PayloadFiles(root, conn)
        # Write transactions begun so far: what was read in one stays true until it ends.
        self.transactions = 0
        self.undone = 0
        self._rng = rng
        self.path = root / DATABASE
        self._file = _identity(self.path)
        # Read as it lies there (relaymesh.store.still).
        self.still = False

    @classmethod
    def open(
        cls,
        root: Path,
        *,
        namespace: str = "default",
        now_ms: int,
        create: bool = True,
        read_only: bool = False,
        still: bool = False,
        durability: Durability = Durability.FULL,
        rng: Random | None = None,
    ) -> Self:
        """Open a scoped root, making its folders and tables as needed. still: see ``relaymesh.store.still``.

        Raises:
            RootMissingError: it is not there and ``create`` is false.
            DatabaseGoneError: it was there, and its database is gone or empty.
            RootError, StoreError: it cannot be used.
        """
        path = root / DATABASE
        found = has_database(root)
        refuse_emptied(root)
        if not found:
            if not create or read_only:
                raise RootMissingError(str(root))
            create_layout(root)
        while True:
            before = _identity(path)
            try:
                conn = _open(path, now_ms, durability=durability, read_only=read_only, still=still)
            except RelayMeshError:
                if before is None or _identity(path) == before:
                    raise
            else:
                if before is None or _identity(path) == before:
                    opened = cls(conn, root, namespace, rng)
                    opened.still = still
                    return opened
                conn.close()
            # An import has replaced the file while we waited for its lock: what we opened is the former root.
            has_database(root)  # waits for the end of the import

    @property
    def rng(self) -> Random:
        """The source of retry jitter."""
        if self._rng is None:
            from random import Random

            self._rng = Random()
        return self._rng

    def reseed(self, rng: Random) -> None:
        """Draw retry jitter from here on out of ``rng``."""
        self._rng = rng

    def close(self) -> None:
        """Close the connection."""
        self.conn.close()

    def astray(self) -> bool:
        """Whether the path leads to no file any more, or to another one: nobody else sees what is written here then."""
        if self._file is None:
            return False  # a database in memory
        try:
            return _facts(self.path) != self._file
        except FileNotFoundError:
            return True
        except OSError:
            return False  # a network that is away says nothing

    def refuse_astray(self) -> None:
        """Raise RootMovedError if the database is not at its path any more."""
        if self.astray():
            raise RootMovedError(str(self.root))

    def interrupt(self) -> None:
        """Break off the statement that another thread runs here, if any: it fails with a StoreError."""
        with suppress(sqlite3.Error):  # the other thread has just closed it
            self.conn.interrupt()

    @contextmanager
    def write(self) -> Iterator[None]:
        """One write transaction.

        Raises:
            StoreError, RootError: nothing was changed.
        """
        self.refuse_astray()
        self.transactions += 1
        committed = False
        try:
            with write_transaction(self.conn, self.path):
                yield
            committed = True
        except UnicodeEncodeError as error:
            raise BadTextError from error
        except OverflowError as error:
            raise BadNumberError from error
        finally:
            self.undone += not committed

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn a raw error of a read into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise translate(error, str(self.path)) from error
        except UnicodeEncodeError as error:
            raise BadTextError from error
        except OverflowError as error:
            raise BadNumberError from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads see one state, whatever others commit meanwhile. Keep it short: it holds the log back."""
        with self.reading():
            self.conn.execute("BEGIN")
            try:
                yield
            finally:
                self.conn.execute("ROLLBACK")

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        return int(self.conn.execute("PRAGMA data_version").fetchone()[0])


def _open(path: Path, now_ms: int, *, durability: Durability, read_only: bool, still: bool) -> sqlite3.Connection:
    conn = connect(path, durability=durability, read_only=read_only, still=still)
    try:
        migrate(conn, path, now_ms)
    except sqlite3.Error as error:
        conn.close()
        raise translate(error, str(path)) from error
    except BaseException:
        conn.close()
        raise
    return conn


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from another one at the same path; None when there is none."""
    try:
        return _facts(path)
    except OSError:
        return None


def _facts(path: Path) -> tuple[int, int]:
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino
