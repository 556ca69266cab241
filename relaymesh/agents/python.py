"""Running a Python agent: the payload in, the call, and what came of it."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from relaymesh.agents.context import BUDGET, SNOOZE_MS_MAX, TIMEOUT, AgentFailed, Attempt, Cancelled, Context, Snooze
from relaymesh.agents.log import clean
from relaymesh.agents.spec import PythonTarget
from relaymesh.core.limit import PAYLOAD_BYTES_MAX
from relaymesh.core.outcome import Failed, Outcome, Snoozed, Succeeded
from relaymesh.wire.typed import decoder

if TYPE_CHECKING:
    import asyncio

__all__ = ["ERROR_CHARS_MAX", "CoroutineLoop", "cancelled_outcome", "one_line", "run_python", "succeeded"]

ERROR_CHARS_MAX: Final = 512


def run_python(target: PythonTarget, attempt: Attempt, loop: CoroutineLoop) -> Outcome:
    """Call the agent once and return what came of it; what it raises never gets out of here."""
    try:
        value = _read_input(target, attempt.order.payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        return Failed("bad_input", one_line(f"the input does not fit the agent: {_unfit(error)}"), retryable=False)
    try:
        result = target.function(value, Context(attempt)) if target.takes_context else target.function(value)
        if target.is_coroutine:
            result = loop.run(result, attempt)
        outcome = succeeded(result)
    except BaseException as error:
        outcome = _raised(target, attempt, error)
    return cancelled_outcome(attempt) or outcome


def succeeded(result: Any) -> Outcome:
    """Return what an agent returned as text: text as it is, None as nothing, anything else as JSON."""
    if not isinstance(result, str):
        if result is None:
            return Succeeded("")
        try:
            result = msgspec.json.encode(result).decode()
        except Exception as error:  # user types bring their own errors
            reason = one_line(f"what the agent returned is neither text nor JSON: {error}")
            return Failed("bad_output", reason, retryable=False)
    if not result.isascii():
        try:
            size = len(result.encode("utf-8"))
        except UnicodeEncodeError:
            return Failed("bad_output", "the output holds lone surrogates, which UTF-8 cannot carry", retryable=False)
    else:
        size = len(result)
    if size > PAYLOAD_BYTES_MAX:
        return output_too_large(size)
    return Succeeded(result)


def output_too_large(size: int) -> Failed:
    """Return the failure of an output above the limit; ``size`` is what was seen of it, in bytes."""
    return Failed(
        "output_too_large",
        f"the output has {size} bytes or more, above the limit of {PAYLOAD_BYTES_MAX}: return a reference to it",
        retryable=False,
    )


def cancelled_outcome(attempt: Attempt) -> Failed | None:
    """Return how an attempt ends that was told to stop, or None when it was not."""
    reason = attempt.cancellation.reason
    if reason is None:
        return None
    if reason == BUDGET and attempt.overspent is not None:
        return attempt.overspent
    if reason == TIMEOUT:
        return Failed("timeout", f"the step took longer than its limit of {attempt.order.timeout_ms} ms")
    return Failed("cancelled", one_line(f"the attempt was stopped: {reason}"))


def one_line(text: str) -> str:
    """Return the text on one line, cut to ``ERROR_CHARS_MAX`` characters with ``...`` behind it."""
    flat = " ".join(clean(text[: 4 * ERROR_CHARS_MAX]).split())
    return flat if len(flat) <= ERROR_CHARS_MAX else flat[:ERROR_CHARS_MAX] + "..."


class CoroutineLoop:
    """One asyncio loop for all coroutine agents of a thread, made when the first one runs.

    It is kept between steps, so that clients with connection pools can be kept too. Tasks that an attempt leaves behind
    are cancelled at its end.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any], attempt: Attempt) -> Any:
        import asyncio  # only for coroutines: it is half of a worker's start

        if self._runner is None:
            self._runner = asyncio.Runner()
        loop = self._runner.get_loop()

        async def main() -> Any:
            task = asyncio.current_task()
            assert task is not None

            def cancel() -> None:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)

            attempt.cancellation.on_set(cancel)
            try:
                return await coroutine
            finally:
                left = asyncio.all_tasks(loop) - {task}
                for other in left:
                    other.cancel()
                if left:
                    await asyncio.wait(left, timeout=1)

        return self._runner.run(main())

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _read_input(target: PythonTarget, payload: str) -> Any:
    return payload if target.input_type is str else decoder(target.input_type).decode(payload)


_QUOTING: Final = ("Invalid enum value", "Invalid value")
_UNKNOWN_FIELD: Final = "Object contains unknown field"
_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$[^`]*`\Z")


def _unfit(error: Exception) -> str:
    """Return what is wrong with an input without the words of msgspec and Python that quote the input itself.

    What a class of the agent says in its ``__post_init__`` stays: those are the agent's words, as in what it raises.
    """
    if isinstance(error, UnicodeError):
        return "it is not valid Unicode"
    text = str(error)
    if error.__cause__ is not None:
        return text
    if text.startswith(_UNKNOWN_FIELD):
        return "Object contains an unknown field"  # without the place, which a field's name could forge
    for kind in _QUOTING:
        if text.startswith(kind):
            place = _PLACE.search(text)
            return kind + (place[0] if place is not None else "")
    return text


def _raised(target: PythonTarget, attempt: Attempt, error: BaseException) -> Outcome:
    match error:
        case Snooze():
            return Snoozed(error.for_ms)
        case Cancelled():
            return Failed("cancelled", one_line(f"the agent stopped itself: {error}"))
        case AgentFailed():
            wait_s = error.retry_after_s
            usable = wait_s is not None and math.isfinite(wait_s) and wait_s >= 0
            wait_ms = int(min(wait_s * 1000, SNOOZE_MS_MAX)) if wait_s is not None and usable else None
            return Failed(one_line(str(error.code))[:64], one_line(str(error)), error.retryable, wait_ms)
    _log_traceback(attempt, error)
    retryable = not isinstance(error, target.no_retry_on) and (
        not target.retry_on or isinstance(error, target.retry_on)
    )
    return Failed("agent_error", one_line(_describe(error)), retryable)


def _describe(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a broken __str__ of a user's error
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _log_traceback(attempt: Attempt, error: BaseException) -> None:
    import traceback  # only for agents that fail

    try:
        text = "".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__), limit=-20))
    except Exception:  # as above
        text = type(error).__name__
    attempt.log.add_ours("ERROR", text.rstrip("\n"))


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out our own frames at the top; they say nothing about the agent."""
    here = sys._getframe().f_code.co_filename
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == here:
        trace = trace.tb_next
    return trace
