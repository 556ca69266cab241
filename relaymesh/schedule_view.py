"""What the commands about schedules answer.

As ``relaymesh.view``, and apart from it because a command that looks at tasks need not load these.
"""

from __future__ import annotations

from relaymesh.view import View

__all__ = [
    "BackfillOutcome",
    "NextTick",
    "ScheduleChange",
    "ScheduleDetail",
    "ScheduleRun",
    "ScheduleView",
]


class ScheduleView(View, frozen=True, kw_only=True):
    """One schedule. Ticks are instants in ms; ``passed_over`` counts how often ticks were passed over.

    budget: what each run may spend, kind to amount, beside what a workflow file says.
    kind: ``cron``, ``interval`` or ``once``. agent: None for a workflow. input_sha256: of the input or workflow file.
    state: ``ACTIVE``, ``PAUSED`` or ``ENDED``; a schedule that could not be fired is paused, ``last_error`` says why.
    """

    name: str
    state: str
    kind: str
    cron: str | None
    timezone: str
    every_ms: int | None
    next_tick_ms: int | None
    next_tick: str | None
    last_tick_ms: int | None
    last_task_id: str | None
    queued_tick_ms: int | None
    missed: str
    missed_max: int
    jitter_ms: int
    overlap: str
    agent: str | None
    workflow: bool
    priority: str | None
    labels: dict[str, str]
    budget: dict[str, str]
    input_bytes: int
    input_sha256: str
    made: int
    passed_over: int
    last_error: str | None
    created_at_ms: int
    updated_at_ms: int
    schedule_id: str


class ScheduleRun(View, frozen=True, kw_only=True):
    """One tick that was made. kind: ``planned`` (also by a backfill) or ``trigger``. status: of the task, now."""

    tick: str
    tick_ms: int
    kind: str
    task_id: str
    status: str | None
    made_at_ms: int


class ScheduleDetail(View, frozen=True, kw_only=True):
    """One schedule with the ticks that were made last, newest first."""

    schedule: ScheduleView
    runs: tuple[ScheduleRun, ...]


class NextTick(View, frozen=True, kw_only=True):
    """A tick to come, in UTC and in the time of the schedule's zone."""

    tick_ms: int
    tick: str
    local: str


class ScheduleChange(View, frozen=True, kw_only=True):
    """What a pause, resume, trigger or delete came to. task_id: of the run that a trigger started."""

    name: str
    changed: bool
    message: str
    state: str | None
    task_id: str | None = None


class BackfillOutcome(View, frozen=True, kw_only=True):
    """``ticks`` lie in the span, ``submitted`` of them were made now, ``already_made`` before."""

    name: str
    from_ms: int
    to_ms: int
    ticks: int
    submitted: int
    already_made: int
    task_ids: tuple[str, ...]
