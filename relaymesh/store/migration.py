"""Bring a database to the schema that this release knows, or refuse it.

Each migration runs in its own transaction together with its row in ``schema_migrations`` and the new
``PRAGMA user_version``: a crash leaves it applied or not applied, never half.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from relaymesh.store.connection import FOREIGN, write_transaction
from relaymesh.store.error import RootCorruptError, SchemaTooNewError
from relaymesh.store.schema import MIGRATIONS, Migration

__all__ = ["migrate", "schema_number", "statements_of"]


def schema_number(conn: sqlite3.Connection) -> int:
    """Return the number of the last migration applied; 0 is an empty database."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def migrate(conn: sqlite3.Connection, path: Path, now_ms: int, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Apply what is missing; return how many migrations ran.

    Raises:
        SchemaTooNewError: a later release wrote this root; nothing was changed.
        RootCorruptError: an applied migration has another checksum than ours, or the file holds foreign tables.
    """
    known = migrations[-1].number
    found = schema_number(conn)
    if found:
        _check_applied(conn, path, migrations)
    if found > known:
        raise SchemaTooNewError(str(path), found, known)
    if found == known:
        return 0
    # Imported here: a root that is up to date must not pay for it.
    from sqlite_utils import Database

    # Another process may have made the tables since we read the number; it makes all of them in one transaction.
    tables = Database(conn).table_names()
    if tables and "schema_migrations" not in tables:
        raise RootCorruptError(str(path), FOREIGN)
    ran = 0
    for migration in migrations:
        with write_transaction(conn, path):
            # Another process may have been faster: look again under the write lock.
            if (number := schema_number(conn)) >= migration.number:
                continue
            if (number or tables) and _is_applied(conn, migration):
                cause = f"it says schema {number}, and {migration.version} was applied: its number was changed"
                raise RootCorruptError(str(path), cause)
            for statement in statements_of(migration.up):
                conn.execute(statement)
            conn.execute(
                "INSERT INTO schema_migrations(version, description, checksum, applied_at_ms, success)"
                " VALUES (?,?,?,?,1)",
                (migration.version, migration.description, migration.checksum, now_ms),
            )
            conn.execute(f"PRAGMA user_version={migration.number}")
            ran += 1
    return ran


def _is_applied(conn: sqlite3.Connection, migration: Migration) -> bool:
    query = "SELECT 1 FROM schema_migrations WHERE version=?"
    return conn.execute(query, (migration.version,)).fetchone() is not None


def _check_applied(conn: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    try:
        applied = dict(conn.execute("SELECT version, checksum FROM schema_migrations").fetchall())
    except sqlite3.OperationalError as error:
        if "no such" in str(error):  # other programs number their schema in the same place
            raise RootCorruptError(str(path), FOREIGN) from error
        raise
    if migrations[0].version not in applied:
        raise RootCorruptError(str(path), FOREIGN)
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise RootCorruptError(str(path), f"migration {migration.version} was applied in another form")


def statements_of(script: str) -> list[str]:
    """Split a script at the semicolons that end a statement (``executescript`` would commit our transaction)."""
    statements, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            if current.strip():
                statements.append(current)
            current = ""
    return statements
