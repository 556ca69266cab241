"""Whether the tables, indexes and triggers of a database are all there: SQLite's own check does not know which belong.

Somebody who drops an index with another tool leaves a file that is whole for SQLite, and commands that fail.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import lru_cache

from relaymesh.store.migration import statements_of
from relaymesh.store.schema import MIGRATIONS

__all__ = ["missing_part"]

_PARTS = "SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"


def missing_part(conn: sqlite3.Connection) -> str:
    """Return the first part that a database of the present schema lacks, such as ``index tasks_updated``; else ""."""
    there = {(kind, name) for kind, name in conn.execute(_PARTS)}
    return next((f"{kind} {name}" for kind, name in _expected() if (kind, name) not in there), "")


@lru_cache(maxsize=1)
def _expected() -> tuple[tuple[str, str], ...]:
    """Return what an empty root has, by making one in memory: some milliseconds."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        for migration in MIGRATIONS:
            for statement in statements_of(migration.up):
                conn.execute(statement)
        return tuple(sorted(conn.execute(_PARTS).fetchall()))
