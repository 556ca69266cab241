"""InlineRelay and VirtualClock: what users test their own agents with."""

from __future__ import annotations

import time
from typing import Any

import pytest

from relaymesh import ITEM, Context, TaskFailedError, TaskNotFoundError, WaitTimeoutError, Workflow, agent
from relaymesh.errors import AgentLoadError
from relaymesh.testing import InlineRelay, VirtualClock


@agent(max_attempts=4, base_backoff_ms=1_000, max_backoff_ms=60_000)
def fails_three_times(text: str, ctx: Context) -> str:
    if ctx.attempt < 4:
        raise OSError("not yet")
    return text


@agent(max_attempts=1)
def snoozes_once(text: str, ctx: Context) -> str:
    marks.append(ctx.attempt)
    if len(marks) == 1:
        ctx.snooze(3_600)
    return text


@agent
def later_type(page: Page) -> int:
    return len(page["body"])


Page = dict[str, str]
marks: list[int] = []


def times_of_one_run(seed: int) -> list[tuple[str, int | None, int]]:
    seen: list[tuple[str, int | None, int]] = []
    with InlineRelay([fails_three_times], seed=seed) as relay:
        task = relay.submit("fails_three_times", "x")
        began = relay.clock.now_ms()
        while relay.task(task.task_id).status != "SUCCESS":
            relay.run(until_ms=relay.clock.now_ms())
            (step,) = relay.workflow(task.task_id).steps
            seen.append((step.status, step.attempt, relay.clock.now_ms() - began))
            relay.clock.advance(100)
    return seen


def test_the_same_seed_gives_the_same_times_and_another_seed_others() -> None:
    first = times_of_one_run(seed=1)

    assert times_of_one_run(seed=1) == first
    assert times_of_one_run(seed=2) != first


def test_what_one_run_came_to_the_next_comes_to_as_well() -> None:
    def everything() -> list[object]:
        with InlineRelay([fails_three_times], seed=7) as relay:
            for number in range(3):
                relay.submit("echo", f"text {number}")
                relay.submit("fails_three_times", str(number))
            relay.run()
            return [relay.task(task.task_id) for task in relay.tasks()]

    first = everything()

    assert len(first) == 6
    assert everything() == first


def test_the_clock_moves_to_what_is_due_and_nobody_waits() -> None:
    with InlineRelay([fails_three_times]) as relay:
        task = relay.submit("fails_three_times", "x", delay_ms=86_400_000)
        began, began_s = relay.clock.now_ms(), time.monotonic()

        attempts = relay.run()

        assert attempts == 4
        # a day, then 1, 2 and 4 seconds with a jitter of at most 250 ms each
        assert 86_407_000 <= relay.clock.now_ms() - began <= 86_407_750
        assert time.monotonic() - began_s < 30
        assert relay.output(task.task_id) == "x"


def test_run_does_not_move_the_clock_beyond_the_time_that_it_is_given(relay: InlineRelay) -> None:
    task = relay.submit("echo", "x", delay_ms=10_000)
    began = relay.clock.now_ms()

    assert relay.run(until_ms=began + 9_999) == 0
    assert relay.clock.now_ms() == began
    assert relay.run(until_ms=began + 10_000) == 1
    assert relay.clock.now_ms() == began + 10_000
    assert relay.task(task.task_id).status == "SUCCESS"


def test_a_task_that_expires_before_it_starts_never_runs(relay: InlineRelay) -> None:
    task = relay.submit("shout", "x", delay_ms=10_000, expires_in_ms=5_000)

    assert relay.run() == 0
    assert relay.task(task.task_id).status in ("CANCELLED", "DEAD_LETTER")


def test_waiting_runs_what_is_there_instead_of_waiting_for_ever(relay: InlineRelay) -> None:
    task = relay.submit("shaky", "x")

    assert relay.wait(task.task_id).status == "SUCCESS"
    assert relay.result(task.task_id) == "x"


def test_waiting_for_what_cannot_end_says_so_at_once(relay: InlineRelay) -> None:
    task = relay.submit("shaky", "x")

    with pytest.raises(WaitTimeoutError, match=r"is still (RUNNING|RETRYING|PENDING)"):
        relay.wait(task.task_id, timeout_ms=1_000)
    with pytest.raises(TaskNotFoundError):
        relay.wait("tsk_none")


def test_events_tell_how_everything_ended(relay: InlineRelay) -> None:
    task = relay.submit("shaky", "x")

    events = list(relay.events(task.task_id))

    assert [(event.step_id is None, event.kind, event.attempt) for event in events] == [
        (False, "succeeded", 2),
        (True, "succeeded", None),
    ]


def test_the_built_in_sleep_moves_the_clock(relay: InlineRelay) -> None:
    task = relay.submit("sleep", "3600000")
    began, began_s = relay.clock.now_ms(), time.monotonic()

    assert relay.result(task.task_id) == "3600000"
    assert relay.clock.now_ms() - began == 3_600_000
    assert time.monotonic() - began_s < 30


def test_a_snooze_takes_its_time_and_no_attempt() -> None:
    marks.clear()
    with InlineRelay([snoozes_once]) as relay:
        task = relay.submit("snoozes_once", "x")
        began = relay.clock.now_ms()

        assert relay.result(task.task_id) == "x"
        assert relay.clock.now_ms() - began >= 3_600_000
        assert marks == [1, 1]


def test_a_coroutine_is_run(relay: InlineRelay) -> None:
    assert relay.result(relay.submit("shout", "quiet").task_id) == "QUIET"


def test_an_annotation_that_is_defined_later_is_found() -> None:
    with InlineRelay([later_type]) as relay:
        assert relay.result(relay.submit("later_type", {"body": "four"}).task_id, type=int) == 4
        with pytest.raises(TaskFailedError, match="does not fit"):
            relay.result(relay.submit("later_type", "[]").task_id)


def test_a_map_runs_once_per_item_and_is_joined(relay: InlineRelay, samples: Any) -> None:
    flow = Workflow()
    orders = [samples.Order("tea"), samples.Order("jam", 3)]
    priced = flow.step("priced", "price", ITEM, over=orders)
    flow.step("total", "total", priced.output)

    task = relay.submit_workflow(flow)

    assert relay.result(task.task_id, type=int) == 1_000
    assert relay.result(task.task_id, priced, type=list[samples.Receipt])[1].cents == 750
    assert relay.output(task.task_id, "priced[0]") == '{"item":"tea","cents":250}'


def test_two_relays_do_not_see_each_other(samples: Any) -> None:
    with InlineRelay([samples.shout]) as one, InlineRelay([samples.shout]) as other:
        one.submit("shout", "x")

        assert len(one.tasks()) == 1
        assert other.tasks() == []


def test_a_function_without_the_decorator_is_refused() -> None:
    with pytest.raises(AgentLoadError, match="not decorated with @agent"):
        InlineRelay([times_of_one_run])


def test_a_clock_of_ones_own_can_be_shared_and_does_not_go_back(samples: Any) -> None:
    clock = VirtualClock(ms=1_000_000)
    with InlineRelay([samples.shout], clock=clock) as relay:
        task = relay.submit("shout", "x")
        clock.advance(5)
        relay.run()

        view = relay.task(task.task_id)
        assert (view.created_at_ms, view.updated_at_ms) == (1_000_000, 1_000_005)
    with pytest.raises(ValueError, match="-1 ms"):
        clock.advance(-1)


def test_schedules_tick_while_the_clock_is_moved() -> None:
    with InlineRelay([fails_three_times]) as relay:
        relay.schedules.create("hourly", every_ms=3_600_000, agent="echo", overlap="queue")
        began = relay.clock.now_ms()

        relay.run()
        nothing = relay.schedules.show("hourly").runs
        relay.run(until_ms=began + 3 * 3_600_000)

        assert nothing == ()
        assert [(run.tick_ms - began, run.status) for run in relay.schedules.show("hourly").runs] == [
            (hours * 3_600_000, "SUCCESS") for hours in (3, 2, 1)
        ]
