"""What the commands answer that look at nodes and at a root as it runs: counts, health, alerts, epochs, rounds.

As ``relaymesh.view``, and apart from it because a command that looks at tasks need not load these.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from relaymesh.view import View

__all__ = [
    "AlertState",
    "AlertsOutcome",
    "BenchmarkRunOutcome",
    "ClusterEpochBumpOutcome",
    "ClusterStateOutcome",
    "DeadOwnerRecoveryOutcome",
    "HealthOutcome",
    "LeaseReportOutcome",
    "MaintenanceOutcome",
    "MeshNode",
    "MeshPruneOutcome",
    "MeshSummaryOutcome",
    "OwnershipEvent",
    "SloAlert",
    "SloAlertOutcome",
    "StatsOutcome",
    "WorkerOutcome",
]


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


class StatsOutcome(View, frozen=True, kw_only=True):
    """Counts and ages of one namespace. Mappings go from a state to its number of rows; empty states are absent.

    The two fields ending in ``1h`` carry their JSON name because the camel rule would print ``1H``.
    counts_age_ms: how old the numbers of tasks, steps and messages are; 0 but for very many that are open or did not
    succeed. counts_at_least: there are at least so many; nobody had counted them, and that would have taken too long.
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
    counts_at_least: bool = False
    namespace: str = "default"


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


class MeshNode(View, frozen=True, kw_only=True):
    """A member. status: ALIVE, SUSPECT or DEAD; LEFT for a node that ended in order.

    generation: of its last start, 0 for one that is known by heartbeats only. address: where it takes gossip; rtt_ms:
    the round trip to it from the node that heard it last; None while no gossip knows. age_ms: of its last heartbeat.
    note: what it is doing beside that, of a node that lives on this root: ``stopping`` (told to end, it waits for what
    runs), ``drained`` (told to take nothing new) or ``paused`` (it does not trust itself); else empty.
    """

    node_id: str
    status: str
    last_heartbeat_ms: int
    updated_at_ms: int
    generation: int = 0
    address: str | None = None
    rtt_ms: float | None = None
    age_ms: int = 0
    note: str = ""


class MeshSummaryOutcome(View, frozen=True, kw_only=True):
    """Members by status, and running steps by the status of their owner.

    total_nodes: those that have left included. running_by_unknown_owners: whose owner is no member, or has left.
    """

    total_nodes: int
    alive_nodes: int
    suspect_nodes: int
    dead_nodes: int
    running_by_alive_owners: int
    running_by_suspect_owners: int
    running_by_dead_owners: int
    running_by_unknown_owners: int
    oldest_dead_node_age_ms: int
    generated_at_ms: int


class DeadOwnerRecoveryOutcome(View, frozen=True, kw_only=True):
    """What was taken back from dead owners.

    dead_nodes: members that are DEAD, and owners of running steps whose process on this machine has ended.
    """

    dead_node_count: int
    dead_nodes: tuple[str, ...]
    reclaimed: int
    retry_scheduled: int
    dead_lettered: int


class MeshPruneOutcome(View, frozen=True, kw_only=True):
    """Members that were removed because they have been gone for long. total: of all prunes of the root."""

    older_than_ms: int
    cutoff_ms: int
    limit: int
    pruned: int
    total: int


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
