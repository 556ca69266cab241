"""What attempts come to: results, retries, dead letters, and results of owners that were fenced."""

from __future__ import annotations

import json

import pytest

from relaymesh.core.retry import POISON_WORKER_DEATHS
from relaymesh.store.admin import CancelMode
from relaymesh.wire.store import WriteNode
from relaymesh.wire.work import LogLine
from tests.store.bench import NOON, POLICY, Bench, report_of


def test_a_success_ends_its_step_and_its_task_with_the_map_of_outputs(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()

    bench.succeed(lease, 'quote " and newline \n')

    step, task = bench.step(step_id), bench.task_of(step_id)
    assert (step["status"], step["lease_owner"], step["lease_token"]) == ("SUCCESS", None, None)
    assert (task["status"], task["open_steps"], task["finished_at_ms"]) == ("SUCCESS", 0, NOON)
    assert json.loads(str(task["result_payload"])) == {step_id: 'quote " and newline \n'}


def test_a_result_under_a_stale_token_changes_nothing_and_is_recorded(bench: Bench) -> None:
    step_id = bench.one()
    (old,) = bench.claim("n1")
    bench.now_ms += 20_000
    bench.reclaim(*bench.seen())
    bench.promote()
    (new,) = bench.claim("n2")
    before = bench.step(step_id), bench.task_of(step_id)

    result = bench.succeed(old, "late")

    assert result.refused == (old.row_id,)
    assert (bench.step(step_id), bench.task_of(step_id)) == before
    (conflict,) = bench.conflicts()
    assert conflict["event_type"] == "success_commit_conflict"
    assert (conflict["expected_lease_epoch"], conflict["actual_lease_epoch"]) == (old.lease_epoch, new.lease_epoch)
    assert (conflict["expected_lease_token"], conflict["actual_lease_token"]) == (old.lease_token, new.lease_token)
    assert (conflict["actual_status"], conflict["actual_lease_owner"]) == ("RUNNING", "n2")


@pytest.mark.parametrize("order", ["late first", "late last"])
@pytest.mark.parametrize("shape", ["sole", "flow"])
def test_a_late_result_in_the_same_commit_does_not_keep_the_owners_result_from_counting(
    bench: Bench, order: str, shape: str
) -> None:
    if shape == "sole":
        task_id = str(bench.task_of(bench.one())["task_id"])
    else:
        task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    (old,) = bench.claim()
    bench.release(old)
    (new,) = bench.claim()
    ends = [(old, report_of(old, output="late")), (new, report_of(new, output="right"))]

    result = bench.finish(*(ends if order == "late first" else ends[::-1]))

    assert result.refused == (old.row_id,)
    bench.run_all()
    assert bench.task(task_id)["status"] == "SUCCESS"
    assert "right" in str(bench.task(task_id)["result_payload"])


@pytest.mark.parametrize("shape", ["sole", "flow"])
def test_one_result_handed_in_twice_counts_once(bench: Bench, shape: str) -> None:
    if shape == "sole":
        task_id = str(bench.task_of(bench.one())["task_id"])
    else:
        task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    (lease,) = bench.claim()
    end = (lease, report_of(lease, output="once"))

    bench.finish(end, end)

    bench.run_all()
    assert bench.task(task_id)["status"] == "SUCCESS"
    assert len(bench.conflicts()) == 1


def test_a_failure_in_the_same_commit_as_a_late_failure_is_kept_with_its_log(bench: Bench) -> None:
    step_id = bench.one()
    (old,) = bench.claim()
    bench.release(old)
    (new,) = bench.claim()
    line = LogLine(NOON, "INFO", "from the owner")

    bench.finish(
        (old, report_of(old, "failed", code="x", error="late", log=(LogLine(NOON, "INFO", "late"),))),
        (new, report_of(new, "failed", code="x", error="right", log=(line,))),
    )

    assert bench.step(step_id)["last_error"] == "right"
    assert [row["text"] for row in bench.rows("SELECT text FROM attempt_logs")] == ["from the owner"]


def test_a_failure_waits_for_its_backoff_and_the_last_one_is_a_dead_letter(bench: Bench) -> None:
    step_id = bench.one()
    waits = []
    for _ in range(2):
        (lease,) = bench.claim()
        bench.fail(lease)
        step = bench.step(step_id)
        assert (step["status"], bench.task_of(step_id)["status"]) == ("RETRYING", "RETRYING")
        waits.append(int(str(step["next_retry_at_ms"])) - bench.now_ms)
        bench.now_ms = int(str(step["next_retry_at_ms"]))
        assert bench.promote() == 1
    (lease,) = bench.claim()

    bench.fail(lease, "for the third time")

    assert 1_000 <= waits[0] <= 1_250 and 2_000 <= waits[1] <= 2_250
    step, task = bench.step(step_id), bench.task_of(step_id)
    assert (step["status"], step["attempt"], step["next_retry_at_ms"]) == ("DEAD_LETTER", 3, None)
    assert (task["status"], task["last_error"]) == ("DEAD_LETTER", "for the third time")


def test_a_failure_that_is_not_retryable_is_a_dead_letter_at_once(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()

    bench.fail(lease, retryable=False)

    assert bench.step(step_id)["status"] == "DEAD_LETTER"


def test_a_snooze_counts_no_attempt(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()

    result = bench.snooze(lease, 5_000)

    step = bench.step(step_id)
    assert (step["status"], step["attempt"], step["next_retry_at_ms"]) == ("RETRYING", 0, NOON + 5_000)
    assert result.due_at_ms == NOON + 5_000


def test_a_released_step_is_ready_at_once_and_counts_no_attempt(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()

    assert bench.release(lease) == 1

    assert (bench.step(step_id)["status"], bench.step(step_id)["attempt"]) == ("PENDING", 0)
    (again,) = bench.claim()
    assert (again.attempt, again.lease_epoch) == (1, lease.lease_epoch + 1)


@pytest.mark.parametrize("mode", [CancelMode.HARD, CancelMode.SOFT])
def test_a_release_by_a_fenced_owner_is_recorded_even_when_the_task_is_cancelled(
    bench: Bench, mode: CancelMode
) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    bench.reclaim(*bench.seen())
    with bench.store.write():
        bench.store.cancel(lease.task_id, mode=mode, reason="enough", now_ms=bench.now_ms)
    before = bench.step(step_id)

    assert bench.release(lease) == 0

    assert bench.step(step_id) == before
    (conflict,) = bench.conflicts()
    assert (conflict["actual_status"], conflict["actual_lease_epoch"]) == ("CANCELLED", lease.lease_epoch)


def test_a_step_that_ends_its_worker_three_times_is_poison(bench: Bench) -> None:
    step_id = bench.one()
    for death in range(1, POISON_WORKER_DEATHS + 1):
        (lease,) = bench.claim()
        due = bench.lose(lease)
        assert bench.step(step_id)["worker_deaths"] == death
        if due is not None:
            bench.now_ms = due
            bench.promote()

    step = bench.step(step_id)
    assert (step["status"], bench.task_of(step_id)["status"]) == ("DEAD_LETTER", "DEAD_LETTER")
    assert "poison" in str(step["last_error"])


def test_a_death_is_recorded_with_the_node_and_with_the_worker_that_died(bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim(node="n1")

    bench.lose(lease, node="worker-3")

    (attempt,) = bench.rows("SELECT outcome, node_id, worker_id FROM attempts")
    assert attempt == {"outcome": "worker_died", "node_id": "n1", "worker_id": "worker-3"}


def test_a_word_of_progress_is_kept_only_under_the_lease_of_the_step(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    ours = (lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch)
    strange = [
        (),
        ((lease.row_id, "lse_of_another", lease.lease_epoch, lease.cluster_epoch),),
        ((lease.row_id, lease.lease_token, lease.lease_epoch - 1, lease.cluster_epoch),),
    ]

    for leases in strange:
        with bench.store.write():
            bench.store.renew(leases, progress=[(lease.row_id, "late")], now_ms=bench.now_ms)
    assert bench.step(step_id)["progress"] is None

    with bench.store.write():
        bench.store.renew([ours], progress=[(lease.row_id, "half")], now_ms=bench.now_ms)
    assert bench.step(step_id)["progress"] == "half"


def test_a_lost_attempt_of_a_fenced_owner_sets_no_time_at_which_something_is_due(bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim()
    bench.release(lease)

    assert bench.lose(lease) is None

    assert [row["event_type"] for row in bench.conflicts()] == ["failure_commit_conflict"]


def test_a_bump_of_the_cluster_epoch_refuses_every_result_in_flight_once(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    with bench.store.write():
        bench.store.conn.execute("UPDATE cluster_state SET state_value='2', version=2 WHERE state_key='cluster_epoch'")

    assert bench.succeed(lease).refused == (lease.row_id,)
    assert bench.fail(lease).refused == (lease.row_id,)

    assert bench.step(step_id)["status"] == "RUNNING"
    assert [row["event_type"] for row in bench.conflicts()] == ["success_commit_conflict", "failure_commit_conflict"]
    bench.reclaim(*bench.seen())
    bench.promote()
    bench.run_all()
    assert bench.task_of(step_id)["status"] == "SUCCESS"


def test_a_renewal_refreshes_the_row_and_names_what_is_lost(bench: Bench) -> None:
    first, second = bench.one(), bench.one()
    one, two = bench.claim()
    bench.release(two)
    bench.now_ms += 1_000
    before = bench.step(second)

    with bench.store.write():
        lost = bench.store.renew(
            [(lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch) for lease in (one, two)],
            progress=[(one.row_id, "half"), (two.row_id, "stale")],
            now_ms=bench.now_ms,
        )

    assert lost == (two.row_id,)
    assert (bench.step(first)["updated_at_ms"], bench.step(first)["progress"]) == (NOON + 1_000, "half")
    assert bench.step(second) == before


def test_the_progress_of_a_fenced_owner_does_not_overwrite_the_new_owners(bench: Bench) -> None:
    step_id = bench.one()
    (old,) = bench.claim("n1")
    bench.release(old)
    bench.claim("n2")

    with bench.store.write():
        bench.store.renew(
            [(old.row_id, old.lease_token, old.lease_epoch, old.cluster_epoch)],
            progress=[(old.row_id, "stale")],
            now_ms=bench.now_ms,
        )

    assert bench.step(step_id)["progress"] is None


def test_a_retry_that_would_lie_behind_the_end_of_time_is_stored_all_the_same(bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()

    bench.snooze(lease, (1 << 64) - 1)

    assert bench.step(step_id)["status"] == "RETRYING"


def test_a_restarted_node_takes_back_what_its_former_generations_ran_and_nothing_else(bench: Bench) -> None:
    mine, theirs, now = bench.one(), bench.one(), bench.one()
    bench.claim("n1", limit=1, generation=1)
    bench.claim("n2", limit=1, generation=1)
    bench.claim("n1", limit=1, generation=2)

    with bench.store.write():
        count = bench.store.requeue_former_generation(
            node_id="n1", generation=2, policy_of=lambda _: POLICY, now_ms=bench.now_ms
        )

    assert count.reclaimed == 1
    assert [bench.step(step_id)["status"] for step_id in (mine, theirs, now)] == ["PENDING", "RUNNING", "RUNNING"]
    # The first death of an owner costs no wait: it is ready at once, and counts no attempt.
    assert (bench.step(mine)["attempt"], bench.step(mine)["owner_deaths"]) == (0, 1)


def test_a_node_that_starts_again_has_a_new_generation_and_is_alive_again_after_its_dwell(bench: Bench) -> None:
    def register() -> int:
        with bench.store.write():
            return bench.store.register_node("n1", pid=1, host="h", agents="{}", now_ms=bench.now_ms)

    assert register() == 1
    bench.store.conn.execute("UPDATE mesh_nodes SET status='DEAD'")
    bench.now_ms += 10

    assert register() == 2

    (row,) = bench.rows("SELECT * FROM mesh_nodes")
    assert (row["status"], row["status_changed_at_ms"], row["last_heartbeat_ms"]) == ("DEAD", NOON, NOON + 10)
    later = NOON + 30_000
    with bench.store.write():
        assert bench.store.write_heartbeat(WriteNode("n1", 1, "ALIVE", "{}"), now_ms=later) is None
        heard = bench.store.write_heartbeat(WriteNode("n1", 2, "ALIVE", "{}"), now_ms=later)
    assert heard is not None and not heard.suppressed
    (row,) = bench.rows("SELECT * FROM mesh_nodes")
    assert (row["status"], row["status_changed_at_ms"]) == ("ALIVE", later)
