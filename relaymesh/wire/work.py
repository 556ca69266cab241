"""Messages between a node and its worker processes, and the same between the actors that pass them on.

    node ──▶ StartWorker ──────────────────────────────────────────▶ worker process
         ◀── WorkerReady | WorkerRefused
         ──▶ RunSteps, CancelStep, CutStep, RevokeSteps, StopWorker
         ◀── StepStarted, StepProgress, StepSpent, StepReports, StepsRevoked, WorkerRetiring
         (WorkerOutput and WorkerExited are made by the node's end of the pipe)

A worker runs its orders one at a time and in the order in which they came, and reports in that order. So the first
order that is neither reported nor revoked is the one that runs; ``StepStarted`` only comes for a step that has been
running for ``STARTED_AFTER_MS``, so that quick steps cost one message per batch.

``row_id`` and ``lease_token`` together name an attempt: a late message about an older attempt is told by its token.
"""

from __future__ import annotations

from typing import Literal

from relaymesh.wire.codec import Message, message

__all__ = [
    "STARTED_AFTER_MS",
    "Allowance",
    "CancelStep",
    "CutStep",
    "LogLine",
    "RevokeSteps",
    "RunSteps",
    "StartWorker",
    "StepOrder",
    "StepProgress",
    "StepReport",
    "StepReports",
    "StepSpent",
    "StepStarted",
    "StepsRevoked",
    "StopWorker",
    "WorkerExited",
    "WorkerOutput",
    "WorkerReady",
    "WorkerRefused",
    "WorkerRetiring",
]

STARTED_AFTER_MS = 20


class LogLine(Message, frozen=True):
    """One line of an attempt's log. ``level`` is DEBUG, INFO, WARNING, ERROR or CRITICAL, or STDOUT or STDERR."""

    at_ms: int
    level: str
    text: str


class Allowance(Message, frozen=True):
    """What was left of a budget when the step was claimed: an attempt that spends more than that is cut.

    scope, name, kind: as in ``relaymesh.core.budget``. left: in micros.
    """

    scope: str
    name: str
    kind: str
    left: int


@message("work.order")
class StepOrder(Message, frozen=True):
    """One attempt of one step.

    fencing_token: grows with each owner of the step (the lease epoch), for systems that can refuse an older one.
    idempotency_token: the same for every attempt of the step.
    traceparent: the W3C trace context that the task came with, or "".
    allowances: what it may spend; where there is one, it reports what it has spent while it runs.
    """

    row_id: int
    step_id: str
    task_id: str
    agent_id: str
    attempt: int
    payload: str
    lease_token: str
    fencing_token: int
    idempotency_token: str
    trace_id: str
    timeout_ms: int
    traceparent: str = ""
    allowances: tuple[Allowance, ...] = ()


@message("work.run")
class RunSteps(Message, frozen=True):
    """Run these, one after the other, behind what is already waiting."""

    orders: tuple[StepOrder, ...]


@message("work.cancel")
class CancelStep(Message, frozen=True):
    """End this attempt. One that has not begun is answered by ``StepsRevoked``, one that runs by its report."""

    row_id: int
    lease_token: str
    reason: str


@message("work.cut")
class CutStep(Message, frozen=True):
    """End this attempt because a budget is used up; its report says so, with ``error``."""

    row_id: int
    lease_token: str
    error: str
    retryable: bool


@message("work.revoke")
class RevokeSteps(Message, frozen=True):
    """Give back those of these rows that have not begun; ``StepsRevoked`` names them."""

    row_ids: tuple[int, ...]


@message("work.stop")
class StopWorker(Message, frozen=True):
    """Finish the running step, give back the rest, and exit."""


@message("work.start")
class StartWorker(Message, frozen=True):
    """The first message to a new worker process: where its agents come from.

    sys_path: the import path of the node, so that a module found there is found here.
    """

    root: str
    sources: tuple[str, ...]
    sys_path: tuple[str, ...]


@message("work.ready")
class WorkerReady(Message, frozen=True):
    """The worker has loaded its agents and takes orders. ``agents`` are their ids."""

    pid: int
    agents: tuple[str, ...]


@message("work.refused")
class WorkerRefused(Message, frozen=True):
    """The worker could not load its agents and exits; ``error`` is one sentence."""

    pid: int
    error: str


@message("work.started")
class StepStarted(Message, frozen=True):
    """The attempt has been running for ``STARTED_AFTER_MS``."""

    row_id: int
    lease_token: str


@message("work.progress")
class StepProgress(Message, frozen=True):
    """The agent is alive. ``progress`` is its text, at most 1,024 characters; at most ten a second are passed on."""

    row_id: int
    lease_token: str
    progress: str


@message("work.spent")
class StepSpent(Message, frozen=True):
    """What the attempt has spent so far, in all: ``(kind, micros)``. At most two a second.

    cut, retryable: that it is ended because of that, in one sentence; "" while it is not.
    """

    row_id: int
    lease_token: str
    spent: tuple[tuple[str, int], ...]
    cut: str = ""
    retryable: bool = True


@message("work.report")
class StepReport(Message, frozen=True):
    """How one attempt ended.

    ``output`` belongs to ``succeeded``; ``code``, ``error``, ``retryable`` and ``retry_after_ms`` to ``failed``;
    ``for_ms`` to ``snoozed``. Times are wall time, for people. ``spent`` is ``(kind, micros)``, where somebody counts.
    """

    row_id: int
    lease_token: str
    kind: Literal["succeeded", "failed", "snoozed"]
    output: str = ""
    code: str = ""
    error: str = ""
    retryable: bool = True
    retry_after_ms: int | None = None
    for_ms: int = 0
    log: tuple[LogLine, ...] = ()
    started_at_ms: int = 0
    finished_at_ms: int = 0
    spent: tuple[tuple[str, int], ...] = ()


@message("work.reports")
class StepReports(Message, frozen=True):
    """Attempts that ended, in the order in which they ran."""

    reports: tuple[StepReport, ...]


@message("work.revoked")
class StepsRevoked(Message, frozen=True):
    """These have not begun and never will here: give them to another worker; no attempt is counted."""

    row_ids: tuple[int, ...]


@message("work.retiring")
class WorkerRetiring(Message, frozen=True):
    """The worker runs nothing more: ``row_ids`` are given back, as is everything that still arrives.

    It exits when it is told to stop. ``reason`` is ``steps`` or ``memory``.
    """

    pid: int
    reason: str
    row_ids: tuple[int, ...]


@message("work.output")
class WorkerOutput(Message, frozen=True):
    """What a worker process wrote to its own stderr outside any attempt: one line."""

    pid: int
    text: str


@message("work.exited")
class WorkerExited(Message, frozen=True):
    """The worker process is gone and was waited for; nothing more comes from it.

    exit_status: as the platform reports it; on POSIX ``-n`` means that signal n ended it.
    running_row_id: the step that it was running when it ended, by a mark in shared memory, or None between two steps.
        Orders before it that were not reported had ended; their reports are lost, and they have to run again.
    """

    pid: int
    exit_status: int
    running_row_id: int | None = None
