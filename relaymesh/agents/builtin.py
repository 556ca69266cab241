"""The agents that are always there: ``echo``, ``fail`` and ``sleep``."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

from relaymesh.agents.spec import AgentSpec, Isolation, Kind
from relaymesh.agents.trace import child_traceparent, span_id_of
from relaymesh.core.outcome import Failed, Outcome, Succeeded
from relaymesh.wire.work import StepOrder

if TYPE_CHECKING:
    from relaymesh.agents.context import Attempt

__all__ = ["BUILTINS", "FAIL_ERROR", "SLEEP_MS_MAX", "run_builtin", "run_builtin_inline"]

FAIL_ERROR: Final = "the agent fail always fails"
SLEEP_MS_MAX: Final = 3_600_000

BUILTINS: Final[Mapping[str, AgentSpec]] = MappingProxyType(
    {
        "echo": AgentSpec("echo", Kind.BUILTIN, Isolation.INLINE, source="built-in"),
        "fail": AgentSpec("fail", Kind.BUILTIN, Isolation.INLINE, source="built-in"),
        "sleep": AgentSpec(
            "sleep", Kind.BUILTIN, Isolation.THREAD, timeout_ms=SLEEP_MS_MAX + 60_000, source="built-in"
        ),
    }
)


class _Echo(msgspec.Struct, frozen=True, rename="camel"):
    agent: str
    timestamp: str
    task_id: str
    step_id: str
    trace_id: str
    span_id: str
    trace_parent: str
    received: str


def run_builtin_inline(order: StepOrder, now_ms: int) -> Outcome:
    """Run ``echo`` or ``fail``: a few microseconds, no waiting."""
    if order.agent_id == "echo":
        return Succeeded(_echo(order, now_ms))
    assert order.agent_id == "fail", order.agent_id
    return Failed("agent_error", FAIL_ERROR)


def run_builtin(attempt: Attempt) -> Outcome:
    """Run any built-in in a thread that may wait."""
    order = attempt.order
    if order.agent_id != "sleep":
        return run_builtin_inline(order, time.time_ns() // 1_000_000)
    text = order.payload.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= SLEEP_MS_MAX):
        return Failed("bad_input", f"sleep takes milliseconds from 0 to {SLEEP_MS_MAX}", retryable=False)
    attempt.cancellation.wait(int(text) / 1000)
    return Succeeded(text)


def _echo(order: StepOrder, now_ms: int) -> str:
    span_id = span_id_of(order.lease_token)
    seconds, ms = divmod(now_ms, 1000)
    echo = _Echo(
        order.agent_id,
        f"{_second(seconds)}.{ms:03d}Z",
        order.task_id,
        order.step_id,
        order.trace_id,
        span_id,
        child_traceparent(order.trace_id, span_id, order.traceparent),
        order.payload,
    )
    return msgspec.json.encode(echo).decode()


@functools.lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
