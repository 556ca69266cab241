"""ThreadWorkerActor: runs trusted, light agents and HTTP calls in threads of the node."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from actors.address import Address
from actors.base import Actor
from relaymesh.agents.order import order_for
from relaymesh.agents.spec import AgentSpec
from relaymesh.agents.thread_runner import ThreadRunner
from relaymesh.core.budget import BUDGET_EXHAUSTED
from relaymesh.core.outcome import Failed
from relaymesh.wire.store import (
    AttemptSpent,
    CancelGrants,
    CutSteps,
    FinishedStep,
    FinishSteps,
    Grant,
    GrantsRefused,
    LeaseRef,
    RevokeGrants,
    RunGrants,
    WorkerUp,
)
from relaymesh.wire.work import StepProgress, StepReport, StepSpent, StepsRevoked, StepStarted

__all__ = ["ThreadWorkerActor"]

_STOP_S = 2.0
_CANCELLED_MAX = 1_024


class ThreadWorkerActor(Actor):
    """See the module. A thread cannot be killed: one that does not end within its grace time is given up and
    reported."""

    takes = (
        RunGrants
        | CancelGrants
        | RevokeGrants
        | StepStarted
        | StepProgress
        | StepSpent
        | CutSteps
        | StepReport
        | StepsRevoked
    )

    def __init__(
        self, specs: Mapping[str, AgentSpec], threads: int, store: Address, queue: Address, lease: Address
    ) -> None:
        super().__init__()
        self._specs = specs
        self._threads = threads
        self._store = store
        self._queue = queue
        self._lease = lease
        self._held: dict[int, Grant] = {}
        self._cancelled: dict[str, LeaseRef] = {}
        self._start = 0
        self._runner: ThreadRunner | None = None

    def started(self) -> None:
        self._runner = ThreadRunner(self._specs.get, threads_max=self._threads)
        self._start = time.monotonic_ns()
        self._queue.tell(WorkerUp(self.address.name, self._start))

    def stopping(self) -> None:
        if self._runner is not None:
            self._runner.stop("the node stops", within_s=_STOP_S)

    def crashed(self) -> None:
        self.stopping()

    def receive(self, message: Any) -> None:
        assert self._runner is not None
        match message:
            case RunGrants(_, start) if start != self._start:
                pass  # meant for the incarnation before us; the queue has given them back since
            case RunGrants(grants):
                for grant in grants:
                    self._start_one(self._runner, grant)
            case StepReport():
                self._reported(message)
            case StepsRevoked(row_ids):
                self._gave_back(row_ids)
            case CancelGrants(row_ids, reason):
                for row_id in row_ids:
                    held = self._held.pop(row_id, None)
                    if held is not None:
                        self._keep_cancelled(held)
                        self._runner.cancel(row_id, held.lease.lease_token, reason)
            case RevokeGrants():
                pass  # every grant has a thread of its own, so all have begun
            case StepProgress():
                self._lease.tell(message)
            case StepSpent(row_id, lease_token, spent):
                held = self._held.get(row_id)
                if held is not None and held.lease.lease_token == lease_token:
                    self._lease.tell(AttemptSpent(held.lease, self.address.name, spent))
            case CutSteps(cuts):
                for cut in cuts:
                    failed = Failed(BUDGET_EXHAUSTED, cut.error, cut.retryable)
                    self._runner.cut(cut.row_id, cut.lease_token, failed)
            case StepStarted():
                pass
            case _:
                assert_never(message)

    def _start_one(self, runner: ThreadRunner, grant: Grant) -> None:
        spec = self._specs.get(grant.lease.agent_id)
        if spec is None:
            self._queue.tell(GrantsRefused((grant.lease.row_id,)))
            return
        self._held[grant.lease.row_id] = grant
        runner.start(order_for(grant, spec), self.address.tell)

    def _keep_cancelled(self, grant: Grant) -> None:
        """Remember who is charged for a cancelled step that still says what it has spent; the oldest is forgotten."""
        if grant.allowances:
            self._cancelled[grant.lease.lease_token] = grant.lease
            if len(self._cancelled) > _CANCELLED_MAX:
                del self._cancelled[next(iter(self._cancelled))]

    def _reported(self, report: StepReport) -> None:
        lease = self._cancelled.pop(report.lease_token, None)
        if lease is not None and report.spent:
            self._lease.tell(AttemptSpent(lease, self.address.name, report.spent))
        grant = self._held.get(report.row_id)
        if grant is None or grant.lease.lease_token != report.lease_token:
            return  # an attempt that was given up before
        del self._held[report.row_id]
        self._store.tell(FinishSteps((FinishedStep(grant.lease, report, self.address.name),)))

    def _gave_back(self, row_ids: Iterable[int]) -> None:
        returned = tuple(row_id for row_id in row_ids if self._held.pop(row_id, None) is not None)
        if returned:
            self._queue.tell(GrantsRefused(returned))
