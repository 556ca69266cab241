"""The agents that are always there: ``echo``, ``fail`` and ``sleep``."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from json.encoder import encode_basestring
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

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
    # Ids are checked where they enter, so only the payload needs escaping. A step id may hold any text of an operator's
    # own row, though, and escaping it is as cheap as asking.
    return (
        f'{{"agent":"echo","timestamp":"{_second(seconds)}.{ms:03d}Z","taskId":{encode_basestring(order.task_id)},'
        f'"stepId":{encode_basestring(order.step_id)},"traceId":{encode_basestring(order.trace_id)},'
        f'"spanId":"{span_id}",'
        f'"traceParent":{encode_basestring(child_traceparent(order.trace_id, span_id, order.traceparent))},'
        f'"received":{encode_basestring(order.payload)}}}'
    )


@functools.lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
