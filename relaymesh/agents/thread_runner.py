"""Agents with isolation ``thread``: run in the node, in a bounded number of threads.

A thread cannot be killed. So after timeout and grace time the attempt is reported as timed out and its thread is given
up: it keeps running until its code returns, and a fresh thread takes its place, as long as not too many were given up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from relaymesh.agents.context import Attempt
from relaymesh.agents.execute import report_of, run_attempt, spent_message, with_spending
from relaymesh.agents.pulse import Pulse
from relaymesh.agents.python import CoroutineLoop, cancelled_outcome, one_line
from relaymesh.agents.spec import AgentSpec
from relaymesh.core.outcome import Failed, Outcome
from relaymesh.wire.codec import Message
from relaymesh.wire.work import (
    STARTED_AFTER_MS,
    StepOrder,
    StepProgress,
    StepReport,
    StepsRevoked,
    StepStarted,
)

__all__ = ["GIVEN_UP_MAX", "ThreadRunner"]

GIVEN_UP_MAX: Final = 32
"""Threads that may be stuck and replaced; beyond that a stuck thread keeps its slot."""

_IDLE_S: Final = 10.0
_TICK_NS: Final = 5_000_000

OnEvent = Callable[[Message], object]


class _Job:
    """One order in the hands of this runner."""

    __slots__ = ("attempt", "given_up", "on_event", "order", "reported", "spec")

    def __init__(self, spec: AgentSpec, order: StepOrder, on_event: OnEvent) -> None:
        self.spec, self.order, self.on_event = spec, order, on_event
        self.attempt: Attempt | None = None
        self.reported = False
        self.given_up = False


class ThreadRunner:
    """Runs orders in at most ``threads_max`` threads; more orders wait.

    find: returns the agent of an id, ``Registry.get`` say.
    """

    def __init__(self, find: Callable[[str], AgentSpec | None], *, threads_max: int) -> None:
        if threads_max < 1:
            raise ValueError(f"threads_max is {threads_max}: it must be at least 1")
        self._find = find
        self._threads_max = threads_max
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._running: dict[int, _Job] = {}
        self._threads = 0
        self._idle = 0
        self._given_up = 0
        self._stopped = False
        self._pulse = Pulse(self._tick, name="agent-threads-pulse")
        self._pulse_started = False

    @property
    def busy(self) -> int:
        """Orders that run or wait."""
        with self._changed:
            return len(self._running) + len(self._waiting)

    @property
    def given_up(self) -> int:
        """Threads that still run the code of an attempt that was given up."""
        return self._given_up

    def start(self, order: StepOrder, on_event: OnEvent) -> None:
        """Run the order; ``on_event`` gets ``StepStarted``, ``StepProgress``, ``StepSpent`` and one ``StepReport``.

        It is called from threads of this runner and must not block. An unknown agent is reported as a failure.
        """
        spec = self._find(order.agent_id)
        if spec is None:
            now_ms = time.time_ns() // 1_000_000
            failed = Failed("unknown_agent", one_line(f"this node has no agent {order.agent_id!r}"))
            on_event(report_of(order, failed, (), now_ms, now_ms))
            return
        with self._changed:
            if self._stopped:
                on_event(StepsRevoked((order.row_id,)))
                return
            self._waiting.append(_Job(spec, order, on_event))
            self._staff()
            self._changed.notify()

    def cancel(self, row_id: int, lease_token: str, reason: str) -> bool:
        """End this attempt: one that waits is revoked, one that runs is told; False when it is not here."""
        with self._changed:
            here = [*self._waiting, *self._running.values()]
            job = next((j for j in here if (j.order.row_id, j.order.lease_token) == (row_id, lease_token)), None)
            if job is None:
                return False
            if job.attempt is None:
                self._waiting.remove(job)
        if job.attempt is None:
            job.on_event(StepsRevoked((row_id,)))
        else:
            job.attempt.cancel(reason)
            self._pulse.poke()
        return True

    def cut(self, row_id: int, lease_token: str, failed: Failed) -> None:
        """End this attempt because a budget is used up, if it still runs."""
        with self._changed:
            job = self._running.get(row_id)
            attempt = job.attempt if job is not None and job.order.lease_token == lease_token else None
        if attempt is not None:
            attempt.cut(failed)
            self._pulse.poke()

    def _spent_to(self, on_event: OnEvent) -> Callable[[Attempt, Mapping[str, int]], None]:
        def pass_on(attempt: Attempt, spent: Mapping[str, int]) -> None:
            if attempt.overspent is not None:
                self._pulse.poke()  # its grace time counts from now
            on_event(spent_message(attempt, spent))

        return pass_on

    def stop(self, reason: str, *, within_s: float) -> bool:
        """Revoke what waits, cancel what runs, and wait for it; return whether all of it ended."""
        with self._changed:
            self._stopped = True
            waiting, running = list(self._waiting), list(self._running.values())
            self._waiting.clear()
            self._changed.notify_all()
        for job in waiting:
            job.on_event(StepsRevoked((job.order.row_id,)))
        for job in running:
            if job.attempt is not None:
                job.attempt.cancel(reason)
        self._pulse.poke()
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._running, within_s)
        self._pulse.stop()
        return ended

    def _staff(self) -> None:
        """Start a thread if orders wait for one; called with the lock held."""
        if len(self._waiting) > self._idle and self._threads < self._threads_max:
            self._threads += 1
            threading.Thread(target=self._work, name=f"agent-thread-{self._threads}", daemon=True).start()
        if not self._pulse_started:
            self._pulse_started = True
            self._pulse.start()

    def _work(self) -> None:
        loop = CoroutineLoop()
        try:
            while (job := self._next()) is not None:
                assert job.attempt is not None
                if self._pulse.asleep:
                    self._pulse.poke()
                outcome = run_attempt(job.spec, job.attempt, loop)
                self._report(job, outcome)
                if job.given_up:
                    break
        finally:
            loop.close()

    def _next(self) -> _Job | None:
        with self._changed:
            self._idle += 1
            try:
                if not self._changed.wait_for(lambda: self._waiting or self._stopped, _IDLE_S) or not self._waiting:
                    self._threads -= 1
                    return None
            finally:
                self._idle -= 1
            job = self._waiting.popleft()
            job.attempt = Attempt(
                job.order,
                grace_ms=job.spec.grace_ms,
                on_progress=_progress_to(job.on_event),
                on_spent=self._spent_to(job.on_event),
            )
            self._running[job.order.row_id] = job
            return job

    def _report(self, job: _Job, outcome: Outcome) -> None:
        with self._changed:
            if job.given_up:
                self._given_up -= 1  # its thread ends now; another one has its place already
            if self._running.get(job.order.row_id) is job:
                del self._running[job.order.row_id]
            if job.reported:
                return
            job.reported = True
            self._changed.notify_all()
        attempt = job.attempt
        assert attempt is not None
        now_ms = time.time_ns() // 1_000_000
        job.on_event(_report_of(attempt, outcome, now_ms))

    def _tick(self, now_ns: int) -> int | None:
        with self._changed:
            jobs = [job for job in self._running.values() if job.attempt is not None]
        due_ns: int | None = None
        for job in jobs:
            attempt = job.attempt
            assert attempt is not None
            if not attempt.announced and now_ns - attempt.started_at_ns >= STARTED_AFTER_MS * 1_000_000:
                attempt.announced = True
                job.on_event(StepStarted(job.order.row_id, job.order.lease_token))
            if attempt.cancellation.is_set() and now_ns >= attempt.deadline_ns:
                self._give_up(job, attempt)
                continue
            next_ns = attempt.pulse(now_ns) if attempt.announced else now_ns + _TICK_NS
            due_ns = next_ns if due_ns is None else min(due_ns, next_ns)
        return due_ns

    def _give_up(self, job: _Job, attempt: Attempt) -> None:
        """Report an attempt that did not end, and let another thread do the work of the one that runs it."""
        outcome = cancelled_outcome(attempt)
        assert outcome is not None
        with self._changed:
            if job.reported:
                return
            job.reported = True
            self._running.pop(job.order.row_id, None)
            if self._given_up < GIVEN_UP_MAX:
                job.given_up = True
                self._given_up += 1
                self._threads -= 1
                self._staff()
            self._changed.notify_all()
        attempt.log.add_ours("ERROR", "it did not end within its grace time; its thread was given up")
        now_ms = time.time_ns() // 1_000_000
        job.on_event(_report_of(attempt, outcome, now_ms))


def _report_of(attempt: Attempt, outcome: Outcome, now_ms: int) -> StepReport:
    report = report_of(attempt.order, outcome, attempt.log_lines(), attempt.started_at_ms, now_ms)
    return report if attempt.meter is None else with_spending(report, attempt)


def _progress_to(on_event: OnEvent) -> Callable[[Attempt, str], None]:
    def pass_on(attempt: Attempt, text: str) -> None:
        on_event(StepProgress(attempt.order.row_id, attempt.order.lease_token, text))

    return pass_on
