"""``schema-migrations`` and ``schema-rollback``: they open the database as it is, and bring nothing up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import structs

from relaymesh.errors import InputError
from relaymesh.outcome import RollbackOutcome, SchemaMigrationRow
from relaymesh.store.connection import connect, write_transaction
from relaymesh.store.error import RootMissingError, translate
from relaymesh.store.migration import schema_number, statements_of
from relaymesh.store.presence import living_nodes
from relaymesh.store.restore import RootInUseError
from relaymesh.store.root import DATABASE, has_database
from relaymesh.store.schema import INCLUDED, MIGRATIONS, Migration

__all__ = ["NotReversibleError", "UnknownMigrationError", "applied_migrations", "roll_back"]


class UnknownMigrationError(InputError):
    """No migration of this release has this version."""

    code = "unknown_migration"

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.version = version

    def __str__(self) -> str:
        return f"there is no migration {self.version!r}: `relaymesh schema-migrations` lists those of this root"


class NotReversibleError(InputError):
    """A migration that cannot be taken back, or not before others."""

    code = "not_reversible"

    def __init__(self, version: str, first: str = "", full: str = "") -> None:
        super().__init__(version, first, full)
        self.version, self.first, self.full = version, first, full

    def __str__(self) -> str:
        what = f"take back {self.first} before it" if self.first else "import a snapshot of before it"
        if self.full:
            what = f"it would lose rows of {self.full}; delete them first, or {what}"
        return f"the migration {self.version} cannot be taken back now: {what}; nothing was changed"


def applied_migrations(root: Path, limit: int) -> list[SchemaMigrationRow]:
    """Return what was applied to a root, newest first.

    Raises:
        RootMissingError, RootError, StoreError
    """
    with _opened(root, read_only=True) as conn:
        rows = conn.execute(
            "SELECT version, description, checksum, applied_at_ms, success FROM schema_migrations"
            " ORDER BY applied_at_ms DESC, version DESC LIMIT ?",
            (limit,),
        ).fetchall()
    found: list[SchemaMigrationRow] = []
    for version, description, checksum, at_ms, success in rows:
        row = SchemaMigrationRow(
            version=version, description=description, checksum=checksum, applied_at_ms=at_ms, success=bool(success)
        )
        found.append(row)
        found += [
            structs.replace(row, version=part, description=f"part of {version}: {what}")
            for part, what in INCLUDED.get(version, {}).items()
        ]
    return found[:limit]


def roll_back(root: Path, version: str, migrations: Sequence[Migration] = MIGRATIONS) -> RollbackOutcome:
    """Take one migration back, in one transaction; the next start of this release applies it again.

    Raises:
        UnknownMigrationError: this release has none of this version.
        NotReversibleError: it has no way back, or a later one must go first, or there are rows that it would lose.
        RootInUseError: a node works on the root.
        RootMissingError, RootError, StoreError
    """
    migration = next((known for known in migrations if known.version == version), None)
    if any(version in parts for parts in INCLUDED.values()):
        raise NotReversibleError(version)
    if migration is None:
        raise UnknownMigrationError(version)
    with _opened(root, read_only=False) as conn:
        alive = living_nodes(root / "run")
        if alive:
            raise RootInUseError(str(root), f"the node {alive[0]}")
        with write_transaction(conn, root / DATABASE):
            found = schema_number(conn)
            if found < migration.number:
                return RollbackOutcome(version=version, statements=0, removed_migration_row=False)
            if found > migration.number:
                later = next((known.version for known in migrations if known.number == found), f"schema {found}")
                raise NotReversibleError(version, later)
            if migration.down is None:
                raise NotReversibleError(version)
            for table in migration.empty:
                if conn.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None:
                    raise NotReversibleError(version, full=table)
            statements = statements_of(migration.down)
            for statement in statements:
                conn.execute(statement)
            removed = conn.execute("DELETE FROM schema_migrations WHERE version=?", (version,)).rowcount
            conn.execute(f"PRAGMA user_version={migration.number - 1}")
    return RollbackOutcome(version=version, statements=len(statements), removed_migration_row=removed == 1)


@contextmanager
def _opened(root: Path, *, read_only: bool) -> Iterator[sqlite3.Connection]:
    if not has_database(root):
        raise RootMissingError(str(root))
    conn = connect(root / DATABASE, read_only=read_only)
    try:
        yield conn
    except sqlite3.Error as error:
        raise translate(error, str(root / DATABASE)) from error
    finally:
        conn.close()
