"""InlineWorkerActor: runs built-in agents in its own thread, a batch at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, assert_never

from actors.address import Address
from actors.base import Actor
from actors.finish import report_finished
from relaymesh.agents.execute import run_inline
from relaymesh.agents.order import order_for
from relaymesh.agents.spec import AgentSpec
from relaymesh.wire.store import (
    CancelGrants,
    CutSteps,
    FinishedStep,
    Grant,
    GrantsRefused,
    RevokeGrants,
    RunGrants,
    WorkerUp,
)
from relaymesh.wire.work import StepReport

__all__ = ["INLINE_SLOTS", "InlineWorkerActor"]

log = logging.getLogger("relaymesh.worker")

INLINE_SLOTS = 2048
"""Two claims: one runs while the other is being committed. Enough that tasks which come 500 at a time find free slots,
and are stored with their leases taken: that is a third of their cost less."""
_REPORT_EVERY = 128


class InlineWorkerActor(Actor):
    """See the module. A step takes microseconds, so a cancel or revoke always comes too late and is ignored."""

    takes = RunGrants | CancelGrants | RevokeGrants | CutSteps

    def __init__(self, specs: Mapping[str, AgentSpec], store: Address, queue: Address) -> None:
        super().__init__()
        self._specs = specs
        self._store = store
        self._queue = queue
        self._start = 0

    def started(self) -> None:
        self._start = time.monotonic_ns()
        self._queue.tell(WorkerUp(self.address.name, self._start))

    def receive(self, message: Any) -> None:
        match message:
            case RunGrants(_, start) if start != self._start:
                pass  # meant for the incarnation before us; the queue has given them back since
            case RunGrants(grants):
                self._run_all(grants)
            case CancelGrants() | RevokeGrants() | CutSteps():
                pass
            case _:
                assert_never(message)

    def _run_all(self, grants: tuple[Grant, ...]) -> None:
        name = self.address.name
        finished: list[FinishedStep] = []
        for grant in grants:
            spec = self._specs.get(grant.lease.agent_id)
            if spec is None:  # claimed for an agent that was registered when we asked
                self._queue.tell(GrantsRefused((grant.lease.row_id,)))
                continue
            finished.append(FinishedStep(grant.lease, _run_one(grant, spec), name))
            if len(finished) == _REPORT_EVERY:
                report_finished(self._store, finished)
                finished = []
        if finished:
            report_finished(self._store, finished)


def _run_one(grant: Grant, spec: AgentSpec) -> StepReport:
    now_ms = time.time_ns() // 1_000_000
    try:
        return run_inline(spec, order_for(grant, spec), now_ms)
    except Exception as error:
        # A crash would take all other steps of the batch along, and come again with the step until the node gives up.
        log.exception("agent %s could not be run", spec.agent_id)
        lease = grant.lease
        reason = f"the agent could not be run ({type(error).__name__}), the log of the node says more"
        return StepReport(
            lease.row_id,
            lease.lease_token,
            "failed",
            code="agent_error",
            error=reason,
            started_at_ms=now_ms,
            finished_at_ms=now_ms,
        )
