"""Agents that run in threads of the node."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from relaymesh.agents.builtin import BUILTINS
from relaymesh.agents.context import Context
from relaymesh.agents.decorate import SPEC_ATTRIBUTE, agent
from relaymesh.agents.spec import AgentSpec
from relaymesh.agents.thread_runner import ThreadRunner
from relaymesh.wire.codec import Message
from relaymesh.wire.work import StepOrder, StepProgress, StepReport, StepsRevoked, StepStarted

Order = Callable[..., StepOrder]
RELEASE = threading.Event()


@agent(isolation="thread")
def upper(text: str) -> str:
    return text.upper()


@agent(isolation="thread", grace_ms=50)
def stuck(text: str) -> str:
    RELEASE.wait(30)
    return "late"


@agent(isolation="thread")
def beats(text: str, ctx: Context) -> str:
    ctx.heartbeat("one")
    ctx.heartbeat("two")
    ctx.cancelled.wait(0.3)
    return ""


SPECS: dict[str, AgentSpec] = {**BUILTINS, **{f.__name__: getattr(f, SPEC_ATTRIBUTE) for f in (upper, stuck, beats)}}


class Runner:
    def __init__(self, threads_max: int) -> None:
        self.events: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.runner = ThreadRunner(SPECS.get, threads_max=threads_max)

    def start(self, *orders: StepOrder) -> None:
        for order in orders:
            self.runner.start(order, self.events.put)

    def report(self) -> StepReport:
        while not isinstance(event := self.events.get(timeout=10), StepReport):
            pass
        return event


@pytest.fixture
def runner() -> Iterator[Runner]:
    RELEASE.clear()
    runner = Runner(threads_max=2)
    yield runner
    RELEASE.set()
    runner.runner.stop("the test is over", within_s=5)


def test_an_order_is_run_and_reported(runner: Runner, order: Order) -> None:
    runner.start(order("upper", "a"))

    assert runner.report().output == "A"


def test_an_unknown_agent_is_a_failure(runner: Runner, order: Order) -> None:
    runner.start(order("nobody"))

    assert runner.report().code == "unknown_agent"


def test_no_more_threads_run_than_allowed_and_the_rest_waits(runner: Runner, order: Order) -> None:
    runner.start(*(order("sleep", "60", row_id=number) for number in range(6)))

    assert runner.runner.busy == 6
    began = time.monotonic()
    assert sorted(runner.report().row_id for _ in range(6)) == list(range(6))
    assert time.monotonic() - began > 0.1  # three rounds of two


def test_a_sleep_is_cut_short_by_a_cancel(runner: Runner, order: Order) -> None:
    runner.start(order("sleep", "60000"))
    assert isinstance(runner.events.get(timeout=10), StepStarted)

    assert not runner.runner.cancel(1, "another lease", "late")
    assert runner.runner.cancel(1, "lease_1", "not wanted")

    assert (runner.report().code, runner.runner.busy) == ("cancelled", 0)


def test_an_order_that_waits_is_revoked_by_a_cancel(runner: Runner, order: Order) -> None:
    runner.start(*(order("stuck", row_id=number) for number in (1, 2, 3)))

    assert runner.runner.cancel(3, "lease_3", "not wanted")

    while not isinstance(event := runner.events.get(timeout=10), StepsRevoked):
        pass
    assert event.row_ids == (3,)


def test_a_heartbeat_that_came_too_fast_is_passed_on_late(runner: Runner, order: Order) -> None:
    runner.start(order("beats"))

    seen = []
    while not isinstance(event := runner.events.get(timeout=10), StepReport):
        seen.append(event)
    assert [event.progress for event in seen if isinstance(event, StepProgress)] == ["one", "two"]


def test_a_thread_that_does_not_end_is_given_up_and_replaced(runner: Runner, order: Order) -> None:
    runner.start(*(order("stuck", row_id=number, timeout_ms=50) for number in (1, 2)))

    reports = [runner.report(), runner.report()]
    assert [report.code for report in reports] == ["timeout", "timeout"]
    assert runner.runner.given_up == 2
    runner.start(order("upper", "still here"))
    assert runner.report().output == "STILL HERE"


def test_a_thread_that_was_given_up_reports_nothing_when_it_ends(
    runner: Runner, order: Order, eventually: Callable[[Callable[[], object]], None]
) -> None:
    runner.start(order("stuck", timeout_ms=30))
    assert runner.report().code == "timeout"

    RELEASE.set()

    eventually(lambda: runner.runner.given_up == 0)
    runner.start(order("upper", "x"))
    assert runner.report().output == "X"


def test_a_stop_revokes_what_waits_and_ends_what_runs(order: Order) -> None:
    runner = Runner(threads_max=1)
    runner.start(order("sleep", "60000", row_id=1), order("upper", row_id=2))
    assert isinstance(runner.events.get(timeout=10), StepStarted)

    assert runner.runner.stop("the node stops", within_s=5)

    events = [runner.events.get(timeout=10), runner.events.get(timeout=10)]
    assert {type(event) for event in events} == {StepsRevoked, StepReport}
    runner.start(order("upper", row_id=3))
    assert runner.events.get(timeout=10) == StepsRevoked((3,))


def test_a_runner_needs_a_thread() -> None:
    with pytest.raises(ValueError):
        ThreadRunner(SPECS.get, threads_max=0)
