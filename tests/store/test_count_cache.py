"""Counts of very much that is open or did not succeed are kept for a while; of little they are of the moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.node_view import StatsOutcome
from relaymesh.store.count_cache import COUNTED_ANEW_MAX, age_ms_max, kept_counts
from relaymesh.store.count_keeper import CountKeeper
from relaymesh.store.recount import Recount
from relaymesh.store.root import DATABASE
from relaymesh.store.stats import GROWTH_MAX, dead_letter_growth_1h, stats
from relaymesh.store.task_page import LOOKED_AT_MAX, task_page
from tests.store.bench import NOON, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "root")
    yield made
    made.close()


def fill(bench: Bench, count: int, status: str, name: str = "t") -> None:
    """As a script would, that writes rows itself."""
    ended = NOON if status == "DEAD_LETTER" else None
    conn = bench.store.conn
    with bench.store.write():
        conn.executemany(
            "INSERT INTO tasks(task_id, status, finished_at_ms, created_at_ms, updated_at_ms) VALUES (?,?,?,?,?)",
            ((f"tsk_{name}{n:06d}", status, ended, NOON, NOON + n) for n in range(count)),
        )
        conn.execute(
            "INSERT INTO steps(step_id, task_id, agent_id, status, created_at_ms, updated_at_ms, queued_at_ms)"
            " SELECT 'stp_'||task_id, task_id, 'echo', status, created_at_ms, updated_at_ms, created_at_ms FROM tasks"
            " WHERE task_id LIKE ?",
            (f"tsk_{name}%",),
        )


FOR_EVER = 10**15


def look(bench: Bench, now_ms: int = NOON, patience_ns: int = FOR_EVER) -> StatsOutcome:
    with bench.store.snapshot():
        return stats(bench.store.conn, bench.store.root, namespace="default", now_ms=now_ms, patience_ns=patience_ns)


@pytest.mark.parametrize("status", ["DEAD_LETTER", "PENDING"])
def test_very_many_are_counted_once_in_a_while_and_the_answer_says_how_old_it_is(bench: Bench, status: str) -> None:
    fill(bench, COUNTED_ANEW_MAX + 1, status)
    first = look(bench)
    fill(bench, 5, status, "more")

    kept = look(bench, NOON + 4_000)
    anew = look(bench, NOON + 2 * age_ms_max(10**9) + 1)

    assert (first.task_status, first.counts_age_ms) == ({status: COUNTED_ANEW_MAX + 1}, 0)
    assert (kept.task_status, kept.step_status, kept.counts_age_ms) == (first.task_status, first.step_status, 4_000)
    assert (anew.task_status, anew.counts_age_ms) == ({status: COUNTED_ANEW_MAX + 6}, 0)


def test_what_is_not_very_much_is_of_the_moment_and_nothing_is_written_down(bench: Bench) -> None:
    fill(bench, COUNTED_ANEW_MAX, "DEAD_LETTER")
    look(bench)
    fill(bench, 1, "PENDING", "more")

    assert look(bench).task_status == {"DEAD_LETTER": COUNTED_ANEW_MAX, "PENDING": 1}
    assert not (bench.store.root / "run" / "counts.json").exists()


def test_kept_counts_are_none_when_damaged_of_another_database_or_of_the_future(bench: Bench) -> None:
    fill(bench, COUNTED_ANEW_MAX + 1, "DEAD_LETTER")
    look(bench)
    database = bench.store.root / DATABASE
    file = bench.store.root / "run" / "counts.json"
    good = file.read_bytes()

    assert kept_counts(database, NOON) is not None
    assert kept_counts(database, NOON - 1) is None
    file.write_bytes(good.replace(str(os.stat(database).st_ino).encode(), b"7"))
    assert kept_counts(database, NOON) is None
    for damaged in (b"", b"{", b"[]", good[:-20]):
        file.write_bytes(damaged)
        assert kept_counts(database, NOON) is None


def test_who_has_no_time_to_count_answers_by_an_older_count_or_by_what_there_is_at_least(bench: Bench) -> None:
    fill(bench, COUNTED_ANEW_MAX + 1, "PENDING")

    least = look(bench, patience_ns=0)
    whole = look(bench)
    fill(bench, 5, "PENDING", "more")
    older = look(bench, NOON + 10**9, patience_ns=0)

    assert (least.counts_at_least, whole.counts_at_least, older.counts_at_least) == (True, False, False)
    assert 0 < least.task_status["PENDING"] < whole.task_status["PENDING"] == COUNTED_ANEW_MAX + 1
    assert "SUCCESS" not in least.task_status and "SUCCESS" not in least.step_status
    assert (older.task_status, older.counts_age_ms) == (whole.task_status, 10**9)


def test_what_is_not_very_much_is_counted_however_little_time_there_is(bench: Bench) -> None:
    fill(bench, COUNTED_ANEW_MAX, "PENDING")
    fill(bench, COUNTED_ANEW_MAX, "DEAD_LETTER", "d")

    found = look(bench, patience_ns=0)

    assert (found.counts_at_least, found.counts_age_ms) == (False, 0)
    assert found.task_status == {"PENDING": COUNTED_ANEW_MAX, "DEAD_LETTER": COUNTED_ANEW_MAX}


def test_a_node_counts_in_pieces_once_in_a_while_and_one_at_a_time(bench: Bench) -> None:
    fill(bench, COUNTED_ANEW_MAX + 1, "PENDING")
    ours, other = CountKeeper(bench.store), CountKeeper(bench.store)

    assert ours.begin(NOON)
    assert (other.begin(NOON), ours.begin(NOON)) == (False, False)
    pieces = 1
    while ours.piece(NOON + pieces) is not None:
        pieces += 1
    kept = kept_counts(bench.store.path, NOON + pieces)

    assert pieces > 10
    assert kept is not None and (kept.tasks, kept.at_ms) == ({"PENDING": COUNTED_ANEW_MAX + 1}, NOON + pieces)
    assert (ours.counts, other.begin(NOON + pieces)) == (False, False)
    assert other.begin(NOON + pieces + age_ms_max(10**9) + 1)
    other.stop()
    assert look(bench, NOON + pieces, patience_ns=0).task_status == kept.tasks


def test_a_root_with_little_in_it_is_not_counted_by_nodes(bench: Bench) -> None:
    fill(bench, COUNTED_ANEW_MAX, "PENDING")

    assert not CountKeeper(bench.store).begin(NOON)


@pytest.mark.parametrize("columns", ["id", "updated_at_ms"])
def test_no_page_sorts_what_the_index_has_in_order(bench: Bench, columns: str) -> None:
    fill(bench, 10, "PENDING")
    conn = bench.store.conn
    conn.execute("DROP INDEX tasks_open")
    conn.execute(f"CREATE INDEX tasks_open ON tasks({columns}) WHERE finished_at_ms IS NULL")
    statements: list[str] = []
    conn.set_trace_callback(statements.append)

    count = Recount(conn)
    while count.piece():
        pass

    conn.set_trace_callback(None)
    (walk, *_) = [one for one in statements if "INDEXED BY tasks_open" in one]
    plan = [row[-1] for row in conn.execute(f"EXPLAIN QUERY PLAN {walk}")]
    assert len(plan) == 1 and "tasks_open" in plan[0]
    assert count.counts(NOON, lanes={}).tasks == {"PENDING": 10}


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "RETRYING", "DEAD_LETTER", "CANCELLED", "SUCCESS"])
def test_rows_that_a_script_wrote_are_each_counted_once(bench: Bench, status: str) -> None:
    """It knows of no ``finished_at_ms``."""
    conn = bench.store.conn
    with bench.store.write():
        conn.execute(
            "INSERT INTO tasks(task_id, status, created_at_ms, updated_at_ms) VALUES ('tsk_s', ?, 1, 1)", (status,)
        )
        conn.execute(
            "INSERT INTO steps(step_id, task_id, agent_id, status, created_at_ms, updated_at_ms)"
            " VALUES ('stp_s', 'tsk_s', 'echo', ?, 1, 1)",
            (status,),
        )

    found = look(bench)

    assert (found.task_status, found.step_status) == ({status: 1}, {status: 1})


def test_how_long_a_count_is_believed_grows_with_what_it_cost_within_bounds() -> None:
    assert [age_ms_max(took_ms) for took_ms in (0, 1_000, 60_000)] == [10_000, 50_000, 600_000]


def test_the_growth_of_dead_letters_is_counted_no_further_than_its_bound(bench: Bench) -> None:
    fill(bench, GROWTH_MAX + 10, "DEAD_LETTER")

    assert dead_letter_growth_1h(bench.store.conn, NOON) == GROWTH_MAX


def test_a_page_of_very_many_open_tasks_walks_by_the_latest_change_and_ends_with_a_cursor(bench: Bench) -> None:
    fill(bench, LOOKED_AT_MAX + 10, "PENDING")
    fill(bench, LOOKED_AT_MAX + 10, "DEAD_LETTER", "zz")  # of the same instants, so every second one looked at
    conn = bench.store.conn

    shown: list[str] = []
    after, pages = None, 0
    while pages == 0 or after is not None:
        page = task_page(conn, status="PENDING", limit=4_000, after=after)
        shown += [task.task_id for task in page.tasks]
        after, pages = page.after, pages + 1

    assert len(shown) == len(set(shown)) == LOOKED_AT_MAX + 10
    assert pages > 2
    assert {task.status for task in task_page(conn, status="PENDING", limit=10).tasks} == {"PENDING"}
