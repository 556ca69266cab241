"""A claim of a node that was fenced takes nothing and leaves word; so does a poll that came too late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.core.fairness import Fairness
from relaymesh.store.claim import Slots
from relaymesh.store.refused_claim import REFUSED_MAX, first_ready, record_taken
from tests.store.bench import NOON, Bench

SLOTS = Slots(pools={"echo": "pool"}, free={"pool": 100}, room={}, limits={}, limit=100)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "root")
    made.store.state.claims_as = "n1"
    yield made
    made.close()


def enter(bench: Bench) -> int:
    """Enter a generation of the node, as a process that starts under its id does."""
    with bench.store.write():
        return bench.store.register_node("n1", pid=1, host="h", agents="{}", now_ms=NOON)


def conflicts(bench: Bench) -> list[tuple[object, ...]]:
    return bench.store.conn.execute(
        "SELECT event_type, step_id, worker_id, expected_status, expected_lease_epoch, actual_status"
        " FROM lease_conflicts ORDER BY id"
    ).fetchall()


def test_a_node_whose_id_another_process_has_taken_claims_nothing(bench: Bench) -> None:
    ours = enter(bench)
    step_id = bench.one("echo")
    enter(bench)

    claim = bench.claim_all("n1", generation=ours)

    assert (claim.rows, claim.fenced) == ((), True)
    assert bench.store.conn.execute("SELECT status, lease_epoch FROM steps").fetchall() == [("PENDING", 0)]
    assert conflicts(bench) == [("claim_conflict", step_id, "n1", "PENDING", None, "PENDING")]


def test_the_newest_generation_claims(bench: Bench) -> None:
    enter(bench)
    ours = enter(bench)
    bench.one("echo")

    claim = bench.claim_all("n1", generation=ours)

    assert (len(claim.rows), claim.fenced) == (1, False)
    assert conflicts(bench) == []


def test_tasks_that_a_fenced_node_was_given_are_stored_and_wait(bench: Bench) -> None:
    ours = enter(bench)
    enter(bench)
    tasks = [bench.new_task("echo"), bench.new_task("echo")]

    with bench.store.write():
        results, claim = bench.store.submit_and_claim(
            tasks, SLOTS, Fairness(), node_id="n1", generation=ours, token="t.", now_ms=NOON
        )

    assert results == [(task.task_id, False) for task in tasks]
    assert claim.fenced
    assert bench.store.conn.execute("SELECT DISTINCT status FROM steps").fetchall() == [("PENDING",)]


def test_no_more_steps_of_one_refused_claim_are_recorded_than_the_bound(bench: Bench) -> None:
    ours = enter(bench)
    bench.submit(*(bench.new_task("echo") for _ in range(REFUSED_MAX + 5)))
    enter(bench)

    bench.claim_all("n1", generation=ours)

    assert len(conflicts(bench)) == REFUSED_MAX


def test_a_step_that_another_node_took_after_the_look_is_told_and_recorded(bench: Bench) -> None:
    step_id = bench.one("echo")
    seen = first_ready(bench.store.conn, bench.store.ready_groups())
    assert seen is not None
    bench.claim("faster")

    with bench.store.write():
        moved = record_taken(bench.store.conn, seen, node_id="late", now_ms=NOON)

    assert moved == "it is RUNNING at the node faster"
    assert conflicts(bench) == [("claim_conflict", step_id, "late", "PENDING", None, "RUNNING")]


def test_a_step_that_is_as_it_was_is_no_refusal(bench: Bench) -> None:
    bench.one("echo")
    seen = first_ready(bench.store.conn, bench.store.ready_groups())
    assert seen is not None

    with bench.store.write():
        moved = record_taken(bench.store.conn, seen, node_id="late", now_ms=NOON)

    assert (moved, conflicts(bench)) == (None, [])
