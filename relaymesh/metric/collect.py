"""Where the values of the families come from: the counts of the root, and the reports of its running nodes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from relaymesh.core.alert import Phase
from relaymesh.core.status import StepStatus, TaskStatus
from relaymesh.inbox_gate import GATE_CODES, files_waiting, why_shut
from relaymesh.metric.family import FAMILIES
from relaymesh.metric.text import Sample, exposition
from relaymesh.node_view import StatsOutcome
from relaymesh.store.alert import load_alerts
from relaymesh.store.budget_rows import count_budgets
from relaymesh.store.counter import BUDGET_CUT, BUDGET_USED_UP, PAYLOAD_RESEALED, counters
from relaymesh.store.log_file import log_bytes
from relaymesh.store.node_report import read_reports
from relaymesh.store.progress import stalled_ms
from relaymesh.store.root import DATABASE
from relaymesh.store.schedule_count import LATE_BOUNDS_S, active_schedules, late_counts, tick_counts
from relaymesh.store.seal import used_keys
from relaymesh.wire.node_report import OTHERS, Distribution, MeshReport, NodeReport

__all__ = ["metrics_text", "of_nodes", "of_root"]

Samples = dict[str, list[Sample]]

# The label of each is its name in the field, lower case.
_LANES = ("high", "normal", "low")
_MEMBERS = ("alive", "suspect", "dead")
_OWNERS = (*_MEMBERS, "unknown")
_MESSAGES = ("QUEUED", "PROCESSING", "DONE", "FAILED", "DEAD")
_CONFLICTS = (
    "claim_conflict",
    "success_commit_conflict",
    "failure_commit_conflict",
    "reclaim_conflict",
    "dead_owner_reclaim_conflict",
)
_PLAIN = (
    "processing_meta_files",
    "dead_meta_files",
    "retry_meta_files",
    "queue_lag_ms",
    "dead_letter_growth_1h",
    "lease_conflict_total",
    "lease_conflict_1h",
    "anti_entropy_merge_total",
    "web_write_get_compat_total",
    "web_write_rate_limited_total",
    "dead_owner_reclaimed_total",
    "membership_recovery_suppressed_total",
    "mesh_nodes_pruned_total",
    "worker_paused_total",
    "replication_import_total",
    "replication_tie_resolved_total",
    "replication_tie_kept_local_total",
    "replication_last_import_lag_ms",
    "replication_sync_total",
    "slo_alert_fire_total",
    "submit_rejected_total",
    "gossip_signing_enabled",
    "low_starvation_count",
    "cluster_epoch",
    "gossip_convergence_seconds",
    "disk_free_bytes",
    "min_free_disk_bytes",
    "disk_pressure",
)
"""Families that have the name of the field that they show."""


def metrics_text(conn: sqlite3.Connection, root: Path, stats: StatsOutcome, *, now_ms: int) -> str:
    """Return the exposition of one scoped root. ``stats`` is of the same moment."""
    samples = of_root(stats)
    samples["relaymesh_queue_stalled_seconds"] = [Sample((), stalled_ms(conn, root / "run", now_ms=now_ms) / 1000)]
    samples["relaymesh_counts_age_seconds"] = [Sample((), stats.counts_age_ms / 1000)]
    if stats.counts_at_least:  # half a count would be taken for a whole one; a running node brings one soon
        samples |= {f"relaymesh_{what}_total": [] for what in ("tasks", "steps", "messages")}
    samples["relaymesh_alert_active"] = _alerts(conn)
    samples["relaymesh_schedules_active"] = [Sample((), active_schedules(conn))]
    samples["relaymesh_schedule_ticks_total"] = [Sample((word,), n) for word, n in tick_counts(conn).items()]
    counts, late_s = late_counts(conn)
    late = Distribution(bounds=LATE_BOUNDS_S, counts=counts, total=late_s)
    samples["relaymesh_schedule_late_seconds"] = [Sample((), late)]
    samples |= of_budgets(conn, now_ms=now_ms)
    samples["relaymesh_payload_keys"] = [Sample((), used_keys(conn))]
    samples["relaymesh_payload_resealed_total"] = [Sample((), counters(conn).get(PAYLOAD_RESEALED, 0))]
    samples["relaymesh_store_database_bytes"] = [Sample((), _size(root / DATABASE))]
    samples["relaymesh_store_wal_bytes"] = [Sample((), log_bytes(root / DATABASE))]
    shut = why_shut(conn, root, now_ms=now_ms)
    samples["relaymesh_inbox_files"] = [Sample((lane,), count) for lane, count in files_waiting(root).items()]
    samples["relaymesh_inbox_gate_shut"] = [
        Sample((code,), int(shut is not None and shut.code == code)) for code in GATE_CODES
    ]
    samples |= of_nodes(read_reports(root / "run", now_ms=now_ms), now_ms=now_ms)
    return exposition(samples, FAMILIES, namespace=stats.namespace)


def of_root(stats: StatsOutcome) -> Samples:
    """Return the samples of the fixed families. A status without a row is 0, so that a graph has no gaps."""
    found: Samples = {f"relaymesh_{field}": [Sample((), int(getattr(stats, field)))] for field in _PLAIN}
    found["relaymesh_tasks_total"] = _by_word(stats.task_status, [str(word) for word in TaskStatus])
    found["relaymesh_steps_total"] = _by_word(stats.step_status, [str(word) for word in StepStatus])
    found["relaymesh_messages_total"] = _by_word(stats.message_state, _MESSAGES)
    found["relaymesh_inbox_depth"] = [Sample((lane,), int(getattr(stats, f"inbox_{lane}"))) for lane in _LANES]
    found["relaymesh_step_latency_ms"] = [
        Sample(("0.95",), stats.step_latency_p95_ms),
        Sample(("0.99",), stats.step_latency_p99_ms),
    ]
    found["relaymesh_lease_conflict_events_total"] = _by_word(stats.lease_conflict_by_type, _CONFLICTS)
    found["relaymesh_mesh_nodes_total"] = [
        Sample((word,), int(getattr(stats, f"mesh_{word}_nodes"))) for word in _MEMBERS
    ]
    found["relaymesh_mesh_nodes_total_all"] = [Sample((), stats.mesh_total_nodes)]
    found["relaymesh_running_steps_by_owner_status"] = [
        Sample((word,), int(getattr(stats, f"mesh_running_by_{word}_owners"))) for word in _OWNERS
    ]
    found["relaymesh_oldest_dead_node_age_ms"] = [Sample((), stats.mesh_oldest_dead_node_age_ms)]
    found["relaymesh_namespace_info"] = [Sample((stats.namespace,), 1)]
    return found


def of_budgets(conn: sqlite3.Connection, *, now_ms: int) -> Samples:
    """Return how many budgets there are, how many are used up, and how often that came to something."""
    found = count_budgets(conn, now_ms=now_ms)
    counted = counters(conn)
    return {
        "relaymesh_budgets": [Sample((scope,), there) for scope, (there, _) in found.items()],
        "relaymesh_budgets_used_up": [Sample((scope,), used_up) for scope, (_, used_up) in found.items()],
        "relaymesh_budget_used_up_total": [Sample((), counted.get(BUDGET_USED_UP, 0))],
        "relaymesh_budget_cut_total": [Sample((), counted.get(BUDGET_CUT, 0))],
    }


def of_nodes(reports: Sequence[NodeReport], *, now_ms: int) -> Samples:
    """Return the samples that come from the processes of nodes."""
    found: Samples = {}

    def add(name: str, labels: tuple[str, ...], value: object) -> None:
        found.setdefault(f"relaymesh_{name}", []).append(Sample(labels, value))  # type: ignore[arg-type]

    for report in reports:
        node = report.node_id
        add("store_commit_seconds", (node,), report.commit_seconds)
        add("store_commit_writes", (node,), report.commit_writes)
        add("store_commits_failed_total", (node,), report.commits_failed)
        add("node_report_age_seconds", (node,), max(0, now_ms - report.written_at_ms) / 1000)
        if report.mesh is not None:
            _of_mesh(add, node, report.mesh)
        for pool, slots in sorted(report.slots.items()):
            add("node_slots", (node, pool), slots)
        for actor in report.actors:
            add("actor_mailbox_messages", (node, actor.name), actor.waiting)
            add("actor_handled_total", (node, actor.name), actor.handled)
            add("actor_failed_total", (node, actor.name), actor.failed)
            add("actor_refused_total", (node, actor.name), actor.refused)
            add("actor_dropped_total", (node, actor.name), actor.dropped)
            add("actor_restarts_total", (node, actor.name), actor.restarts)
            add("actor_handling_seconds_total", (node, actor.name), actor.handling_s)
            add("actor_handling_seconds_max", (node, actor.name), actor.handling_s_max)
        for agent in report.agents:
            add("agent_attempts_total", (node, agent.agent_id, "succeeded"), agent.succeeded)
            add("agent_attempts_total", (node, agent.agent_id, "failed"), agent.failed)
            add("agent_attempts_total", (node, agent.agent_id, "snoozed"), agent.snoozed)
            add("agent_run_seconds", (node, agent.agent_id), agent.seconds)
    return found


def _of_mesh(add: Callable[[str, tuple[str, ...], object], None], node: str, mesh: MeshReport) -> None:
    add("gossip_bound", (node,), int(bool(mesh.address)))
    add("gossip_live_members", (node,), mesh.live)
    add("gossip_lag_seconds", (node,), mesh.lag_s)
    add("gossip_local_health", (node,), mesh.health)
    add("gossip_local_alive", (node,), int(not mesh.pause))
    for word, datagrams, size in (
        ("sent", mesh.sent, mesh.sent_bytes),
        ("received", mesh.received, mesh.received_bytes),
    ):
        add("gossip_datagrams_total", (node, word), datagrams)
        add("gossip_bytes_total", (node, word), size)
    for reason, count in sorted(mesh.refused.items()):
        add("gossip_invalid_total", (node, reason), count)
    for event, count in sorted(mesh.events.items()):
        add("gossip_events_total", (node, event), count)


def _alerts(conn: sqlite3.Connection) -> list[Sample]:
    alerts = load_alerts(conn)
    return [
        Sample((rule, severity), int(state.phase is Phase.FIRING and state.severity == severity))
        for rule, state in sorted(alerts.states.items())
        for severity in ("warning", "critical")
    ]


def _by_word(counts: dict[str, int], words: Iterable[str]) -> list[Sample]:
    """Return a sample for each word; words that somebody wrote by hand are one together, so that there is a bound."""
    known = list(words)
    samples = [Sample((word,), counts.get(word, 0)) for word in known]
    others = sum(count for word, count in counts.items() if word not in known)
    return [*samples, Sample((OTHERS,), others)] if others else samples


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
