"""What RelayMesh answers: the shapes that commands print and the Python API returns.

Field names and their order are those of the printed JSON (snake_case here, camelCase there). A value that is absent is
``None`` and printed as ``null``, never left out. Instants are ``_ms`` since the Unix epoch, UTC. Status words are upper
case, as in ``relaymesh.core.status``.

    submit            SubmitOutcome, BatchLine          (TaskRequest goes in)
    look              TaskView, TaskSummary, TaskPage, WorkflowDetail, LogEntry, Event, Explanation, DeadLetterView
    change            CancelResult, ReplayOutcome, ReplayBatchOutcome, DiscardOutcome
    write a file      TaskExportOutcome, DeadExportOutcome
    elsewhere         node_view.py: nodes and the root as it runs    rule_view.py: limits, pauses, budgets, settings
                      schedule_view.py: schedules                    outcome.py: the root as a whole
                      gossip_view.py: gossip ticks, keys of the mesh
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "BatchLine",
    "CancelResult",
    "DeadExportOutcome",
    "DeadLetterView",
    "DiscardOutcome",
    "Event",
    "Explanation",
    "LeaseConflict",
    "LogEntry",
    "ReplayBatchOutcome",
    "ReplayOutcome",
    "SubmitOutcome",
    "TaskExportOutcome",
    "TaskPage",
    "TaskRequest",
    "TaskSummary",
    "TaskView",
    "View",
    "WorkflowDetail",
    "WorkflowStep",
    "WorkflowTask",
]


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of all answers: immutable, built by keyword, camelCase in JSON."""


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One task to submit, as ``Client.submit_many`` and a line of ``submit --batch`` take it.

    line: number that comes back in the ``BatchLine``, from 1; 0 lets the receiver count.
    at_ms: do not start before this instant; delay_ms: not before this long after the submit.
    unique: ``waiting``, ``running`` or ``period=MS``: how long another task with the same ``unique_key`` (by default a
        hash of agent and input) makes this one a duplicate; on_duplicate: ``return``, ``refuse``, ``replace`` or
        ``debounce``.
    concurrency_key: what it shares a limit with; with a slash in front, where in the input that stands (JSON pointer).
    budget: what it may spend in all, such as ``{"units:tokens": 50000, "wall_seconds": 600}``.
    """

    agent: str
    input: str
    priority: str = "normal"
    idempotency_key: str | None = None
    delay_ms: int = 0
    at_ms: int | None = None
    expires_in_ms: int | None = None
    labels: dict[str, str] = {}
    traceparent: str | None = None
    concurrency_key: str | None = None
    unique: str | None = None
    on_duplicate: str | None = None
    unique_key: str | None = None
    budget: dict[str, int | float | str] = {}
    line: int = 0


class SubmitOutcome(View, frozen=True, kw_only=True):
    """``task_id`` is the new task, or, ``deduplicated``, the one that already holds the idempotency key."""

    task_id: str
    deduplicated: bool
    message: str


class BatchLine(View, frozen=True, kw_only=True):
    """What became of one line of a batch. ``code`` and ``message`` say why a line was rejected."""

    line: int
    result: Literal["accepted", "duplicate", "rejected"]
    task_id: str | None = None
    code: str | None = None
    message: str | None = None


class TaskView(View, frozen=True, kw_only=True):
    """One task. ``result_payload`` is text holding a JSON object: step id to output text."""

    task_id: str
    status: str
    idempotency_key: str
    trace_id: str
    result_payload: str | None
    last_error: str | None
    created_at_ms: int
    updated_at_ms: int


class TaskSummary(View, frozen=True, kw_only=True):
    """One row of a listing of tasks."""

    task_id: str
    status: str
    trace_id: str
    last_error: str | None
    created_at_ms: int
    updated_at_ms: int


class TaskPage(View, frozen=True, kw_only=True):
    """A piece of a listing. after: the cursor of the next piece, None when there is none."""

    tasks: tuple[TaskSummary, ...]
    after: str | None


class WorkflowTask(View, frozen=True, kw_only=True):
    """The task of a ``WorkflowDetail``."""

    task_id: str
    status: str
    trace_id: str
    created_at_ms: int
    updated_at_ms: int


class WorkflowStep(View, frozen=True, kw_only=True):
    """One step of a ``WorkflowDetail``. ``depends_on`` is ordered; ``priority`` is HIGH, NORMAL or LOW."""

    step_id: str
    agent_id: str
    status: str
    attempt: int
    priority: str
    enqueued: bool
    depends_on: tuple[str, ...]
    created_at_ms: int
    updated_at_ms: int


class WorkflowDetail(View, frozen=True, kw_only=True):
    """A task with its steps, ordered by step id. Single-step tasks have one too."""

    task: WorkflowTask
    steps: tuple[WorkflowStep, ...]


class CancelResult(View, frozen=True, kw_only=True):
    """``message`` is ``cancelled``, ``not_found`` or ``terminal_state:<STATUS>``."""

    task_id: str
    cancelled: bool
    mode: Literal["hard", "soft"]
    message: str
    step_rows: int
    message_rows: int


class ReplayOutcome(View, frozen=True, kw_only=True):
    """Whether a dead-lettered task runs again, and why not."""

    task_id: str
    replayed: bool
    message: str


class DiscardOutcome(View, frozen=True, kw_only=True):
    """``message`` is ``discarded``, ``not_found``, ``invalid_state`` or ``stale``. step_rows: cancelled with it."""

    task_id: str
    discarded: bool
    message: str
    step_rows: int


class DeadLetterView(View, frozen=True, kw_only=True):
    """One dead-lettered step. error_class: the code of its last failure. updated_at_ms: when it died."""

    task_id: str
    step_id: str
    agent: str
    error_class: str
    last_error: str
    attempt: int
    priority: str
    created_at_ms: int
    updated_at_ms: int


class ReplayBatchOutcome(View, frozen=True, kw_only=True):
    """One ``ReplayOutcome`` for each task that had ``status``."""

    status: str
    total: int
    replayed: int
    failed: int
    details: tuple[ReplayOutcome, ...]


class TaskExportOutcome(View, frozen=True, kw_only=True):
    """``output`` is the absolute path of the file, or why nothing was exported."""

    task_id: str
    exported: bool
    step_count: int
    audit_events: int
    output: str


class DeadExportOutcome(View, frozen=True, kw_only=True):
    """How many dead letters were written to ``output_path``."""

    exported: int
    output_path: str


class LogEntry(View, frozen=True, kw_only=True):
    """One line that an attempt of a step logged."""

    step_id: str
    attempt: int
    at_ms: int
    level: str
    text: str


class Event(View, frozen=True, kw_only=True):
    """One thing that happened to a task (``step_id`` None) or to one of its steps."""

    task_id: str
    step_id: str | None
    kind: str
    status: str | None
    attempt: int | None
    at_ms: int
    detail: str | None


class Explanation(View, frozen=True, kw_only=True):
    """The first reason why a step waits, since when, and the command that would unblock it.

    reason: stable code; detail: a sentence; command: None where only waiting helps.
    """

    step_id: str
    reason: str
    since_ms: int
    detail: str
    command: str | None


class LeaseConflict(View, frozen=True, kw_only=True):
    """A result or heartbeat that was refused because the step had another owner, or another state, by then."""

    id: int
    event_type: str
    task_id: str | None
    step_id: str | None
    worker_id: str | None
    expected_status: str | None
    expected_lease_token: str | None
    expected_lease_epoch: int | None
    actual_status: str | None
    actual_lease_owner: str | None
    actual_lease_token: str | None
    actual_lease_epoch: int | None
    occurred_at_ms: int
