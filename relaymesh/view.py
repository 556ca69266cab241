"""What RelayMesh answers: the shapes that commands print and the Python API returns.

Field names and their order are those of the printed JSON (snake_case here, camelCase there). A value that is absent is
``None`` and printed as ``null``, never left out. Instants are ``_ms`` since the Unix epoch, UTC. Status words are upper
case, as in ``relaymesh.core.status``.

    submit            SubmitOutcome, BatchLine          (TaskRequest goes in)
    look              TaskView, TaskSummary, TaskPage, WorkflowDetail, LogEntry, Event, Explanation, DeadLetterView
    change            CancelResult, ReplayOutcome, ReplayBatchOutcome, DiscardOutcome
    write a file      TaskExportOutcome, DeadExportOutcome
    run and operate   WorkerOutcome, MaintenanceOutcome, BenchmarkRunOutcome
    watch             StatsOutcome, HealthOutcome, LeaseConflict, SloAlertOutcome, AlertsOutcome
    cluster state     ClusterStateOutcome, ClusterEpochBumpOutcome
    budgets           BudgetView, BudgetOutcome
    limits            LimitView, LimitOutcome, PauseView, PauseOutcome, QueueStatus
    settings          SettingView, SettingSetOutcome, SettingsReloadOutcome, SettingsHistoryEntry
    schedule          ScheduleView, ScheduleDetail, ScheduleRun, NextTick, ScheduleChange, BackfillOutcome
    audit             AuditIntegrityOutcome, SiemExportOutcome
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "AlertState",
    "AlertsOutcome",
    "AuditIntegrityOutcome",
    "BackfillOutcome",
    "BatchLine",
    "BenchmarkRunOutcome",
    "BudgetOutcome",
    "BudgetView",
    "CancelResult",
    "ClusterEpochBumpOutcome",
    "ClusterStateOutcome",
    "DeadExportOutcome",
    "DeadLetterView",
    "DiscardOutcome",
    "Event",
    "Explanation",
    "HealthOutcome",
    "LeaseConflict",
    "LeaseReportOutcome",
    "LimitOutcome",
    "LimitView",
    "LogEntry",
    "MaintenanceOutcome",
    "NextTick",
    "OwnershipEvent",
    "PauseOutcome",
    "PauseView",
    "QueueStatus",
    "ReplayBatchOutcome",
    "ReplayOutcome",
    "ScheduleChange",
    "ScheduleDetail",
    "ScheduleRun",
    "ScheduleView",
    "SettingSetOutcome",
    "SettingView",
    "SettingsHistoryEntry",
    "SettingsReloadOutcome",
    "SiemExportOutcome",
    "SloAlert",
    "SloAlertOutcome",
    "StatsOutcome",
    "SubmitOutcome",
    "TaskExportOutcome",
    "TaskPage",
    "TaskRequest",
    "TaskSummary",
    "TaskView",
    "View",
    "WorkerOutcome",
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


class AuditIntegrityOutcome(View, frozen=True, kw_only=True):
    """Whether the audit log is as it was written.

    broken_line: the first record that is not, from 1 for the oldest that is kept, 0 for none; one more than there are
        when records were cut off the end.
    reason: empty, ``invalid_json``, ``prev_hash_mismatch``, ``hash_mismatch`` or ``signature_mismatch``.
    legacy_rows: records without a hash. tail_hash: of the last record that was checked.
    """

    ok: bool
    total_rows: int
    checked_rows: int
    legacy_rows: int
    broken_line: int
    reason: str
    tail_hash: str


class SiemExportOutcome(View, frozen=True, kw_only=True):
    """How many audit records were written to ``output_path``."""

    namespace: str
    output_path: str
    exported: int


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


class WorkerOutcome(View, frozen=True, kw_only=True):
    """One poll of a worker. ``processed``: a step was taken from the queue, whatever became of it."""

    processed: bool
    task_id: str | None
    msg_id: str | None
    message: str


class MaintenanceOutcome(View, frozen=True, kw_only=True):
    """What one maintenance tick changed."""

    node_id: str
    suspected_nodes_marked: int = 0
    dead_nodes_marked: int = 0
    lease_heartbeats: int = 0
    monotonic_reclaimed: int = 0
    monotonic_retry_scheduled: int = 0
    monotonic_dead_lettered: int = 0
    dead_owner_reclaimed: int = 0
    dead_owner_retry_scheduled: int = 0
    dead_owner_dead_lettered: int = 0
    wall_reclaimed: int = 0
    wall_retry_scheduled: int = 0
    wall_dead_lettered: int = 0
    retry_messages_dispatched: int = 0
    dead_nodes_pruned: int = 0
    lease_report_generated: bool = False


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


class OwnershipEvent(View, frozen=True, kw_only=True):
    """Something that happened to the ownership of steps.

    source: ``lease_conflicts`` (action is the type of event, node_id who was refused) or ``audit`` (node_id the dead
        nodes, joined by commas, or the winner).
    """

    source: str
    action: str
    node_id: str
    task_id: str | None
    step_id: str | None
    result: str
    occurred_at_ms: int
    details: dict[str, Any]


class LeaseReportOutcome(View, frozen=True, kw_only=True):
    """A report of lease conflicts that was written."""

    generated: bool
    path: str
    rows: int


class StatsOutcome(View, frozen=True, kw_only=True):
    """Counts and ages of one namespace. Mappings go from a state to its number of rows; empty states are absent.

    The two fields ending in ``1h`` carry their JSON name because the camel rule would print ``1H``.
    counts_age_ms: how old the numbers of tasks, steps and messages are; 0 but for very many that are open or did not
    succeed.
    """

    task_status: dict[str, int]
    step_status: dict[str, int]
    message_state: dict[str, int]
    inbox_high: int = 0
    inbox_normal: int = 0
    inbox_low: int = 0
    processing_meta_files: int = 0
    dead_meta_files: int = 0
    retry_meta_files: int = 0
    queue_lag_ms: int = 0
    step_latency_p95_ms: int = 0
    step_latency_p99_ms: int = 0
    dead_letter_growth_1h: int = msgspec.field(default=0, name="deadLetterGrowth1h")
    lease_conflict_total: int = 0
    lease_conflict_1h: int = msgspec.field(default=0, name="leaseConflict1h")
    lease_conflict_by_type: dict[str, int]
    anti_entropy_merge_total: int = 0
    web_write_get_compat_total: int = 0
    web_write_rate_limited_total: int = 0
    dead_owner_reclaimed_total: int = 0
    membership_recovery_suppressed_total: int = 0
    mesh_nodes_pruned_total: int = 0
    worker_paused_total: int = 0
    replication_import_total: int = 0
    replication_tie_resolved_total: int = 0
    replication_tie_kept_local_total: int = 0
    replication_last_import_lag_ms: int = 0
    gossip_signing_enabled: int = 0
    low_starvation_count: int = 0
    cluster_epoch: int = 1
    mesh_total_nodes: int = 0
    mesh_alive_nodes: int = 0
    mesh_suspect_nodes: int = 0
    mesh_dead_nodes: int = 0
    mesh_running_by_alive_owners: int = 0
    mesh_running_by_suspect_owners: int = 0
    mesh_running_by_dead_owners: int = 0
    mesh_running_by_unknown_owners: int = 0
    mesh_oldest_dead_node_age_ms: int = 0
    gossip_convergence_seconds: int = 0
    disk_free_bytes: int = -1
    min_free_disk_bytes: int = 0
    disk_pressure: int = 0
    replication_sync_total: int = 0
    slo_alert_fire_total: int = 0
    submit_rejected_total: int = 0
    counts_age_ms: int = 0
    namespace: str = "default"


class LimitView(View, frozen=True, kw_only=True):
    """One limit. rate: starts and time, such as ``100/m``; burst: starts at once after a pause; None is no limit.

    running, room: steps that count against it now, and how many more may start; None for the limit of each key.
    """

    scope: str
    name: str
    max_concurrency: int | None
    rate: str | None
    burst: int | None
    running: int | None
    room: int | None


class LimitOutcome(View, frozen=True, kw_only=True):
    """The limit that holds after a change. message: ``set``, ``removed`` or ``not_found``."""

    changed: bool
    scope: str
    name: str
    max_concurrency: int | None
    rate: str | None
    burst: int | None
    message: str


class BudgetView(View, frozen=True, kw_only=True):
    """One budget. scope: ``agent``, ``key`` or ``task``; kind: ``wall_seconds``, ``cpu_seconds`` or ``units:NAME``.

    Amounts are texts, exact to the millionth: amount that may be spent, spent so far, left (below 0 when more was spent
    than that). per: the period, such as ``1d``, at whose end nothing is spent again, which is at ``turns_at_ms``; None
    for a budget without.
    """

    scope: str
    name: str
    kind: str
    amount: str
    per: str | None
    spent: str
    left: str
    turns_at_ms: int | None


class BudgetOutcome(View, frozen=True, kw_only=True):
    """The budget that was set or removed. message: ``set``, ``removed`` or ``not_found``."""

    changed: bool
    scope: str
    name: str
    kind: str
    amount: str | None
    per: str | None
    message: str


class PauseView(View, frozen=True, kw_only=True):
    """One pause. scope: ``overall``, ``agent``, ``priority`` or ``node``."""

    scope: str
    name: str
    since_ms: int
    reason: str


class PauseOutcome(View, frozen=True, kw_only=True):
    """message: ``paused``, ``paused_before``, ``resumed`` or ``not_paused``."""

    changed: bool
    scope: str
    name: str
    message: str


class QueueStatus(View, frozen=True, kw_only=True):
    """waiting: ready steps by priority. nodes: running steps by node. drained: drained nodes that run nothing more."""

    paused: bool
    waiting: dict[str, int]
    running: int
    pauses: tuple[PauseView, ...]
    nodes: dict[str, int]
    drained: tuple[str, ...]


class HealthOutcome(View, frozen=True, kw_only=True):
    """Whether a root can be used. ``checked_at`` is an ISO instant ending in Z.

    ok, ready: every check is true, the disk is not short of room, the settings can be read, and nothing stands still.
    live: the database answers and nothing stands still; where it is false, starting the node anew may help.
    stalled_ms: for how long work was ready and slots were free while nothing moved. problems: a sentence for each thing
    that is wrong.
    inbox_files: that lie in the lanes, at most 20,000 of each. inbox_gate: the code of what keeps them there, or "".
    notes: a sentence for each thing that is worth knowing and not wrong.
    """

    ok: bool
    db_ok: bool
    inbox_dir_ok: bool
    processing_dir_ok: bool
    meta_dir_ok: bool
    payload_dir_ok: bool
    audit_dir_ok: bool
    disk_free_bytes: int
    min_free_disk_bytes: int
    disk_pressure: bool
    checked_at: str
    live: bool = True
    ready: bool = True
    stalled: bool = False
    stalled_ms: int = 0
    problems: tuple[str, ...] = ()
    inbox_files: int = 0
    inbox_gate: str = ""
    notes: tuple[str, ...] = ()


class SloAlert(View, frozen=True, kw_only=True):
    """A service level that is missed. ``burn_rate`` is observed / target."""

    metric: str
    observed: int
    target: int
    burn_rate: float
    severity: Literal["warning", "critical"]
    message: str


class SloAlertOutcome(View, frozen=True, kw_only=True):
    """What an evaluation of the service levels found, and the file it was written to."""

    namespace: str
    evaluated_at_ms: int
    alerts: tuple[SloAlert, ...]
    total_fired: int
    output_path: str


class AlertState(View, frozen=True, kw_only=True):
    """Where the rule of one alert stands. phase: ok, pending or firing."""

    rule: str
    phase: str
    severity: Literal["warning", "critical"]
    since_ms: int


class AlertsOutcome(View, frozen=True, kw_only=True):
    """Alerts of a root: how they stand, and what became of them lately, newest first, as in ``alerts/alerts.log``."""

    firing: int
    rules: tuple[AlertState, ...]
    recent: tuple[dict[str, object], ...]


class ClusterStateOutcome(View, frozen=True, kw_only=True):
    """The fencing counter of the root. version counts its changes."""

    key: str
    raw_value: str
    epoch: int
    version: int
    updated_at_ms: int


class ClusterEpochBumpOutcome(View, frozen=True, kw_only=True):
    """The fencing counter before and after it was raised."""

    previous_epoch: int
    current_epoch: int
    version: int
    updated_at_ms: int
    reason: str


class BenchmarkRunOutcome(View, frozen=True, kw_only=True):
    """One benchmark run on default settings. Latencies count from the submit, so queueing is included."""

    submitted_tasks: int
    completed_tasks: int
    pending_tasks: int
    timed_out: bool
    submit_started_at_ms: int
    submit_finished_at_ms: int
    run_started_at_ms: int
    run_finished_at_ms: int
    run_duration_ms: int
    loops: int
    throughput_tasks_per_sec: float
    latency_p50_ms: int
    latency_p95_ms: int
    latency_p99_ms: int
    status_counts: dict[str, int]
    stats: StatsOutcome


class SettingView(View, frozen=True, kw_only=True):
    """One setting as it holds in this process.

    value, default: a secret is ``***`` when it is set and empty when it is not.
    source: ``default``, ``file`` or ``environment``; variable: the one that set it.
    raised_from, raised_to: what was asked for, and the floor (a number, or the key it depends on), when it was raised.
    hot: a running node takes a changed value; otherwise at its next start.
    """

    key: str
    value: bool | int | str | list[str]
    source: Literal["default", "file", "environment"]
    raised_from: int | None
    raised_to: str | None
    default: bool | int | str | list[str]
    unit: str
    hot: bool
    variable: str | None


class SettingSetOutcome(View, frozen=True, kw_only=True):
    """What ``settings set`` did. ``value``: what holds now in this process, above its floor; a secret is ``***``.

    changed: the file was changed. overridden_by: the environment variable that beats the file, or None.
    """

    key: str
    value: bool | int | str | list[str]
    changed: bool
    source_path: str
    raised_from: int | None
    overridden_by: str | None
    hot: bool
    message: str


class SettingsReloadOutcome(View, frozen=True, kw_only=True):
    """One look at the settings. ``settings``: the members of RuntimeSettingsView, without the secret.

    message: ``reloaded``, ``unchanged_content``, ``unchanged``, ``defaults`` or ``skip_interval``.
    """

    changed: bool
    config_exists: bool
    source_path: str
    settings: dict[str, bool | int | str]
    message: Literal["reloaded", "unchanged_content", "unchanged", "defaults", "skip_interval"]
    checked_at_ms: int
    changed_fields: tuple[str, ...]


class SettingsHistoryEntry(View, frozen=True, kw_only=True):
    """One load of settings, from the audit log. ``source`` is ``defaults`` when there was no file."""

    timestamp: str
    result: str
    changed: bool
    changed_count: int
    changed_fields: tuple[str, ...]
    config_mtime_ms: int | None
    source: str | None
    config_path: str | None


class ScheduleView(View, frozen=True, kw_only=True):
    """One schedule. Ticks are instants in ms; ``passed_over`` counts how often ticks were passed over.

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
