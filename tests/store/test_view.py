"""The views ``messages`` and ``idempotency``: what operators read there through the life of a step and a task."""

from __future__ import annotations

import hashlib
import json

import pytest

from relaymesh.store.admin import CancelMode, forget_keys
from relaymesh.store.export import export_dead
from relaymesh.store.stats import stats
from tests.store.bench import NOON, Bench


def messages(bench: Bench) -> list[tuple[str, str]]:
    """Return ``(epoch in the message id, state)`` of all messages, in the order of the ids."""
    rows = bench.rows("SELECT msg_id, step_id, state FROM messages ORDER BY msg_id")
    for row in rows:
        assert str(row["msg_id"]).startswith(f"msg_{row['step_id']}.")
    counted = stats(bench.store.conn, bench.root, namespace="default", now_ms=bench.now_ms).message_state
    assert counted == {r["state"]: r["n"] for r in bench.rows("SELECT state, count(*) n FROM messages GROUP BY state")}
    return [(str(row["msg_id"]).rsplit(".", 1)[1], str(row["state"])) for row in rows]


def test_a_message_has_every_column_of_the_reference(bench: Bench) -> None:
    step_id = bench.one(payload="x", priority="HIGH")

    (row,) = bench.rows("SELECT * FROM messages")

    assert row == {
        "msg_id": f"msg_{step_id}.1",
        "namespace": "default",
        "task_id": bench.task_of(step_id)["task_id"],
        "step_id": step_id,
        "from_agent": "system",
        "to_agent": "echo",
        "priority": "HIGH",
        "state": "QUEUED",
        "meta_path": "",
        "payload_path": "",
        "created_at_ms": NOON,
        "updated_at_ms": NOON,
    }


def test_a_message_goes_from_queued_over_processing_to_done(bench: Bench) -> None:
    bench.one()
    assert messages(bench) == [("1", "QUEUED")]

    (lease,) = bench.claim()
    assert messages(bench) == [("1", "PROCESSING")]

    bench.succeed(lease)
    assert messages(bench) == [("1", "DONE")]


def test_each_attempt_is_a_message_of_its_own(bench: Bench) -> None:
    step_id = bench.one()
    for _ in range(2):
        (lease,) = bench.claim()
        bench.fail(lease)
        bench.now_ms += 5_000
        bench.promote()
    assert messages(bench) == [("1", "FAILED"), ("2", "FAILED"), ("3", "QUEUED")]

    (lease,) = bench.claim()
    bench.fail(lease)
    assert messages(bench) == [("1", "FAILED"), ("2", "FAILED"), ("3", "DEAD")]

    with bench.store.write():
        bench.store.replay(str(bench.step(step_id)["task_id"]), now_ms=bench.now_ms)
    assert messages(bench) == [("1", "FAILED"), ("2", "FAILED"), ("3", "DEAD"), ("4", "QUEUED")]


def test_a_message_of_a_lost_lease_is_dead_and_the_next_one_is_queued(bench: Bench) -> None:
    bench.one()
    bench.claim()

    bench.reclaim(*bench.seen())
    assert messages(bench) == [("1", "DEAD")]

    bench.promote()
    assert messages(bench) == [("1", "DEAD"), ("2", "QUEUED")]
    bench.run_all()
    assert messages(bench) == [("1", "DEAD"), ("2", "DONE")]


def test_a_step_that_waits_for_others_or_for_its_time_has_no_message_yet(bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    bench.one(not_before_ms=NOON + 1_000)
    assert messages(bench) == [("1", "QUEUED")]

    with bench.store.write():
        bench.store.cancel(task_id, mode=CancelMode.HARD, reason="enough", now_ms=NOON)
    assert messages(bench) == [("1", "DEAD")]


@pytest.mark.parametrize("mode", [CancelMode.HARD, CancelMode.SOFT])
def test_a_cancel_makes_queued_and_failed_messages_dead_and_counts_them(bench: Bench, mode: CancelMode) -> None:
    task_id = bench.flow({"id": "failed"}, {"id": "queued"}, {"id": "running"}, {"id": "w", "dependsOn": ["queued"]})
    first, second = bench.claim(limit=2)
    bench.fail(first)
    bench.release(second)
    (running,) = bench.claim(limit=1)

    with bench.store.write():
        cancelled = bench.store.cancel(task_id, mode=mode, reason="enough", now_ms=NOON)

    states = [state for _, state in messages(bench)]
    if mode is CancelMode.HARD:
        assert states == ["DEAD"] * 3
        assert (cancelled.step_rows, cancelled.message_rows) == (4, 3)
    else:
        assert sorted(states) == ["DEAD", "DEAD", "PROCESSING"]
        assert (cancelled.step_rows, cancelled.message_rows) == (3, 2)
        bench.fail(running)
        assert [state for _, state in messages(bench)] == ["DEAD"] * 3


def test_dead_letters_are_exported_with_the_message_that_died(bench: Bench) -> None:
    steps = []
    for _ in range(2):
        steps.append(bench.one())
        (lease,) = bench.claim()
        bench.release(lease)
        (lease,) = bench.claim()
        bench.fail(lease, "broken for good", retryable=False)
        bench.now_ms += 1

    outcome = export_dead(bench.store, bench.root / "dead.json", 100)

    assert outcome.exported == 2
    letters = json.loads((bench.root / "dead.json").read_text("utf-8"))
    assert [letter["stepId"] for letter in letters] == steps
    assert letters[0]["msgId"] == f"msg_{steps[0]}.2"
    assert set(letters[0]) >= {"msgId", "taskId", "stepId", "toAgent", "priority", "createdAtMs", "metaPath"}


def key_row(bench: Bench) -> dict[str, object]:
    (row,) = bench.rows("SELECT * FROM idempotency")
    return row


def test_an_idempotency_row_follows_its_task(bench: Bench) -> None:
    step_id = bench.one(key="k")
    row = key_row(bench)
    assert (row["namespace"], row["idempotency_key"], row["status"]) == ("default", "k", "PENDING")
    assert (row["result_ref"], row["result_hash"]) == (bench.task_of(step_id)["task_id"], None)
    assert (row["result_hash_algo"], row["processed_at_ms"], row["created_at_ms"]) == (None, None, NOON)

    (lease,) = bench.claim()
    assert key_row(bench)["status"] == "PENDING"
    bench.fail(lease)
    assert key_row(bench)["status"] == "RETRYING"
    bench.now_ms += 5_000
    bench.promote()
    (lease,) = bench.claim()
    bench.succeed(lease)

    row = key_row(bench)
    result = str(bench.task_of(step_id)["result_payload"])
    assert (row["status"], row["processed_at_ms"]) == ("SUCCESS", bench.now_ms)
    assert (row["result_hash_algo"], row["result_hash"]) == ("sha256", hashlib.sha256(result.encode()).hexdigest())


def test_an_idempotency_row_fails_with_its_task_and_goes_back_on_replay(bench: Bench) -> None:
    step_id = bench.one(key="k")
    (lease,) = bench.claim()
    bench.fail(lease, retryable=False)
    assert (key_row(bench)["status"], key_row(bench)["processed_at_ms"]) == ("FAILED", NOON)

    task_id = str(bench.step(step_id)["task_id"])
    with bench.store.write():
        bench.store.replay(task_id, now_ms=NOON + 1)
    row = key_row(bench)
    assert (row["status"], row["processed_at_ms"], row["result_hash"]) == ("PENDING", None, None)

    with bench.store.write():
        bench.store.cancel(task_id, mode=CancelMode.HARD, reason="enough", now_ms=NOON + 2)
    assert (key_row(bench)["status"], key_row(bench)["processed_at_ms"]) == ("FAILED", NOON + 2)


def test_a_key_that_was_let_go_is_in_no_row(bench: Bench) -> None:
    bench.one(key="k")
    bench.run_all()

    with bench.store.write():
        assert forget_keys(bench.store.conn, before_ms=NOON + 1_000, limit=10) == 1

    assert bench.rows("SELECT * FROM idempotency") == []
