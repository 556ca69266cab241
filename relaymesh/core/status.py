"""The one table of what a task and a step may become, and by which event.

The store writes every transition as one guarded ``UPDATE ... WHERE status = <from>``; a test compares that SQL with
``STEP_TRANSITIONS`` and ``TASK_TRANSITIONS`` below. Nothing else in the code decides what may follow what.

A step (the words beside the arrows are ``StepEvent``; terminal states in capitals between bars)::

                                retry_due
                 ┌────────────────────────────────────┐
                 ▼              claimed               │
    submit ▶ PENDING ─────────────────────▶ RUNNING   │
                 │ ▲         released          │      │
                 │ └───────────────────────────┤      │
                 │ ▲                           ├── retry_scheduled, snoozed, worker_died ──▶ RETRYING
                 │ │ requeued                  ├── reclaimed ──▶ ABANDONED ── retry_scheduled ──▶ RETRYING
                 │ └───────────────────────────│───────────────────┤
                 │                             ├── dead_lettered ──┴─▶ |DEAD_LETTER| ── replayed ──▶ PENDING
                 │ joined                      ├── succeeded ────────▶ |SUCCESS|
                 ├─────────────────────────────│───────────────────────▶ |SUCCESS|        (a map whose copies are done)
                 │ input_refused               │
                 ├─────────────────────────────│───────────────────────▶ |DEAD_LETTER|    (its input cannot be made)
                 │ cancelled_soft, expired     ├── cancelled_hard, closed ─▶ |CANCELLED|
                 └─────────────────────────────┴───────────────────────▶ |CANCELLED|      (RETRYING the same way)

A dead-lettered task that is discarded takes its dead and its waiting steps to CANCELLED (``discarded``). One that is
replayed from a step takes that step and all that depends on it back to PENDING, whatever they had come to
(``restarted``): the only way out of SUCCESS.

``ABANDONED`` exists only inside the transaction of a reclaim. ``FAILED`` and ``TIMEOUT`` are reserved words: nothing
writes them, a cancel still ends a FAILED row that someone else wrote. A step that waits for its time (delay, backoff,
snooze) is RETRYING or PENDING with ``next_retry_at_ms``. ``claimed`` counts an attempt; the events in
``GIVES_BACK_ATTEMPT`` take that count back, because the agent's own code did not fail.

A task (``TaskEvent``)::

                step_claimed, step_succeeded      step_retrying
    submit ▶ PENDING ──────────▶ RUNNING ◀─────────────────────▶ RETRYING
                │                   │                               │
                └───────┬───────────┴───────────────┬───────────────┘
                        ├── all_succeeded ──▶ |SUCCESS|
                        ├── step_dead_lettered ──▶ |DEAD_LETTER| ── replayed ──▶ PENDING
                        │                               └── discarded ──▶ |CANCELLED|
                        └── cancelled, expired ──▶ |CANCELLED|

DEAD_LETTER and CANCELLED are sticky (guarantees G6 and G7): a step of such a task that ends later changes only itself.
So a pair that is missing from ``TASK_TRANSITIONS`` means "the task keeps its status", while a pair that is missing from
``STEP_TRANSITIONS`` means "refused, the row is not what you believe". A running step of a cancelled task that fails,
is released, snoozes or loses its worker or owner is ``closed`` and never scheduled again; if it succeeds, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = [
    "GIVES_BACK_ATTEMPT",
    "STEP_TRANSITIONS",
    "TASK_TRANSITIONS",
    "TERMINAL_STEP",
    "TERMINAL_TASK",
    "StepEvent",
    "StepStatus",
    "TaskEvent",
    "TaskStatus",
    "step_allowed",
    "step_sources",
    "task_allowed",
    "task_sources",
]


class StepStatus(StrEnum):
    """The words in ``steps.status``."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    RETRYING = "RETRYING"
    TIMEOUT = "TIMEOUT"
    ABANDONED = "ABANDONED"
    DEAD_LETTER = "DEAD_LETTER"
    CANCELLED = "CANCELLED"


class TaskStatus(StrEnum):
    """The words in ``tasks.status``; FAILED, TIMEOUT and ABANDONED are never written to a task."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    RETRYING = "RETRYING"
    TIMEOUT = "TIMEOUT"
    ABANDONED = "ABANDONED"
    DEAD_LETTER = "DEAD_LETTER"
    CANCELLED = "CANCELLED"


class StepEvent(StrEnum):
    """What can happen to a step."""

    CLAIMED = "claimed"
    """A node took the lease: new token, ``lease_epoch`` + 1, ``attempt`` + 1."""
    SUCCEEDED = "succeeded"
    """The owner committed an output under its token and epochs."""
    RETRY_SCHEDULED = "retry_scheduled"
    """The attempt failed, or the lease was reclaimed, and the step runs again later."""
    DEAD_LETTERED = "dead_lettered"
    """No attempt is left, the failure is not retryable, or the step is poison."""
    WORKER_DIED = "worker_died"
    """The worker process died under the step, its node lives: counted in ``worker_deaths``."""
    RECLAIMED = "reclaimed"
    """The owner's lease expired, or the owner is dead or restarted: counted in ``owner_deaths``."""
    REQUEUED = "requeued"
    """A restarted node took back what its own former generation ran; it may run at once."""
    RELEASED = "released"
    """The owner gave the step back before it ended: drain, or revoked before its start."""
    SNOOZED = "snoozed"
    """The agent asked to be run again later."""
    RETRY_DUE = "retry_due"
    """``next_retry_at_ms`` has passed."""
    JOINED = "joined"
    """All copies of a map step succeeded; its output is the list of theirs."""
    INPUT_REFUSED = "input_refused"
    """The step's input cannot be made from its dependencies: no list to map over, or too large."""
    REPLAYED = "replayed"
    """An operator replayed the task: ``attempt`` 0."""
    RESTARTED = "restarted"
    """An operator replayed the task from a step on which this one depends: what it came to is forgotten."""
    DISCARDED = "discarded"
    """An operator gave the dead-lettered task up."""
    EXPIRED = "expired"
    """The task's expiry passed while the step waited, for its start or for another attempt; reason ``expired``."""
    CANCELLED_SOFT = "cancelled_soft"
    """The task was cancelled; what runs may end."""
    CANCELLED_HARD = "cancelled_hard"
    """The task was cancelled; what runs is fenced and stopped."""
    CLOSED = "closed"
    """A running step of a cancelled task ended in any way but success."""


class TaskEvent(StrEnum):
    """What can happen to a task; most of it through one of its steps."""

    STEP_CLAIMED = "step_claimed"
    STEP_SUCCEEDED = "step_succeeded"
    """A step ended in SUCCESS and others are open."""
    ALL_SUCCEEDED = "all_succeeded"
    STEP_RETRYING = "step_retrying"
    """A step went to RETRYING: failure, death of a worker or owner, snooze."""
    STEP_DEAD_LETTERED = "step_dead_lettered"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    """At least one step expired while it waited."""
    REPLAYED = "replayed"
    DISCARDED = "discarded"
    """A dead-lettered task was given up."""


def _step_table() -> dict[tuple[StepStatus, StepEvent], StepStatus]:
    s, e = StepStatus, StepEvent
    table = {
        (s.PENDING, e.CLAIMED): s.RUNNING,
        (s.PENDING, e.JOINED): s.SUCCESS,
        (s.PENDING, e.INPUT_REFUSED): s.DEAD_LETTER,
        (s.PENDING, e.EXPIRED): s.CANCELLED,
        (s.RUNNING, e.SUCCEEDED): s.SUCCESS,
        (s.RUNNING, e.RETRY_SCHEDULED): s.RETRYING,
        (s.RUNNING, e.WORKER_DIED): s.RETRYING,
        (s.RUNNING, e.SNOOZED): s.RETRYING,
        (s.RUNNING, e.DEAD_LETTERED): s.DEAD_LETTER,
        (s.RUNNING, e.RECLAIMED): s.ABANDONED,
        (s.RUNNING, e.RELEASED): s.PENDING,
        (s.RUNNING, e.CLOSED): s.CANCELLED,
        (s.RUNNING, e.CANCELLED_HARD): s.CANCELLED,
        (s.ABANDONED, e.RETRY_SCHEDULED): s.RETRYING,
        (s.ABANDONED, e.DEAD_LETTERED): s.DEAD_LETTER,
        (s.ABANDONED, e.REQUEUED): s.PENDING,
        (s.ABANDONED, e.CLOSED): s.CANCELLED,
        (s.RETRYING, e.RETRY_DUE): s.PENDING,
        (s.RETRYING, e.EXPIRED): s.CANCELLED,
        (s.DEAD_LETTER, e.REPLAYED): s.PENDING,
        (s.SUCCESS, e.RESTARTED): s.PENDING,
        (s.RUNNING, e.RESTARTED): s.PENDING,
        (s.RETRYING, e.RESTARTED): s.PENDING,
        (s.DEAD_LETTER, e.DISCARDED): s.CANCELLED,
        (s.PENDING, e.DISCARDED): s.CANCELLED,
        (s.RETRYING, e.DISCARDED): s.CANCELLED,
    }
    for source in (s.PENDING, s.RETRYING, s.ABANDONED, s.FAILED):
        table[source, e.CANCELLED_SOFT] = s.CANCELLED
        table[source, e.CANCELLED_HARD] = s.CANCELLED
    return table


def _task_table() -> dict[tuple[TaskStatus, TaskEvent], TaskStatus]:
    s, e = TaskStatus, TaskEvent
    table: dict[tuple[TaskStatus, TaskEvent], TaskStatus] = {
        (s.DEAD_LETTER, e.REPLAYED): s.PENDING,
        (s.DEAD_LETTER, e.DISCARDED): s.CANCELLED,
    }
    for source in (s.PENDING, s.RUNNING, s.RETRYING):
        table[source, e.STEP_CLAIMED] = s.RUNNING
        table[source, e.STEP_SUCCEEDED] = s.RUNNING
        table[source, e.ALL_SUCCEEDED] = s.SUCCESS
        table[source, e.STEP_RETRYING] = s.RETRYING
        table[source, e.STEP_DEAD_LETTERED] = s.DEAD_LETTER
        table[source, e.CANCELLED] = s.CANCELLED
        table[source, e.EXPIRED] = s.CANCELLED
    return table


STEP_TRANSITIONS: Final[Mapping[tuple[StepStatus, StepEvent], StepStatus]] = MappingProxyType(_step_table())
TASK_TRANSITIONS: Final[Mapping[tuple[TaskStatus, TaskEvent], TaskStatus]] = MappingProxyType(_task_table())

TERMINAL_STEP: Final = frozenset({StepStatus.SUCCESS, StepStatus.DEAD_LETTER, StepStatus.CANCELLED})
TERMINAL_TASK: Final = frozenset({TaskStatus.SUCCESS, TaskStatus.DEAD_LETTER, TaskStatus.CANCELLED})

GIVES_BACK_ATTEMPT: Final = frozenset(
    {StepEvent.RELEASED, StepEvent.SNOOZED, StepEvent.WORKER_DIED, StepEvent.RECLAIMED}
)
"""Events that lower ``attempt`` by the 1 that ``claimed`` added (never below 0)."""


def step_allowed(source: StepStatus, event: StepEvent) -> StepStatus | None:
    """Return what the event makes of a step, or None when a step in that status refuses it."""
    return STEP_TRANSITIONS.get((source, event))


def task_allowed(source: TaskStatus, event: TaskEvent) -> TaskStatus | None:
    """Return what the event makes of a task, or None when the task keeps the status that it has."""
    return TASK_TRANSITIONS.get((source, event))


def step_sources(event: StepEvent) -> frozenset[StepStatus]:
    """Return the statuses in which a step takes the event; the guard of the store's UPDATE."""
    return frozenset(source for source, known in STEP_TRANSITIONS if known is event)


def task_sources(event: TaskEvent) -> frozenset[TaskStatus]:
    """Return the statuses in which the event moves a task."""
    return frozenset(source for source, known in TASK_TRANSITIONS if known is event)
