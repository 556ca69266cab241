"""Rows that operators and their scripts write by hand: exactly the columns of the reference are enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.store.admin import CancelMode
from tests.store.bench import NOON, Bench

TASK = (
    "INSERT INTO tasks(task_id, namespace, status, idempotency_key, principal_id, trace_id, result_payload, last_error,"
    " created_at_ms, updated_at_ms) VALUES (?,?,?,?,?,?,?,?,?,?)"
)
STEP = (
    "INSERT INTO steps(step_id, namespace, task_id, agent_id, priority, payload_path, is_enqueued, result_payload,"
    " status, attempt, next_retry_at_ms, lease_owner, lease_token, lease_epoch, created_at_ms, updated_at_ms)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
NODE = (
    "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms) VALUES (?,?,?,?,?)"
)


def seed_task(bench: Bench, task_id: str = "tsk_1", status: str = "PENDING", at_ms: int = NOON) -> None:
    bench.store.conn.execute(
        TASK, (task_id, "default", status, f"key {task_id}", "", "0" * 32, None, None, at_ms, at_ms)
    )


def seed_step(
    bench: Bench,
    step_id: str = "stp_1",
    status: str = "PENDING",
    *,
    task_id: str = "tsk_1",
    attempt: int = 0,
    retry_at_ms: int | None = None,
    owner: str | None = None,
    token: str | None = None,
    epoch: int = 0,
    priority: str = "NORMAL",
    at_ms: int = NOON,
) -> None:
    head = (step_id, "default", task_id, "echo", priority, "", 0, None, status, attempt)
    bench.store.conn.execute(STEP, (*head, retry_at_ms, owner, token, epoch, at_ms, at_ms))


def test_a_seeded_step_is_claimed_run_and_ends_its_task(bench: Bench) -> None:
    seed_task(bench)
    seed_step(bench)

    (row,) = bench.claimed_rows()
    bench.succeed(row.lease, "out")

    assert (row.lease.attempt, row.lease.lease_epoch, row.payload) == (1, 1, None)
    task = bench.task("tsk_1")
    assert (task["status"], json.loads(str(task["result_payload"]))) == ("SUCCESS", {"stp_1": "out"})


def test_a_seeded_task_of_several_steps_ends_with_the_last_of_them(bench: Bench) -> None:
    seed_task(bench)
    for name in "abc":
        seed_step(bench, name)

    leases = bench.claim()
    statuses = []
    for lease in leases:
        bench.succeed(lease)
        statuses.append(bench.task("tsk_1")["status"])

    assert statuses == ["RUNNING", "RUNNING", "SUCCESS"]


def test_a_seeded_step_fails_retries_and_dies_like_any_other(bench: Bench) -> None:
    seed_task(bench)
    seed_step(bench, attempt=2)
    (lease,) = bench.claim()

    bench.fail(lease, "no more")

    assert (bench.step("stp_1")["status"], bench.task("tsk_1")["status"]) == ("DEAD_LETTER", "DEAD_LETTER")


@pytest.mark.parametrize("token", [None, "lease_by_hand"])
@pytest.mark.parametrize("owner", [None, "node-gone"])
def test_a_seeded_running_step_is_reclaimed(bench: Bench, owner: str | None, token: str | None) -> None:
    seed_task(bench, status="RUNNING")
    seed_step(bench, status="RUNNING", owner=owner, token=token, epoch=4, attempt=1, at_ms=NOON - 60_000)

    bench.reclaim(*bench.seen())

    step = bench.step("stp_1")
    assert (step["status"], step["lease_owner"], step["lease_epoch"]) == ("RETRYING", None, 4)
    bench.promote()
    (lease,) = bench.claim()
    assert lease.lease_epoch == 5


def test_a_seeded_dead_owner_loses_its_steps_in_one_round_of_maintenance(bench: Bench) -> None:
    seed_task(bench, status="RUNNING")
    seed_step(bench, status="RUNNING", owner="node-dead", token="t", epoch=1, attempt=1)
    bench.store.conn.execute(NODE, ("node-dead", "DEAD", NOON, NOON, NOON))
    client = Client(bench.root, now_ms=lambda: NOON + 1)

    outcome = client.maintenance()

    assert (outcome.dead_owner_reclaimed, outcome.dead_owner_retry_scheduled, outcome.wall_reclaimed) == (1, 1, 0)
    # The first death of an owner costs no wait, and what is due is promoted in the same round.
    assert bench.step("stp_1")["status"] == "PENDING"
    assert "node-dead" in str(bench.task("tsk_1")["last_error"])
    client.close()


def test_a_seeded_step_of_a_silent_owner_is_reclaimed_by_the_wall_clock(bench: Bench) -> None:
    seed_task(bench, status="RUNNING")
    seed_step(bench, status="RUNNING", owner="elsewhere", token="t", epoch=1, attempt=1, at_ms=NOON - 15_000)
    client = Client(bench.root, now_ms=lambda: NOON)

    outcome = client.maintenance()

    assert (outcome.wall_reclaimed, outcome.dead_owner_reclaimed) == (1, 0)
    client.close()


def test_a_seeded_retry_is_promoted_when_it_is_due(bench: Bench) -> None:
    seed_task(bench, status="RETRYING")
    seed_step(bench, status="RETRYING", retry_at_ms=NOON + 10, attempt=1)

    assert bench.promote() == 0
    assert bench.store.next_due_ms() == NOON + 10
    bench.now_ms += 10
    assert bench.promote() == 1
    assert len(bench.claim()) == 1


def test_a_seeded_task_is_cancelled_and_a_seeded_dead_letter_replayed(bench: Bench) -> None:
    seed_task(bench)
    seed_step(bench)
    seed_task(bench, "tsk_2", "DEAD_LETTER")
    seed_step(bench, "stp_2", "DEAD_LETTER", task_id="tsk_2", attempt=3)

    with bench.store.write():
        assert bench.store.cancel("tsk_1", mode=CancelMode.HARD, reason="r", now_ms=NOON).code == "cancelled"
        assert bench.store.replay("tsk_2", now_ms=NOON) == "replayed"

    assert bench.step("stp_1")["status"] == "CANCELLED"
    bench.run_all()
    assert bench.task("tsk_2")["status"] == "SUCCESS"


def test_seeded_rows_of_every_status_are_shown(bench: Bench, tmp_path: Path) -> None:
    statuses = (
        "PENDING",
        "RUNNING",
        "SUCCESS",
        "FAILED",
        "RETRYING",
        "TIMEOUT",
        "ABANDONED",
        "DEAD_LETTER",
        "CANCELLED",
    )
    for number, status in enumerate(statuses):
        seed_task(bench, f"tsk_{status}", status, NOON + number)
        seed_step(bench, f"stp_{status}", status, task_id=f"tsk_{status}", at_ms=NOON + number)
    for status in ("ALIVE", "SUSPECT", "DEAD"):
        bench.store.conn.execute(NODE, (f"node-{status}", status, NOON, NOON, NOON))
    client = Client(bench.root, now_ms=lambda: NOON + 100)

    for status in statuses:
        assert client.task(f"tsk_{status}").status == status
        assert [task.task_id for task in client.tasks(status=status)] == [f"tsk_{status}"]
        assert [step.status for step in client.workflow(f"tsk_{status}").steps] == [status]
        client.explain(f"tsk_{status}")
    assert [task.status for task in client.tasks()] == list(reversed(statuses))
    shown = client.stats()
    assert shown.task_status == shown.step_status == dict.fromkeys(statuses, 1)
    assert (shown.mesh_alive_nodes, shown.mesh_suspect_nodes, shown.mesh_dead_nodes) == (1, 1, 1)
    assert (shown.inbox_normal, shown.queue_lag_ms) == (1, 100)
    assert (shown.mesh_running_by_unknown_owners, shown.dead_letter_growth_1h) == (1, 1)
    client.close()


def test_a_seeded_step_of_an_unheard_of_priority_is_left_alone(bench: Bench) -> None:
    seed_task(bench)
    seed_step(bench, priority="urgent")
    bench.one()

    assert len(bench.claim()) == 1
    assert bench.step("stp_1")["status"] == "PENDING"


def test_a_seeded_payload_path_that_leads_elsewhere_is_a_failure_that_is_not_retried(bench: Bench) -> None:
    (bench.root / "payload" / "msg_1.payload.json").write_text("text", "utf-8")
    for number, path in enumerate(("payload/msg_1.payload.json", "../../etc/passwd", "/etc/passwd")):
        seed_task(bench, f"tsk_{number}")
        seed_step(bench, f"stp_{number}", task_id=f"tsk_{number}")
        bench.store.conn.execute("UPDATE steps SET payload_path=? WHERE step_id=?", (path, f"stp_{number}"))

    for row in bench.claimed_rows():
        _, failed = bench.store.render(row)  # type: ignore[misc]
        assert (failed.code, failed.retryable) == ("payload_missing", False)
