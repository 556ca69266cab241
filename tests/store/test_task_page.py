"""Pages of tasks: what a walk over all of them shows while tasks change, and how much one of them looks at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.errors import InputError
from relaymesh.store.task_page import LOOKED_AT_MAX, OFFSET_MAX, task_page
from tests.store.bench import NOON, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench.in_memory()
    yield made
    made.close()


def fill(bench: Bench, count: int, *, labels: str | None = None, step: int = 1, first: int = 0) -> None:
    bench.store.conn.executemany(
        "INSERT INTO tasks(task_id, status, finished_at_ms, created_at_ms, updated_at_ms, labels)"
        " VALUES (?,'SUCCESS',?,?,?,?)",
        [(f"tsk_{n:06d}", NOON, NOON, NOON + n // step, labels) for n in range(first, first + count)],
    )


def walk(bench: Bench, **asked: object) -> list[list[str]]:
    pages: list[list[str]] = []
    after = None
    while True:
        page = task_page(bench.store.conn, after=after, **asked)  # type: ignore[arg-type]
        pages.append([task.task_id for task in page.tasks])
        if page.after is None:
            return pages
        after = page.after


@given(
    count=st.integers(0, 30),
    step=st.integers(1, 30),
    limit=st.integers(1, 7),
    changes=st.lists(st.tuples(st.sampled_from(["change", "remove", "add"]), st.integers(0, 29)), max_size=12),
)
@settings(max_examples=100, deadline=None)
def test_a_walk_shows_no_task_twice_and_each_that_stays_as_it_is_once(
    count: int, step: int, limit: int, changes: list[tuple[str, int]]
) -> None:
    bench = Bench.in_memory()
    fill(bench, count, step=step)
    conn = bench.store.conn
    touched, shown, after = set(), [], None
    now_ms = NOON + 1_000
    while True:
        page = task_page(conn, limit=limit, after=after)
        shown += [task.task_id for task in page.tasks]
        after = page.after
        if after is None:
            break
        if changes:
            what, pick = changes.pop()
            now_ms += 1
            task_id = f"tsk_{pick:06d}"
            touched.add(task_id)
            if what == "change":
                conn.execute("UPDATE tasks SET updated_at_ms=? WHERE task_id=?", (now_ms, task_id))
            elif what == "remove":
                conn.execute("DELETE FROM tasks WHERE task_id=?", (task_id,))
            else:
                conn.execute(
                    "INSERT INTO tasks(task_id, status, created_at_ms, updated_at_ms) VALUES (?,'PENDING',?,?)",
                    (f"new_{now_ms}", now_ms, now_ms),
                )

    assert len(shown) == len(set(shown))
    assert {f"tsk_{n:06d}" for n in range(count)} - touched <= set(shown)


@pytest.mark.parametrize("status", [None, "PENDING", "RUNNING", "RETRYING", "SUCCESS", "DEAD_LETTER", "CANCELLED"])
def test_pages_put_together_are_the_list(bench: Bench, status: str | None) -> None:
    for known in ("PENDING", "RUNNING", "RETRYING", "SUCCESS", "DEAD_LETTER", "CANCELLED"):
        ended_ms = NOON if known in ("SUCCESS", "DEAD_LETTER", "CANCELLED") else None
        bench.store.conn.executemany(
            "INSERT INTO tasks(task_id, status, finished_at_ms, created_at_ms, updated_at_ms) VALUES (?,?,?,?,?)",
            [(f"tsk_{known}_{n}", known, ended_ms, NOON, NOON + n // 2) for n in range(5)],
        )

    pages = walk(bench, status=status, limit=2)

    rows = bench.rows("SELECT task_id, status FROM tasks ORDER BY updated_at_ms DESC, task_id DESC")
    assert [task_id for page in pages for task_id in page] == [
        row["task_id"] for row in rows if status in (None, row["status"])
    ]


def test_the_last_full_page_says_that_it_is_the_last(bench: Bench) -> None:
    fill(bench, 4)

    pages = walk(bench, limit=2)

    assert [len(page) for page in pages] == [2, 2]


def test_a_label_of_old_tasks_is_found_some_pages_further_on(bench: Bench) -> None:
    fill(bench, 2, labels='{"customer":"7"}')
    fill(bench, LOOKED_AT_MAX, first=2)

    pages = walk(bench, label=("customer", "7"), limit=50)

    assert pages == [[], ["tsk_000001", "tsk_000000"]]


def test_an_offset_leaves_out_tasks_that_fit(bench: Bench) -> None:
    fill(bench, 3)
    fill(bench, 3, labels='{"customer":"7"}', first=3)

    page = task_page(bench.store.conn, label=("customer", "7"), limit=5, offset=1)

    assert [task.task_id for task in page.tasks] == ["tsk_000004", "tsk_000003"]


def test_an_offset_above_its_limit_is_refused_with_the_way_around(bench: Bench) -> None:
    with pytest.raises(InputError, match="--after"):
        task_page(bench.store.conn, limit=1, offset=OFFSET_MAX + 1)


@pytest.mark.parametrize(
    "cursor", ["", ":", "5", "5:", "x:tsk", "-1:tsk", "²:tsk", f"{2**63}:tsk", "9" * 5_000 + ":tsk"]
)
def test_what_is_no_cursor_is_refused(bench: Bench, cursor: str) -> None:
    with pytest.raises(InputError, match="updatedAtMs and taskId"):
        task_page(bench.store.conn, limit=1, after=cursor)
