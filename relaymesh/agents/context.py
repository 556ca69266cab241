"""What an agent is told and what it can say while it runs.

A Python agent that takes a second parameter gets a ``Context``. ``Attempt`` is the other side of it: what the runner
(worker process, thread or node) keeps about the attempt and calls from outside.

    deadline reached ──┐
    budget used up ────┤
    cancelled by node ─┴─▶ ``cancelled`` is set, once, with a reason ──▶ after the grace time: killed by the runner

Once ``cancelled`` is set the attempt counts as timed out or cancelled, whatever the agent still returns: what an agent
returns on being told to stop is not the result that was asked for.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from relaymesh.agents.log import AttemptLog, clean
from relaymesh.agents.spec import DEFAULT_GRACE_MS
from relaymesh.agents.trace import child_traceparent, span_id_of
from relaymesh.wire.work import LogLine, StepOrder

if TYPE_CHECKING:
    import logging
    from decimal import Decimal

    from relaymesh.agents.meter import Meter
    from relaymesh.core.outcome import Failed

__all__ = [
    "BUDGET",
    "PROGRESS_CHARS_MAX",
    "PROGRESS_EVERY_MS",
    "SNOOZE_MS_MAX",
    "TIMEOUT",
    "AgentFailed",
    "Attempt",
    "Cancellation",
    "Cancelled",
    "Context",
    "Snooze",
]

TIMEOUT: Final = "timeout"
BUDGET: Final = "budget"
PROGRESS_CHARS_MAX: Final = 1_024
PROGRESS_EVERY_MS: Final = 100
SNOOZE_MS_MAX: Final = 30 * 24 * 3_600_000


class Cancelled(BaseException):
    """Raised by ``Context.check`` when the attempt is to end. Not an ``Exception``, so that nobody swallows it."""


class Snooze(BaseException):
    """Raised by ``Context.snooze``: run the step again later. Not an ``Exception``, so that nobody swallows it."""

    def __init__(self, for_ms: int) -> None:
        super().__init__(for_ms)
        self.for_ms = for_ms


class AgentFailed(Exception):
    """Raise it to fail with a code of your own, or for good (``retryable=False``).

    retry_after_s: the least wait before the next attempt, in seconds.
    """

    def __init__(
        self, error: str, *, code: str = "agent_error", retryable: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(error)
        self.code, self.retryable, self.retry_after_s = code, retryable, retry_after_s


class Cancellation:
    """Set once, with a reason. Reads like a ``threading.Event`` and is true when it is set.

    The event inside is only made for those who wait, because most attempts are over before anyone could.
    """

    __slots__ = ("_callbacks", "_event", "reason")

    _lock = threading.Lock()  # one for all: held for a few instructions, and rarely taken at all

    def __init__(self) -> None:
        self.reason: str | None = None
        self._event: threading.Event | None = None
        self._callbacks: tuple[Callable[[], None], ...] = ()

    def is_set(self) -> bool:
        return self.reason is not None

    __bool__ = is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; return whether it is."""
        with self._lock:
            if self.reason is not None:
                return True
            if self._event is None:
                self._event = threading.Event()
            event = self._event
        return event.wait(timeout)

    def set(self, reason: str) -> bool:
        """Set it; return False when it was set already, which keeps the first reason."""
        with self._lock:
            if self.reason is not None:
                return False
            self.reason = reason
            event, callbacks = self._event, self._callbacks
            self._callbacks = ()
        if event is not None:
            event.set()
        for callback in callbacks:
            callback()
        return True

    def on_set(self, callback: Callable[[], None]) -> None:
        """Call this once when it is set, in the thread that sets it; at once if it is set already."""
        with self._lock:
            if self.reason is None:
                self._callbacks = (*self._callbacks, callback)
                return
        callback()


class Attempt:
    """What a runner keeps about one attempt.

    on_progress: takes the text of a heartbeat, at most ten a second. on_spent: takes what was spent, at most two a
        second and once when the attempt is cut.
    meter: counts what is spent, where somebody asks or the agent says. overspent: how it fails when it is cut for that.
    announced: whether the node was told that it runs. waited_for: pids of children that the attempt itself waits for.
    """

    __slots__ = (
        "_late_progress",
        "_log",
        "_on_progress",
        "_on_spent",
        "_progress_at_ns",
        "announced",
        "cancellation",
        "deadline_ns",
        "grace_ms",
        "meter",
        "on_grace_over",
        "order",
        "overspent",
        "started_at_ms",
        "started_at_ns",
        "waited_for",
    )

    def __init__(
        self,
        order: StepOrder,
        *,
        grace_ms: int = DEFAULT_GRACE_MS,
        on_progress: Callable[[Attempt, str], None] | None = None,
        on_spent: Callable[[Attempt, Mapping[str, int]], None] | None = None,
    ) -> None:
        self.order = order
        self.grace_ms = grace_ms
        self.cancellation = Cancellation()
        self.started_at_ns = time.monotonic_ns()
        self.started_at_ms = time.time_ns() // 1_000_000
        self.deadline_ns = self.started_at_ns + order.timeout_ms * 1_000_000
        self.announced = False
        self.on_grace_over: Callable[[], None] | None = None
        self.waited_for: tuple[int, ...] = ()
        self._on_progress = on_progress
        self._progress_at_ns = 0
        self._late_progress: str | None = None
        self._log: AttemptLog | None = None
        self._on_spent = on_spent
        self.overspent: Failed | None = None
        self.meter: Meter | None = None
        if order.allowances:
            self._new_meter()

    def _new_meter(self) -> Meter:
        from relaymesh.agents.meter import Meter  # most attempts have none

        meter = self.meter = Meter(self.order.allowances, self.started_at_ns)
        return meter

    @property
    def log(self) -> AttemptLog:
        if self._log is None:
            self._log = AttemptLog()
        return self._log

    def log_lines(self) -> tuple[LogLine, ...]:
        """Return what was logged; cheap when nothing was."""
        return () if self._log is None else self._log.lines()

    def cancel(self, reason: str) -> None:
        """Ask the agent to end; the grace time counts from now on."""
        if self.cancellation.set(reason):
            self.deadline_ns = time.monotonic_ns() + self.grace_ms * 1_000_000

    def spend(self, units: Mapping[str, int]) -> None:
        """Count what the agent says it has spent, kinds to micros; ends the attempt when that is more than was left.

        Raises:
            TooManyUnitsError: nothing was counted.
        """
        meter = self.meter or self._new_meter()
        if meter.crossed(meter.spend(units)) is not None:
            self._judge(meter, time.monotonic_ns())

    def cut(self, failed: Failed) -> None:
        """End the attempt because a budget is used up, as a timeout would; its report is this failure."""
        if self.overspent is None:
            self.overspent = failed
        self.cancel(BUDGET)

    def spent(self) -> tuple[tuple[str, int], ...]:
        """Return all that was spent, for the report; cheap when nobody counts."""
        return () if self.meter is None else tuple(self.meter.total(time.monotonic_ns()).items())

    def _judge(self, meter: Meter, now_ns: int) -> None:
        """Cut the attempt when it has spent too much, and say what it has spent when that is due."""
        spent = meter.total(now_ns)
        failed = None if self.cancellation.is_set() else meter.crossed(spent)
        if failed is not None:
            self.cut(failed)
        if self._on_spent is not None and (failed is not None or now_ns >= meter.beat_at_ns):
            meter.beat(now_ns)
            self._on_spent(self, spent)

    def progress(self, text: str) -> None:
        """Pass on a heartbeat, or keep the newest for the next ``pulse`` when they come too fast."""
        now_ns = time.monotonic_ns()
        if self._on_progress is None:
            return
        if now_ns - self._progress_at_ns < PROGRESS_EVERY_MS * 1_000_000:
            self._late_progress = text
            return
        self._progress_at_ns, self._late_progress = now_ns, None
        self._on_progress(self, text)

    def pulse(self, now_ns: int) -> int:
        """Do what is due (timeout, end of the grace time, a late heartbeat); return when to call again, in ns.

        For the runner's timer thread. The deadline is the timeout first, and the end of the grace time after a cancel.
        """
        if now_ns >= self.deadline_ns:
            if not self.cancellation.is_set():
                self.cancel(TIMEOUT)
            else:
                self.deadline_ns = now_ns + 3_600_000_000_000  # only once; the caller ends what does not end itself
                if self.on_grace_over is not None:
                    self.on_grace_over()
        if self._late_progress is not None:
            self.progress(self._late_progress)
        if self.meter is not None and self.order.allowances:
            return self._pulse_meter(self.meter, now_ns)
        late_ns = self._progress_at_ns + PROGRESS_EVERY_MS * 1_000_000
        return min(self.deadline_ns, late_ns) if self._late_progress is not None else self.deadline_ns

    def _pulse_meter(self, meter: Meter, now_ns: int) -> int:
        if now_ns >= meter.due_ns():
            self._judge(meter, now_ns)
        late_ns = self._progress_at_ns + PROGRESS_EVERY_MS * 1_000_000
        due_ns = min(self.deadline_ns, meter.beat_at_ns if self.cancellation.is_set() else meter.due_ns())
        return min(due_ns, late_ns) if self._late_progress is not None else due_ns


class Context:
    """What an agent is told about its attempt, and how it talks back. Every method may be called from any thread.

    attempt: 1 for the first run of the step.
    fencing_token: grows with every owner of the step; hand it to systems that refuse an older one.
    idempotency_token: the same for every attempt of this step; hand it to systems that do a thing once per token.
    traceparent: for calls that the agent makes; ``incoming_traceparent`` is what the task came with, or "".
    cancelled: set when the attempt is to end; ``if ctx.cancelled:``, ``ctx.cancelled.wait(seconds)``.
    """

    __slots__ = ("_attempt", "_logger", "_span_id")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._logger: logging.Logger | None = None
        self._span_id = ""

    @property
    def task_id(self) -> str:
        return self._attempt.order.task_id

    @property
    def step_id(self) -> str:
        return self._attempt.order.step_id

    @property
    def agent_id(self) -> str:
        return self._attempt.order.agent_id

    @property
    def attempt(self) -> int:
        return self._attempt.order.attempt

    @property
    def fencing_token(self) -> int:
        return self._attempt.order.fencing_token

    @property
    def idempotency_token(self) -> str:
        return self._attempt.order.idempotency_token

    @property
    def trace_id(self) -> str:
        return self._attempt.order.trace_id

    @property
    def span_id(self) -> str:
        if not self._span_id:
            self._span_id = span_id_of(self._attempt.order.lease_token)
        return self._span_id

    @property
    def incoming_traceparent(self) -> str:
        return self._attempt.order.traceparent

    @property
    def traceparent(self) -> str:
        return child_traceparent(self.trace_id, self.span_id, self._attempt.order.traceparent)

    @property
    def cancelled(self) -> Cancellation:
        return self._attempt.cancellation

    def remaining_ms(self) -> int:
        """Return how long the attempt may still take, 0 when its time is up. Measured on the monotonic clock."""
        if self._attempt.cancellation.is_set():
            return 0
        return max(0, (self._attempt.deadline_ns - time.monotonic_ns()) // 1_000_000)

    def check(self) -> None:
        """Raise ``Cancelled`` when the attempt is to end; call it where the agent can be left cleanly."""
        reason = self._attempt.cancellation.reason
        if reason is not None:
            raise Cancelled(reason)

    def heartbeat(self, progress: str | dict[str, Any] | float = "") -> None:
        """Say that the agent is alive and how far it is: a text, a number, or an object that JSON can hold.

        The newest is kept, cut to 1,024 characters; calling it often is cheap.
        """
        text = progress if isinstance(progress, str) else msgspec.json.encode(progress).decode()
        self._attempt.progress(clean(text[:PROGRESS_CHARS_MAX]))

    def spend(self, **units: int | float | str | Decimal) -> None:
        """Say what the attempt has spent since it last said so: ``ctx.spend(tokens=1200, usd=0.02)``.

        Names are of small letters, digits and ``_``; amounts are counted to the millionth. A budget in ``units:NAME``
        is charged for it, also when the attempt fails or is killed later. Without such a budget it does nothing.

        Raises:
            ValueError: a name or an amount cannot be used; nothing was counted.
            Cancelled: that was more than the budgets had left; the attempt ends as ``budget_exhausted``.
        """
        from relaymesh.core.budget_text import units_of

        self._attempt.spend(units_of(units))
        if self._attempt.overspent is not None:
            raise Cancelled(self._attempt.overspent.error)

    def snooze(self, seconds: float) -> NoReturn:
        """End this attempt and run the step again after so many seconds; no attempt is counted.

        Raises:
            ValueError: not a number from 0 to 30 days.
        """
        if not (math.isfinite(seconds) and 0 <= seconds * 1000 <= SNOOZE_MS_MAX):
            raise ValueError(f"cannot snooze for {seconds} seconds: give a number from 0 to {SNOOZE_MS_MAX // 1000}")
        raise Snooze(math.ceil(seconds * 1000))

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines are stored with this attempt: at most 1,000 lines and 64 KiB."""
        if self._logger is None:
            self._logger = _logger_for(self._attempt)
        return self._logger


def _logger_for(attempt: Attempt) -> logging.Logger:
    import logging  # only for agents that log: it is a tenth of a worker's start

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            attempt.log.add(record.levelname, self.format(record))

    # Not through getLogger: the logging module would keep one logger for every attempt for ever.
    logger = logging.Logger(f"relaymesh.agent.{attempt.order.agent_id}", logging.DEBUG)
    logger.addHandler(Handler())
    return logger
