"""Waiting for a task, its events, its log: single-threaded, since each look comes when we ask for the next one."""

from __future__ import annotations

import threading

import pytest

from relaymesh.client import Client
from relaymesh.errors import TaskNotFoundError
from relaymesh.view import Event
from relaymesh.watch import WaitTimeoutError
from relaymesh.wire.work import LogLine
from tests.store.bench import NOON, Bench, report_of


def test_a_wait_that_takes_too_long_says_where_the_task_stands_and_leaves_it(client: Client) -> None:
    task = client.submit("echo", "x")

    with pytest.raises(WaitTimeoutError) as caught:
        client.wait(task.task_id, timeout_ms=1)

    assert caught.value.status == "PENDING"
    assert f"relaymesh explain {task.task_id}" in str(caught.value)
    assert client.task(task.task_id).status == "PENDING"


def test_a_wait_ends_with_the_task_whatever_it_came_to(client: Client, bench: Bench) -> None:
    good, bad, gone = (client.submit("echo", text).task_id for text in ("good", "bad", "gone"))
    one, two, _ = bench.claim()
    bench.succeed(one)
    bench.fail(two, retryable=False)
    client.cancel(gone)

    assert [client.wait(task_id, timeout_ms=0).status for task_id in (good, bad, gone)] == [
        "SUCCESS",
        "DEAD_LETTER",
        "CANCELLED",
    ]


def test_a_wait_notices_what_another_process_commits(client: Client, bench: Bench) -> None:
    task = client.submit("echo", "x")
    (lease,) = bench.claim()
    later = threading.Timer(0.05, lambda: bench.succeed(lease, "late"))
    later.start()

    view = client.wait(task.task_id, timeout_ms=10_000)

    later.join()
    assert view.status == "SUCCESS" and "late" in (view.result_payload or "")


@pytest.mark.parametrize("how", ["wait", "events", "logs", "task", "workflow", "explain", "outputs"])
def test_a_task_that_is_not_there_is_an_error_and_no_wait(client: Client, how: str) -> None:
    client.init()

    with pytest.raises(TaskNotFoundError) as caught:
        answer = getattr(client, how)("tsk_none")
        list(answer)

    assert "tsk_none" in str(caught.value)


def words(events: list[Event]) -> list[tuple[str | None, str, str | None]]:
    return [(event.step_id.rsplit("_", 1)[1] if event.step_id else None, event.kind, event.detail) for event in events]


def test_events_tell_the_present_state_and_then_each_change_in_order(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    events = client.events(task_id, timeout_ms=10_000)

    assert words([next(events) for _ in range(3)]) == [
        ("a", "queued", None),
        ("b", "queued", None),
        (None, "queued", None),
    ]

    (a,) = bench.claim()
    assert words([next(events) for _ in range(2)]) == [("a", "started", None), (None, "started", None)]

    with bench.store.write():
        bench.store.renew([(a.row_id, a.lease_token, 1, 1)], progress=[(a.row_id, "half")], now_ms=bench.now_ms)
    assert words([next(events)]) == [("a", "progress", "half")]

    bench.fail(a, "not yet")
    assert words([next(events) for _ in range(2)]) == [("a", "retrying", "not yet"), (None, "retrying", "not yet")]

    bench.now_ms += 5_000
    bench.promote()
    assert words([next(events)]) == [("a", "queued", "not yet")]
    (a,) = bench.claim()
    assert words([next(events) for _ in range(2)]) == [("a", "started", None), (None, "started", "not yet")]
    bench.succeed(a)
    (b,) = bench.claim()
    assert words([next(events) for _ in range(3)]) == [
        ("a", "succeeded", None),
        ("b", "started", None),
        (None, "started", None),
    ]
    bench.succeed(b)
    assert words(list(events)) == [("b", "succeeded", None), (None, "succeeded", None)]


def test_events_of_a_task_that_has_ended_tell_its_end_and_stop(client: Client, bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    bench.fail(lease, "broken", retryable=False)

    events = list(client.events(lease.task_id))

    assert [(event.step_id, event.kind, event.attempt, event.detail) for event in events] == [
        (step_id, "dead_lettered", 1, "broken"),
        (None, "dead_lettered", None, "broken"),
    ]


def test_what_the_same_client_changes_meanwhile_is_told_too(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"})
    kinds = []

    for event in client.events(task_id, timeout_ms=5_000):
        kinds.append(event.kind)
        if len(kinds) == 2:
            client.cancel(task_id)

    assert kinds == ["queued", "queued", "cancelled", "cancelled"]


def test_events_stop_when_their_time_is_over(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"})
    told = []

    with pytest.raises(WaitTimeoutError):
        for event in client.events(task_id, timeout_ms=1):
            told.append(event)

    assert len(told) == 2


def line(at_ms: int, text: str) -> LogLine:
    return LogLine(NOON + at_ms, "INFO", text)


def test_log_lines_of_all_attempts_are_told_oldest_first(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b"})
    a, b = bench.claim()
    bench.fail(a, log=[line(10, "a1"), line(30, "a2")])
    bench.succeed(b, log=[line(5, "b1"), line(20, "b2")])
    bench.now_ms += 5_000
    bench.promote()
    (a,) = bench.claim()
    bench.succeed(a, log=[line(5_000, "a3"), LogLine(NOON + 5_000, "ERROR", "a4")])

    entries = list(client.logs(task_id))

    assert [entry.text for entry in entries] == ["b1", "a1", "b2", "a2", "a3", "a4"]
    assert [(e.step_id[-1], e.attempt, e.at_ms, e.level) for e in entries[-2:]] == [
        ("a", 2, NOON + 5_000, "INFO"),
        ("a", 2, NOON + 5_000, "ERROR"),
    ]


def test_following_a_log_misses_no_line_of_an_attempt_that_ends_later_than_it_wrote(
    client: Client, bench: Bench
) -> None:
    task_id = bench.flow({"id": "slow"}, {"id": "quick"})
    slow, quick = bench.claim()
    bench.succeed(quick, log=[line(50, "quick")])
    lines = client.logs(task_id, follow=True)
    told = [next(lines).text]

    bench.succeed(slow, log=[line(10, "slow, early"), line(90, "slow, late")])

    assert told + [entry.text for entry in lines] == ["quick", "slow, early", "slow, late"]


def test_a_log_of_many_lines_is_told_in_pieces_without_a_gap(client: Client, bench: Bench) -> None:
    step_ids = [bench.one() for _ in range(3)]
    ends = []
    for lease in bench.claim():
        log = tuple(line(number, f"{lease.step_id} {number}") for number in range(700))
        ends.append((lease, report_of(lease, log=log)))
    bench.finish(*ends)

    for step_id in step_ids:
        task_id = str(bench.step(step_id)["task_id"])
        assert [entry.text for entry in client.logs(task_id)] == [f"{step_id} {number}" for number in range(700)]


def test_the_lines_of_a_fenced_attempt_are_not_kept(client: Client, bench: Bench) -> None:
    bench.one()
    (old,) = bench.claim()
    bench.release(old)
    bench.succeed(old, log=[line(1, "stale")])

    assert list(client.logs(old.task_id)) == []
