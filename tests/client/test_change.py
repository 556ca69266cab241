"""Cancel and replay: the codes that they answer with, and what they did."""

from __future__ import annotations

import pytest

from relaymesh.client import Client
from tests.store.bench import Bench


def statuses(bench: Bench, task_id: str) -> tuple[str, dict[str, str]]:
    steps = bench.rows("SELECT step_id, status FROM steps WHERE task_id=?", task_id)
    return str(bench.task(task_id)["status"]), {str(row["step_id"])[-1]: str(row["status"]) for row in steps}


@pytest.fixture
def task_id(bench: Bench) -> str:
    """A task of which a has succeeded, b runs, and c waits."""
    task_id = bench.flow({"id": "a"}, {"id": "b"}, {"id": "c", "dependsOn": ["b"]})
    (a,) = bench.claim(limit=1)
    bench.succeed(a)
    return task_id


def test_a_hard_cancel_ends_what_runs_and_its_result_is_refused(client: Client, bench: Bench, task_id: str) -> None:
    (b,) = bench.claim()

    result = client.cancel(task_id, reason="no longer wanted")

    assert (result.cancelled, result.mode, result.message) == (True, "hard", "cancelled")
    assert (result.step_rows, result.message_rows) == (2, 1)
    assert statuses(bench, task_id) == ("CANCELLED", {"a": "SUCCESS", "b": "CANCELLED", "c": "CANCELLED"})
    assert client.task(task_id).last_error == "no longer wanted"
    assert bench.succeed(b).refused == (b.row_id,)
    assert client.lease_conflicts()[0].event_type == "success_commit_conflict"


def test_a_soft_cancel_lets_what_runs_succeed(client: Client, bench: Bench, task_id: str) -> None:
    (b,) = bench.claim()

    result = client.cancel_soft(task_id)

    assert (result.cancelled, result.mode, result.step_rows, result.message_rows) == (True, "soft", 1, 0)
    assert statuses(bench, task_id) == ("CANCELLED", {"a": "SUCCESS", "b": "RUNNING", "c": "CANCELLED"})
    assert bench.succeed(b, "kept").refused == ()
    assert statuses(bench, task_id) == ("CANCELLED", {"a": "SUCCESS", "b": "SUCCESS", "c": "CANCELLED"})
    assert bench.step(b.step_id)["result_payload"] == "kept"


@pytest.mark.parametrize("how", ["fail", "release", "lose", "reclaim", "snooze"])
def test_after_a_soft_cancel_what_does_not_succeed_is_closed_and_not_run_again(
    client: Client, bench: Bench, task_id: str, how: str
) -> None:
    (b,) = bench.claim()
    client.cancel_soft(task_id)

    match how:
        case "reclaim":
            bench.reclaim(*bench.seen())
        case "snooze":
            bench.snooze(b, 10)
        case _:
            getattr(bench, how)(b)

    assert statuses(bench, task_id)[1]["b"] == "CANCELLED"
    assert bench.store.next_due_ms() is None
    assert bench.claim() == []


def test_a_task_is_cancelled_once(client: Client, task_id: str) -> None:
    client.cancel(task_id)

    again = client.cancel(task_id)

    assert (again.cancelled, again.message, again.step_rows) == (False, "terminal_state:CANCELLED", 0)


def test_a_task_that_has_ended_is_not_cancelled(client: Client, bench: Bench) -> None:
    done, dead = client.submit("echo", "done").task_id, client.submit("echo", "dead").task_id
    one, two = bench.claim()
    bench.succeed(one)
    bench.fail(two, retryable=False)

    assert client.cancel(done).message == "terminal_state:SUCCESS"
    assert client.cancel_soft(dead).message == "terminal_state:DEAD_LETTER"
    assert client.task(done).result_payload is not None


def test_a_task_that_is_not_there_is_neither_cancelled_nor_replayed(client: Client) -> None:
    client.init()

    assert client.cancel("tsk_none").message == "not_found"
    assert client.replay("tsk_none").message == "not_found"


def test_a_replay_gives_every_dead_step_a_new_start_and_the_task_succeeds(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b"}, {"id": "c", "dependsOn": ["a", "b"]})
    for lease in bench.claim():
        bench.fail(lease, retryable=False)
    assert client.task(task_id).status == "DEAD_LETTER"

    outcome = client.replay(task_id)

    assert (outcome.replayed, outcome.message) == (True, "replayed")
    assert statuses(bench, task_id) == ("PENDING", dict.fromkeys("abc", "PENDING"))
    assert {row["attempt"] for row in bench.rows("SELECT attempt FROM steps")} == {0}
    bench.run_all()
    assert statuses(bench, task_id) == ("SUCCESS", dict.fromkeys("abc", "SUCCESS"))


def test_only_a_dead_letter_is_replayed(client: Client, bench: Bench, task_id: str) -> None:
    assert client.replay(task_id).message == "invalid_state"
    client.cancel(task_id)
    assert client.replay(task_id).message == "invalid_state"


def test_a_sibling_that_ends_after_the_death_of_its_task_does_not_bring_it_back(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b"})
    a, b = bench.claim()
    bench.fail(a, "broken", retryable=False)

    bench.succeed(b)

    assert statuses(bench, task_id) == ("DEAD_LETTER", {"a": "DEAD_LETTER", "b": "SUCCESS"})
    assert client.task(task_id).last_error == "broken"
    client.replay(task_id)
    bench.run_all()
    assert client.task(task_id).status == "SUCCESS"


def test_a_batch_replays_what_changed_last_and_counts_what_it_could_not(client: Client, bench: Bench) -> None:
    dead = []
    for number in range(3):
        dead.append(client.submit("echo", str(number)).task_id)
        (lease,) = bench.claim()
        bench.now_ms += 1_000
        bench.fail(lease, retryable=False)

    outcome = client.replay_batch(limit=2)
    assert (outcome.status, outcome.total, outcome.replayed, outcome.failed) == ("DEAD_LETTER", 2, 2, 0)
    assert [detail.task_id for detail in outcome.details] == [dead[2], dead[1]]

    outcome = client.replay_batch("PENDING")
    assert (outcome.total, outcome.replayed, outcome.failed) == (2, 0, 2)
    assert {detail.message for detail in outcome.details} == {"invalid_state"}
