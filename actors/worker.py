"""WorkerActor: supervises one worker process and feeds it.

    RunGrants ──▶ books ──▶ RunSteps ──▶ process ──▶ StepReports ──▶ FinishSteps ──▶ store
                    │ nothing for a minute: the process is stopped, the next grant starts another
                    │ waits behind a slow step: RevokeSteps ──▶ GrantsRefused ──▶ back to the queue
                    │ does not end in time: kill the process with all below it ──▶ "timeout" for the one that ran
                    └ the process died: AttemptLost for the one that ran, GrantsRefused for the rest

The process asks its agent to end at the timeout, and ends a script's processes itself; this actor kills the process
when that did not help within the grace time.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from actors.about import about
from actors.address import Address
from actors.base import Actor
from actors.finish import report_finished
from actors.timer import Timers
from relaymesh.agents.order import order_for
from relaymesh.agents.process import KILL_MARGIN_MS, WorkerProcess
from relaymesh.agents.spec import AgentSpec
from relaymesh.core.budget import BUDGET_EXHAUSTED
from relaymesh.core.credit import Ahead, Pace, credit, observed, overdue
from relaymesh.core.outcome import Failed
from relaymesh.errors import AgentError
from relaymesh.wire.store import (
    AttemptLost,
    AttemptSpent,
    CancelGrants,
    CutSteps,
    FinishedStep,
    FinishSteps,
    Grant,
    GrantsRefused,
    RevokeGrants,
    RunGrants,
    StepCut,
    WorkerCapacity,
    WorkerTick,
    WorkerUp,
)
from relaymesh.wire.work import (
    CancelStep,
    CutStep,
    RevokeSteps,
    RunSteps,
    StepProgress,
    StepReport,
    StepReports,
    StepSpent,
    StepsRevoked,
    StepStarted,
    StopWorker,
    WorkerExited,
    WorkerOutput,
    WorkerReady,
    WorkerRefused,
    WorkerRetiring,
)

__all__ = ["ProcessFactory", "WorkerActor"]

log = logging.getLogger("relaymesh.worker")

IDLE_NS = 60_000_000_000
_IDLE_LOOK_NS = 15_000_000_000
_TICK_NS = 25_000_000
# On top of timeout and grace: how late the process itself may notice.
_MS = 1_000_000
_SLACK_NS = KILL_MARGIN_MS * _MS
# After a process that could not load its agents: how long nothing is sent to this worker.
_REFUSED_PAUSE_NS = 5_000_000_000
READY_NS_MAX = 60_000_000_000
"""How long a worker process may take to load its agents; then it is killed and the worker pauses."""
BLAMELESS_MAX = 3
"""After so many deaths in a row without a step to blame, nothing is sent to this worker for a while."""

ProcessFactory = Callable[[Callable[[Any], object]], WorkerProcess]


@dataclass(slots=True)
class _Held:
    grant: Grant
    spec: AgentSpec
    pid: int
    sent_at_ns: int
    first_at_ns: int | None = None
    cancelled_at_ns: int | None = None
    revoked: bool = False
    cut_at_ns: int | None = None
    cut: Failed | None = None


class WorkerActor(Actor):
    """See the module. ``make_process`` returns a worker process that was not started yet."""

    takes = (
        RunGrants
        | CancelGrants
        | RevokeGrants
        | WorkerReady
        | WorkerRefused
        | StepStarted
        | StepProgress
        | StepSpent
        | CutSteps
        | StepReports
        | StepsRevoked
        | WorkerRetiring
        | WorkerOutput
        | WorkerExited
        | WorkerTick
    )

    def __init__(
        self,
        specs: Mapping[str, AgentSpec],
        make_process: ProcessFactory,
        timers: Timers,
        store: Address,
        queue: Address,
        lease: Address,
    ) -> None:
        super().__init__()
        self._specs = specs
        self._make_process = make_process
        self._timers = timers
        self._store = store
        self._queue = queue
        self._lease = lease
        self._process: WorkerProcess | None = None
        self._retired: list[WorkerProcess] = []
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._ready = False
        self._pace = Pace()
        self._capacity = 1
        self._ticking = False
        self._idle_since_ns = 0
        self._paused_until_ns = 0
        self._blameless = 0
        self._start = 0
        self._started_at_ns = 0

    def started(self) -> None:
        self._idle_since_ns = self._timers.now_ns()
        self._timers.every(_IDLE_LOOK_NS, self.address, WorkerTick(), key="idle")
        self._start = self._timers.now_ns()
        self._queue.tell(WorkerUp(self.address.name, self._start))

    def stopping(self) -> None:
        self._timers.cancel(self.address, "idle")
        for process in (self._process, *self._retired):
            if process is not None:
                process.kill()

    def crashed(self) -> None:
        self.stopping()

    def receive(self, message: Any) -> None:
        match message:
            case RunGrants(_, start) if start != self._start:
                pass  # meant for the incarnation before us; the queue has given them back since
            case RunGrants(grants):
                self._run_all(grants)
            case StepReports(reports):
                self._reported(reports)
            case StepsRevoked(row_ids):
                self._gave_back(row_ids)
            case RevokeGrants(row_ids):
                self._send(RevokeSteps(row_ids))
            case CancelGrants(row_ids, reason):
                self._cancel(row_ids, reason)
            case StepProgress():
                self._lease.tell(message)
            case StepSpent():
                self._spent(message)
            case CutSteps(cuts):
                self._cut(cuts)
            case StepStarted():
                pass
            case WorkerReady(pid):
                if self._process is not None and self._process.pid == pid:
                    self._ready = True
                    self._mark_first()
            case WorkerRefused(pid, error):
                self._refused(pid, error)
            case WorkerRetiring(pid, reason, row_ids):
                self._retire(pid, reason, row_ids)
            case WorkerOutput(pid, text):
                log.info("worker process %d: %s", pid, text)
            case WorkerExited():
                self._exited(message)
            case WorkerTick():
                self._tick()
            case _:
                assert_never(message)

    # Orders.

    def _run_all(self, grants: tuple[Grant, ...]) -> None:
        now_ns = self._timers.now_ns()
        unknown = tuple(g.lease.row_id for g in grants if g.lease.agent_id not in self._specs)
        known = [g for g in grants if g.lease.agent_id in self._specs]
        if any(grant.allowances for grant in known):
            known = self._one_at_a_time(known)
        if unknown:
            self._queue.tell(GrantsRefused(unknown))
        if not known:
            return
        process = self._process or self._start_process()
        if process is None:
            self._queue.tell(GrantsRefused(tuple(grant.lease.row_id for grant in known)))
            return
        orders = []
        for grant in known:
            spec = self._specs[grant.lease.agent_id]
            self._held[grant.lease.row_id] = _Held(grant, spec, process.pid, now_ns)
            orders.append(order_for(grant, spec))
        self._send(RunSteps(tuple(orders)))
        self._mark_first()
        self._arm()

    def _one_at_a_time(self, grants: list[Grant]) -> list[Grant]:
        """Give back steps with a budget that would wait here: what they may spend is what is left when they begin.

        So no more of a budget can be overspent than what the slots hold.
        """
        self._pace = Pace()
        self._set_capacity(1)
        first = 0 if self._held else 1
        ahead = tuple(grant.lease.row_id for grant in grants[first:] if grant.allowances)
        if ahead:
            self._queue.tell(GrantsRefused(ahead))
        return [*grants[:first], *(grant for grant in grants[first:] if not grant.allowances)]

    def _start_process(self) -> WorkerProcess | None:
        tell = self.address.tell
        process = self._make_process(tell)
        try:
            process.start()
        except AgentError as error:
            log.error("%s", error)
            self._pause()
            return None
        self._process, self._ready = process, False
        self._started_at_ns = self._timers.now_ns()
        return process

    def _send(self, message: Any) -> None:
        """Send to the process, if there is one. A failure ends it: WorkerExited says what becomes of its steps."""
        process = self._process
        if process is None or process.send(message) or not process.alive:
            return
        log.error("worker process %d does not read its orders and is killed", process.pid)
        process.kill()

    def _mark_first(self) -> None:
        """The first that is not reported is the one that runs; its time counts from here."""
        if self._ready and self._held:
            first = next(iter(self._held.values()))
            if first.first_at_ns is None:
                first.first_at_ns = self._timers.now_ns()

    def _cancel(self, row_ids: Iterable[int], reason: str) -> None:
        now_ns = self._timers.now_ns()
        for row_id in row_ids:
            held = self._held.get(row_id)
            if held is not None and held.cancelled_at_ns is None:
                held.cancelled_at_ns = now_ns
                self._send(CancelStep(row_id, held.grant.lease.lease_token, reason))
        self._arm()

    def _cut(self, cuts: Iterable[StepCut]) -> None:
        """End steps because of a budget; what they report is committed, unlike that of a cancelled one."""
        for cut in cuts:
            held = self._held.get(cut.row_id)
            if held is not None and held.grant.lease.lease_token == cut.lease_token and held.cut is None:
                self._note_cut(held, Failed(BUDGET_EXHAUSTED, cut.error, cut.retryable))
                self._send(CutStep(cut.row_id, cut.lease_token, cut.error, cut.retryable))

    def _spent(self, message: StepSpent) -> None:
        held = self._held.get(message.row_id)
        if held is None or held.grant.lease.lease_token != message.lease_token:
            return
        self._lease.tell(AttemptSpent(held.grant.lease, self.address.name, message.spent))
        if message.cut and held.cut is None:
            self._note_cut(held, Failed(BUDGET_EXHAUSTED, message.cut, message.retryable))

    def _note_cut(self, held: _Held, failed: Failed) -> None:
        held.cut, held.cut_at_ns = failed, self._timers.now_ns()
        self._arm()

    # Answers.

    def _reported(self, reports: tuple[StepReport, ...]) -> None:
        finished: list[FinishedStep] = []
        name = self.address.name
        for report in reports:
            held = self._take(report.row_id, report.lease_token)
            if held is None:
                continue
            duration_ms = report.finished_at_ms - report.started_at_ms
            budgeted = held.grant.allowances  # nothing is sent ahead of it, however quick it is
            self._pace = Pace() if budgeted else observed(self._pace, max(0, duration_ms) * _MS)
            # A success that was there before its lease was lost is for the store to judge: it is refused and recorded
            # there, or the lease stood after all.
            if held.cancelled_at_ns is None or report.kind == "succeeded":
                finished.append(FinishedStep(held.grant.lease, report, name))
            elif report.spent:
                self._lease.tell(AttemptSpent(held.grant.lease, name, report.spent))
        if finished:
            self._blameless = 0
            report_finished(self._store, finished)
        self._mark_first()
        self._set_capacity(credit(self._pace))

    def _take(self, row_id: int, token: str | None) -> _Held | None:
        held = self._held.get(row_id)
        if held is None or (token is not None and held.grant.lease.lease_token != token):
            return None  # an answer about an attempt that was given up before
        del self._held[row_id]
        if not self._held:
            self._idle_since_ns = self._timers.now_ns()
        return held

    def _gave_back(self, row_ids: Iterable[int]) -> None:
        returned = []
        for row_id in row_ids:
            held = self._take(row_id, None)
            if held is not None and held.cancelled_at_ns is None:
                returned.append(row_id)
        if returned:
            self._queue.tell(GrantsRefused(tuple(returned)))
        self._mark_first()

    def _give_back_of(self, pid: int) -> None:
        """Give back what was sent to this process; one that retires may still have some while the next is at work."""
        self._gave_back(tuple(row_id for row_id, held in self._held.items() if held.pid == pid))

    def _set_capacity(self, capacity: int) -> None:
        if capacity != self._capacity:
            self._capacity = capacity
            self._queue.tell(WorkerCapacity(self.address.name, capacity))

    # Time.

    def _arm(self) -> None:
        if not self._ticking and self._held:
            self._ticking = True
            self._timers.after(_TICK_NS, self.address, WorkerTick(), key="tick")

    def _tick(self) -> None:
        now_ns = self._timers.now_ns()
        self._ticking = False
        if self._paused_until_ns and now_ns >= self._paused_until_ns:
            self._paused_until_ns = 0
            self._set_capacity(1)
        if not self._held:
            if self._process is not None and now_ns - self._idle_since_ns >= IDLE_NS:
                self._process.send(StopWorker())
                self._retired.append(self._process)
                self._process = None
            return
        process = self._process
        if process is not None and not self._ready and now_ns - self._started_at_ns > READY_NS_MAX:
            log.error("worker process %d has not loaded its agents in time and is killed", process.pid)
            self._pause()
            process.kill()
        entries = iter(self._held.items())
        row_id, first = next(entries)
        waiting = [Ahead(other, held.sent_at_ns) for other, held in entries if not held.revoked]
        late = overdue(now_ns, waiting)
        if late and self._ready:
            for other in late:
                self._held[other].revoked = True
            self._pace = Pace()
            self._set_capacity(1)
            self._send(RevokeSteps(late))
        if self._is_stuck(first, now_ns):
            self._kill_stuck(row_id, first)
        self._arm()

    def _is_stuck(self, held: _Held, now_ns: int) -> bool:
        grace_ns = held.spec.grace_ms * _MS + _SLACK_NS
        for told_at_ns in (held.cancelled_at_ns, held.cut_at_ns):
            if told_at_ns is not None and now_ns - told_at_ns > grace_ns:
                return True
        return held.first_at_ns is not None and now_ns - held.first_at_ns > held.spec.timeout_ms * _MS + grace_ns

    def _kill_stuck(self, row_id: int, held: _Held) -> None:
        lease = held.grant.lease
        for process in (self._process, *self._retired):
            if process is not None and process.pid == held.pid:
                log.warning(
                    "step %s of agent %s does not end: its worker process is killed",
                    lease.step_id,
                    lease.agent_id,
                    extra=about(lease, held.grant.traceparent),
                )
                process.kill()
        if self._process is not None and self._process.pid == held.pid:
            self._process = None
        self._take(row_id, None)
        if held.cancelled_at_ns is None:
            assert held.first_at_ns is not None, "a step that did not begin does not run out of time"
            now_ms = _wall_ms()
            began_at_ms = now_ms - (self._timers.now_ns() - held.first_at_ns) // _MS
            failed = held.cut or Failed(
                "timeout",
                f"the step took longer than its limit of {held.spec.timeout_ms} ms and did not end when asked",
            )
            report = StepReport(
                row_id,
                lease.lease_token,
                "failed",
                code=failed.code,
                error=failed.error,
                retryable=failed.retryable,
                started_at_ms=began_at_ms,
                finished_at_ms=now_ms,
            )
            self._store.tell(FinishSteps((FinishedStep(lease, report, self.address.name),)))
        self._give_back_of(held.pid)

    # The process ends.

    def _refused(self, pid: int, error: str) -> None:
        log.error("a worker process could not load the agents: %s", error)
        self._pause()
        self._give_back_of(pid)

    def _pause(self) -> None:
        self._paused_until_ns = self._timers.now_ns() + _REFUSED_PAUSE_NS
        self._set_capacity(0)
        self._timers.after(_REFUSED_PAUSE_NS + _TICK_NS, self.address, WorkerTick(), key="pause")

    def _retire(self, pid: int, reason: str, row_ids: tuple[int, ...]) -> None:
        process = self._process
        if process is None or process.pid != pid:
            return
        log.info("worker process %d has run its share (%s), a fresh one takes over", pid, reason)
        process.send(StopWorker())
        self._retired.append(process)
        self._process = None
        self._gave_back(row_ids)

    def _exited(self, message: WorkerExited) -> None:
        self._retired = [process for process in self._retired if process.pid != message.pid]
        row_id = message.running_row_id
        held = self._held.get(row_id) if row_id is not None else None
        if row_id is None or held is None or held.pid != message.pid:
            held = None  # of a process that was killed for it, say
        else:
            self._take(row_id, None)
        if self._process is not None and self._process.pid == message.pid:
            self._process = None
            # Nobody is to blame when it died between two steps; when it keeps doing so, it must not do so in a circle.
            self._blameless = 0 if held is not None else self._blameless + 1
            if self._blameless >= BLAMELESS_MAX:
                log.error("worker process %d %s while it ran no step", message.pid, _how(message.exit_status))
                self._pause()
        if held is not None and held.cancelled_at_ns is None:
            error = f"the worker process of agent {held.spec.agent_id} {_how(message.exit_status)} while the step ran"
            log.warning(
                "%s (%s)", error, held.grant.lease.step_id, extra=about(held.grant.lease, held.grant.traceparent)
            )
            self._store.tell(AttemptLost((held.grant.lease,), error, self.address.name))
        self._give_back_of(message.pid)


def _how(exit_status: int) -> str:
    return f"was ended by signal {-exit_status}" if exit_status < 0 else f"ended with status {exit_status}"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def process_factory(root: Path, sources: tuple[str, ...]) -> ProcessFactory:
    """Return what makes the worker processes of one node."""

    def make(on_event: Callable[[Any], object]) -> WorkerProcess:
        return WorkerProcess(root, sources, on_event)

    return make
