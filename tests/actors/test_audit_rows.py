"""What a node's commits come to in the audit log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.audit_rows import AuditRowsOf
from relaymesh.store.recover import Reclaimed
from relaymesh.wire.store import FinishedStep, Grant, SubmitTasks
from tests.store.bench import Bench, report_of


class Desk:
    """Where the rows go; keeps them."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.bodies: list[str] = []
        self.deaths: list[tuple[int, int]] = []

    def offer(self, bodies: Sequence[str]) -> None:
        self.bodies += bodies

    def offer_later(self, count: int, make: Callable[[], Sequence[str]]) -> bool:
        if self.full:
            return False
        self.bodies += make()
        assert len(self.bodies) >= count
        return True

    def died(self, last_heard_ms: int, now_ms: int) -> None:
        self.deaths.append((last_heard_ms, now_ms))

    def rows(self, action: str) -> list[dict[str, Any]]:
        rows = [json.loads(body + '"}') for body in self.bodies]
        return [row for row in rows if row["action"] == action]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "root")
    yield bench
    bench.close()


def rows_after_refusal(bench: Bench) -> Desk:
    desk = Desk()
    rows = AuditRowsOf(desk, "default", "n1", "n1")
    rows.begin(bench.now_ms)
    rows.conflicts = True
    rows.end(bench.store)
    rows.hand_in()
    return desk


def test_a_refused_result_of_a_step_that_another_node_runs_is_decided_for_that_node(bench: Bench) -> None:
    bench.one("echo")
    (late,) = bench.claim()
    with bench.store.write():
        bench.store.conn.execute(
            "UPDATE steps SET lease_owner='newer', lease_token='t2', lease_epoch=lease_epoch+1 WHERE id=?",
            (late.row_id,),
        )
    assert bench.succeed(late).refused

    desk = rows_after_refusal(bench)

    (decided,) = desk.rows("ownership.conflict.decision")
    assert (decided["result"], decided["resource"]) == ("decided", f"step/{late.step_id}")
    details = decided["details"]
    assert (details["current_owner"], details["winner_owner"]) == ("newer", "newer")
    assert (details["rule"], details["actual_status"]) == ("running_owner_wins", "RUNNING")
    assert details["actual_lease_epoch"] == late.lease_epoch + 1
    assert len(desk.rows("lease.conflict")) == 1


def test_a_refused_result_of_a_step_that_nobody_owns_has_no_winner(bench: Bench) -> None:
    bench.one("echo")
    (late,) = bench.claim()
    with bench.store.write():
        bench.store.conn.execute(
            "UPDATE steps SET status='PENDING', lease_owner=NULL, lease_token=NULL WHERE id=?", (late.row_id,)
        )
    assert bench.succeed(late).refused

    (decided,) = rows_after_refusal(bench).rows("ownership.conflict.decision")

    assert (decided["details"]["winner_owner"], decided["details"]["rule"]) == (None, "nobody_owns")


def test_a_node_that_died_and_left_nothing_is_recorded_as_looked_after_once(bench: Bench) -> None:
    desk = Desk()
    rows = AuditRowsOf(desk, "default", "n1", "n1")
    bench.store.conn.execute("INSERT INTO mesh_nodes VALUES ('n1', 'ALIVE', 5, 5, 5, 1, 1, 'h', NULL)")

    rows.begin(bench.now_ms)
    rows.before_start(bench.store)
    rows.took_over(Reclaimed())
    rows.hand_in()
    rows.begin(bench.now_ms)
    rows.took_over(Reclaimed())
    rows.hand_in()

    assert desk.deaths == [(5, bench.now_ms)]
    (looked,) = desk.rows("ownership.recover")
    assert (looked["result"], looked["details"]["dead_nodes"], looked["details"]["reclaimed"]) == ("noop", ["n1"], 0)


@pytest.mark.parametrize(("actor", "ours"), [("", False), ("cli", True), ("c" * 256, True), ("c" * 257, False)])
def test_tasks_are_recorded_for_who_says_its_name_within_a_limit(bench: Bench, actor: str, ours: bool) -> None:
    desk = Desk()
    rows = AuditRowsOf(desk, "default", "n1", "w")
    task = bench.new_task()

    rows.begin(bench.now_ms)
    assert rows.submitted(SubmitTasks((task,), actor), [(task.task_id, False)]) is ours
    rows.hand_in()

    assert [row["actor"] for row in desk.rows("task.submit")] == ([actor] if ours else [])


@pytest.mark.parametrize("full", [False, True])
def test_a_row_has_the_trace_that_its_task_brought_whoever_makes_it(bench: Bench, full: bool) -> None:
    desk, trace = Desk(full=full), "a" * 32
    rows = AuditRowsOf(desk, "default", "n1", "w")
    bench.one(traceparent=f"00-{trace}-{'b' * 16}-01")
    (lease,) = bench.claim()
    rows.remember_trace(Grant(lease, "", "pool", f"00-{trace}-{'b' * 16}-01"))
    report = report_of(lease, output="done")

    rows.begin(bench.now_ms)
    rows.finished((FinishedStep(lease, report, "w"),), bench.finish((lease, report)))
    rows.hand_in()

    assert [row["trace_id"] for row in desk.rows("step.execute")] == [trace]
