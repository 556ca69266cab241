"""Agents that run in the thread of the node, and the built-ins."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.agents.builtin import BUILTINS, FAIL_ERROR, run_builtin
from relaymesh.agents.context import SNOOZE_MS_MAX, AgentFailed, Attempt, Context
from relaymesh.agents.decorate import SPEC_ATTRIBUTE, agent
from relaymesh.agents.execute import run_inline
from relaymesh.agents.trace import span_id_of
from relaymesh.core.outcome import Failed, Succeeded
from relaymesh.wire.work import StepOrder

Order = Callable[..., StepOrder]


@settings(deadline=None, max_examples=40)
@given(payload=st.text(), task_id=st.text())
def test_echo_is_json_for_any_payload(payload: str, task_id: str) -> None:
    order = StepOrder(1, "stp_1", task_id, "echo", 1, payload, "lease", 1, "i", "0af7651916cd43dd8448eb211c80319c", 1)

    report = run_inline(BUILTINS["echo"], order, 1_700_000_000_007)

    assert (report.kind, report.started_at_ms, report.finished_at_ms) == (
        "succeeded",
        1_700_000_000_007,
        1_700_000_000_007,
    )
    span_id = span_id_of("lease")
    assert list(json.loads(report.output).items()) == [
        ("agent", "echo"),
        ("timestamp", "2023-11-14T22:13:20.007Z"),
        ("taskId", task_id),
        ("stepId", "stp_1"),
        ("traceId", "0af7651916cd43dd8448eb211c80319c"),
        ("spanId", span_id),
        ("traceParent", f"00-0af7651916cd43dd8448eb211c80319c-{span_id}-01"),
        ("received", payload),
    ]


def test_fail_always_fails_with_the_same_text(order: Order) -> None:
    report = run_inline(BUILTINS["fail"], order("fail"), 5)

    assert (report.kind, report.code, report.error, report.retryable) == ("failed", "agent_error", FAIL_ERROR, True)


@pytest.mark.parametrize("payload", ["", "x", "-1", "3600001", "1.5", "²", "9" * 5_000])
def test_sleep_takes_milliseconds_up_to_an_hour(order: Order, payload: str) -> None:
    outcome = run_builtin(Attempt(order("sleep", payload)))

    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.retryable) == ("bad_input", False)


def test_sleep_sleeps(order: Order) -> None:
    began = time.monotonic()

    assert run_builtin(Attempt(order("sleep", " 30 "))) == Succeeded("30")
    assert time.monotonic() - began >= 0.03


def test_a_python_agent_may_ask_to_be_inline(order: Order) -> None:
    @agent(isolation="inline")
    async def doubled(number: int, ctx: Context) -> int:
        ctx.log.info("doubling")
        return number * 2

    report = run_inline(getattr(doubled, SPEC_ATTRIBUTE), order("doubled", "21"), 5)

    assert (report.kind, report.output) == ("succeeded", "42")
    assert [line.text for line in report.log] == ["doubling"]


def test_an_inline_agent_that_took_too_long_timed_out(order: Order) -> None:
    @agent(isolation="inline")
    def slow(text: str) -> str:
        time.sleep(0.02)
        return "late"

    assert run_inline(getattr(slow, SPEC_ATTRIBUTE), order("slow", timeout_ms=1), 5).code == "timeout"


def test_an_error_whose_text_cannot_be_made_is_still_reported(order: Order) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @agent(isolation="inline")
    def breaks(text: str) -> str:
        raise Broken

    report = run_inline(getattr(breaks, SPEC_ATTRIBUTE), order("breaks"), 5)

    assert (report.code, report.error) == ("agent_error", "Broken")


def test_a_wish_to_be_retried_after_more_time_than_there_is_is_cut_to_the_longest_wait(order: Order) -> None:
    @agent(isolation="inline")
    def patient(_: str) -> str:
        raise AgentFailed("later", retry_after_s=1e308)

    report = run_inline(getattr(patient, SPEC_ATTRIBUTE), order("patient"), 5)

    assert (report.kind, report.retryable, report.retry_after_ms) == ("failed", True, SNOOZE_MS_MAX)
