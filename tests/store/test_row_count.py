"""The noted numbers of rows are those that a count finds, whoever writes the rows."""

from __future__ import annotations

import sqlite3

from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.store.migration import statements_of
from relaymesh.store.row_count import DOWN, UP, attempts_by_outcome, recount, row_counts, total
from relaymesh.store.stats import stats
from tests.store.bench import NOON, Bench

STATUSES = ("PENDING", "RUNNING", "RETRYING", "SUCCESS", "DEAD_LETTER", "CANCELLED")
OUTCOMES = ("failed", "reclaimed", "snoozed")


def noted(conn: sqlite3.Connection) -> dict[str, object]:
    counted = row_counts(conn)
    return {
        "tasks": total(conn, "tasks", counted),
        "steps": total(conn, "steps", counted),
        "attempts": attempts_by_outcome(counted),
    }


def counted(conn: sqlite3.Connection) -> dict[str, object]:
    return {
        "tasks": conn.execute("SELECT count(*) FROM tasks").fetchone()[0],
        "steps": conn.execute("SELECT count(*) FROM steps").fetchone()[0],
        "attempts": dict(conn.execute("SELECT outcome, count(*) FROM attempts GROUP BY outcome").fetchall()),
    }


class Writes:
    """What the store does, and what a script does to its tables behind its back."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.conn = bench, bench.store.conn
        self._number = 0

    def do(self, what: str, pick: int) -> None:
        getattr(self, what)(pick)

    def submit(self, pick: int) -> None:
        self.bench.one() if pick % 2 else self.bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})

    def run(self, pick: int) -> None:
        for lease in self.bench.claim(limit=1 + pick % 3):
            match pick % 4:
                case 0 | 1:
                    self.bench.succeed(lease)
                case 2:
                    self.bench.fail(lease)
                case 3:
                    self.bench.fail(lease, retryable=False)

    def lose(self, pick: int) -> None:
        for lease in self.bench.claim(limit=1 + pick % 3):
            self.bench.lose(lease)
        self.bench.now_ms += 10_000
        self.bench.promote()

    def insert(self, pick: int) -> None:
        self._number += 1
        name, status = f"script-{self._number}", STATUSES[pick % len(STATUSES)]
        self.conn.execute(
            "INSERT INTO tasks(task_id, status, created_at_ms, updated_at_ms) VALUES (?,?,?,?)",
            (name, status, NOON, NOON),
        )
        for part in range(pick % 3):
            self.conn.execute(
                "INSERT INTO steps(step_id, task_id, agent_id, status, created_at_ms, updated_at_ms)"
                " VALUES (?,?,'echo',?,?,?)",
                (f"{name}-{part}", name, status, NOON, NOON),
            )

    def change(self, pick: int) -> None:
        table = ("tasks", "steps")[pick % 2]
        self.conn.execute(
            f"UPDATE {table} SET status=? WHERE id=?", (STATUSES[pick % len(STATUSES)], self._some_id(table, pick))
        )

    def renumber(self, pick: int) -> None:
        table = ("tasks", "steps")[pick % 2]
        self.conn.execute(
            f"UPDATE OR IGNORE {table} SET id=? WHERE id=?", (pick * 7 % 90 + 1, self._some_id(table, pick))
        )

    def delete(self, pick: int) -> None:
        if pick % 2:
            self.conn.execute("DELETE FROM steps WHERE id=?", (self._some_id("steps", pick),))
            return
        tasks = "FROM tasks WHERE id=?" if pick % 4 else "FROM tasks WHERE id>=?"
        value = (self._some_id("tasks", pick),)
        self.conn.execute(f"DELETE FROM steps WHERE task_id IN (SELECT task_id {tasks})", value)
        self.conn.execute(f"DELETE {tasks}", value)

    def attempt(self, pick: int) -> None:
        outcome = OUTCOMES[pick % len(OUTCOMES)]
        match pick % 4:
            case 0:
                self.conn.execute("DELETE FROM attempts WHERE outcome=?", (outcome,))
            case 1:
                self.conn.execute("UPDATE attempts SET outcome=? WHERE lease_epoch=?", (outcome, pick % 5))
            case _:
                self.conn.execute(
                    "INSERT OR IGNORE INTO attempts(step_id, lease_epoch, attempt, outcome, finished_at_ms)"
                    " VALUES (?,?,1,?,?)",
                    (f"step-{pick % 7}", pick % 5, outcome, NOON),
                )

    def roll_back(self, pick: int) -> None:
        self.conn.execute("BEGIN")
        self.insert(pick)
        self.delete(pick)
        self.attempt(pick)
        self.conn.execute("ROLLBACK")

    def _some_id(self, table: str, pick: int) -> int:
        ids = [row[0] for row in self.conn.execute(f"SELECT id FROM {table} ORDER BY id")]
        return ids[pick % len(ids)] if ids else 1


WRITES = ("submit", "run", "lose", "insert", "change", "renumber", "delete", "attempt", "roll_back")


@given(st.lists(st.tuples(st.sampled_from(WRITES), st.integers(0, 999)), max_size=25))
@settings(max_examples=150, deadline=None)
def test_whatever_the_store_and_scripts_write_the_noted_numbers_are_those_of_a_count(
    story: list[tuple[str, int]],
) -> None:
    writes = Writes(Bench.in_memory())
    conn = writes.conn

    for what, pick in story:
        writes.do(what, pick)

        assert noted(conn) == counted(conn)


@given(st.lists(st.tuples(st.sampled_from(WRITES), st.integers(0, 999)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_a_migration_notes_the_rows_that_are_there_and_can_be_taken_back(story: list[tuple[str, int]]) -> None:
    writes = Writes(Bench.in_memory())
    conn = writes.conn
    for statement in statements_of(DOWN):
        conn.execute(statement)
    for what, pick in story:
        writes.do(what, pick)

    for statement in statements_of(UP):
        conn.execute(statement)

    assert noted(conn) == counted(conn)


def test_stats_of_rows_that_a_script_wrote_and_removed_are_right() -> None:
    writes = Writes(Bench.in_memory())
    for pick in (2, 8, 3, 5, 4):
        writes.insert(pick)
    writes.conn.execute("DELETE FROM steps WHERE task_id='script-3'")
    writes.conn.execute("DELETE FROM tasks WHERE task_id='script-3'")

    shown = stats(writes.conn, writes.bench.root.parent, namespace="default", now_ms=NOON)

    real = dict(writes.conn.execute("SELECT status, count(*) FROM tasks GROUP BY status").fetchall())
    assert shown.task_status == real


def test_counting_again_mends_what_no_trigger_can_see() -> None:
    writes = Writes(Bench.in_memory())
    conn = writes.conn
    for _ in range(3):
        writes.insert(0)
    conn.execute("INSERT INTO tasks(id, task_id, status, created_at_ms, updated_at_ms) VALUES (99,'gap','SUCCESS',1,1)")
    assert noted(conn) != counted(conn)

    recount(conn)

    assert noted(conn) == counted(conn)
