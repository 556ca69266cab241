"""How many rows there are, without counting them: what a root has finished must not make this slower.

    tasks, steps   max(id) + ``<table>.ids``. SQLite gives ids without gaps, so only what is removed has to be noted
    attempts       ``attempts.<outcome>``; there are rows only for attempts that did not succeed

Triggers keep ``row_counts`` in the transaction of the row, whoever writes it. None of them is part of a statement that
adds a task, claims or succeeds: SQLite leaves out the triggers of columns that a statement does not set, so the queue
does not pay. They cannot see two things: an ``INSERT`` that chooses an ``id`` and leaves a gap, and the row that
``INSERT OR REPLACE`` removes. Who does either counts again (``recount``).
"""

from __future__ import annotations

import sqlite3

__all__ = ["DOWN", "UP", "attempts_by_outcome", "recount", "row_counts", "total"]

_TABLE = "CREATE TABLE row_counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;\n"

_COUNT = """
INSERT INTO row_counts(name, n) SELECT 'tasks.ids', count(*)-coalesce(max(id), 0) FROM tasks;
INSERT INTO row_counts(name, n) SELECT 'steps.ids', count(*)-coalesce(max(id), 0) FROM steps;
INSERT INTO row_counts(name, n) SELECT 'attempts.' || outcome, count(*) FROM attempts GROUP BY outcome;
"""


def _id_triggers(table: str) -> str:
    """Return triggers that keep the difference between the number of rows and the largest id."""
    largest = f"(SELECT coalesce(max(id), 0) FROM {table})"
    others = f"(SELECT coalesce(max(id), 0) FROM {table} WHERE id<>NEW.id)"
    return f"""
CREATE TRIGGER {table}_id_gone AFTER DELETE ON {table} BEGIN
 UPDATE row_counts SET n=n+max(OLD.id, {largest})-1-{largest} WHERE name='{table}.ids';
END;
CREATE TRIGGER {table}_id_changed AFTER UPDATE OF id ON {table} BEGIN
 UPDATE row_counts SET n=n+max(OLD.id, {others})-max(NEW.id, {others}) WHERE name='{table}.ids';
END;
"""


_IN = """
 INSERT INTO row_counts(name, n) VALUES ('attempts.' || NEW.outcome, 1) ON CONFLICT(name) DO UPDATE SET n=n+1;"""
_OUT = """
 UPDATE row_counts SET n=n-1 WHERE name='attempts.' || OLD.outcome;"""

_ATTEMPT_TRIGGERS = f"""
CREATE TRIGGER attempts_in AFTER INSERT ON attempts BEGIN{_IN}
END;
CREATE TRIGGER attempts_out AFTER DELETE ON attempts BEGIN{_OUT}
END;
CREATE TRIGGER attempts_moved AFTER UPDATE OF outcome ON attempts BEGIN{_OUT}{_IN}
END;
"""

UP = _TABLE + _COUNT + _id_triggers("tasks") + _id_triggers("steps") + _ATTEMPT_TRIGGERS
DOWN = """
DROP TRIGGER tasks_id_gone;
DROP TRIGGER tasks_id_changed;
DROP TRIGGER steps_id_gone;
DROP TRIGGER steps_id_changed;
DROP TRIGGER attempts_in;
DROP TRIGGER attempts_out;
DROP TRIGGER attempts_moved;
DROP TABLE row_counts;
"""


def row_counts(conn: sqlite3.Connection) -> dict[str, int]:
    """Return what is noted, by name: a handful of rows."""
    return dict(conn.execute("SELECT name, n FROM row_counts").fetchall())


def total(conn: sqlite3.Connection, table: str, counted: dict[str, int]) -> int:
    """Return the number of rows of ``tasks`` or ``steps``. counted: what ``row_counts`` returned in this snapshot."""
    return int(conn.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]) + counted[f"{table}.ids"]


def attempts_by_outcome(counted: dict[str, int]) -> dict[str, int]:
    """Return the number of attempts of each outcome that there are any of."""
    prefix = "attempts."
    return {name.removeprefix(prefix): n for name, n in counted.items() if name.startswith(prefix) and n}


def recount(conn: sqlite3.Connection) -> None:
    """Count everything again, in the caller's write transaction: a second or so for ten million rows."""
    from relaymesh.store.migration import statements_of

    conn.execute("DELETE FROM row_counts")
    for statement in statements_of(_COUNT):
        conn.execute(statement)
