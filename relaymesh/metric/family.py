"""The catalogue of metric families, in the order in which they are printed. docs/metrics.md is made from it.

The first 39 have fixed names, which operators and dashboards know; they are about the root, so they are the same in
every process and survive restarts. Those behind them follow the naming rules of Prometheus. What is labelled ``node``
counts from the start of that node's process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["FAMILIES", "FIXED", "Family", "Kind"]

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. labels: in the order in which they are printed; ``bound`` says how many values they take."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bound: str = ""


def _gauge(name: str, help_text: str, *labels: str, bound: str = "") -> Family:
    return Family(f"relaymesh_{name}", "gauge", help_text, labels, bound)


def _counter(name: str, help_text: str, *labels: str, bound: str = "") -> Family:
    return Family(f"relaymesh_{name}", "counter", help_text, labels, bound)


def _histogram(name: str, help_text: str, *labels: str, bound: str = "") -> Family:
    return Family(f"relaymesh_{name}", "histogram", help_text, labels, bound)


_STATUS = "9 status words"
_NODE = "64 nodes"
_ACTOR = "64 nodes, 32 kinds of actors"
_AGENT = "64 nodes, 100 agents and (others)"
_MESH_NODE = "64 nodes that gossip"

FIXED: Final = (
    _gauge("tasks_total", "Tasks in each status.", "status", bound=_STATUS),
    _gauge("steps_total", "Steps in each status.", "status", bound=_STATUS),
    _gauge("messages_total", "Messages in each state.", "state", bound="5 states"),
    _gauge("inbox_depth", "Messages that wait, in each lane.", "priority", bound="high, normal, low"),
    _gauge("processing_meta_files", "Messages in processing."),
    _gauge("dead_meta_files", "Messages in dead."),
    _gauge("retry_meta_files", "Messages in retry: attempts that failed and were tried again."),
    _gauge("queue_lag_ms", "Age in milliseconds of the oldest step that could run now or waits for its retry."),
    _gauge(
        "step_latency_ms",
        "Milliseconds from making to end of the latest 5,000 steps that ended by a result, at most 0.8 % too high.",
        "quantile",
        bound="0.95, 0.99",
    ),
    _gauge("dead_letter_growth_1h", "Tasks in DEAD_LETTER that changed within the last hour."),
    _counter("lease_conflict_total", "Writes about a step that were refused because they came from a former owner."),
    _gauge("lease_conflict_1h", "Lease conflicts within the last hour."),
    _counter("lease_conflict_events_total", "Lease conflicts of each type.", "event_type", bound="5 types"),
    _counter("anti_entropy_merge_total", "Member entries merged from gossip."),
    _counter("web_write_get_compat_total", "Writes by GET that the web console accepted."),
    _counter("web_write_rate_limited_total", "Writes that the web console refused because they came too fast."),
    _counter("dead_owner_reclaimed_total", "Steps taken back from owners that are dead."),
    _counter("membership_recovery_suppressed_total", "Recoveries of members that were held back by dwell times."),
    _counter("mesh_nodes_pruned_total", "Rows of dead members that were removed."),
    _counter("worker_paused_total", "Polls that were skipped because the worker's own node was not alive."),
    _counter("replication_import_total", "Replication envelopes imported."),
    _counter("replication_tie_resolved_total", "Ties of a replication import that the incoming row won."),
    _counter("replication_tie_kept_local_total", "Ties of a replication import that the local row won."),
    _gauge("replication_last_import_lag_ms", "Age in milliseconds of what the last replication import brought."),
    _counter("replication_sync_total", "Ticks of the replication controller."),
    _counter("slo_alert_fire_total", "Alerts fired, by evaluation on demand and by the rules of running nodes."),
    _counter("submit_rejected_total", "Submits that the admission gate refused."),
    _gauge("gossip_signing_enabled", "1 when gossip packets are signed, else 0."),
    _counter("low_starvation_count", "Steps of the low lane that were taken out of turn so that they do not starve."),
    _gauge("cluster_epoch", "Fencing counter of the root; raising it makes what is in flight fail its commit."),
    _gauge("mesh_nodes_total", "Members in each status.", "status", bound="alive, suspect, dead"),
    _gauge("mesh_nodes_total_all", "All members, those that have left included."),
    _gauge(
        "running_steps_by_owner_status",
        "Running steps by the status of their owner.",
        "owner_status",
        bound="alive, suspect, dead, unknown",
    ),
    _gauge("oldest_dead_node_age_ms", "Milliseconds for which the longest dead member has been dead."),
    _gauge("gossip_convergence_seconds", "Whole seconds between the newest and the oldest heartbeat of the members."),
    _gauge("disk_free_bytes", "Bytes that can still be written to the file system of the root, -1 when unknown."),
    _gauge("min_free_disk_bytes", "Bytes that should stay free (setting minFreeDiskBytes), 0 when nobody cares."),
    _gauge("disk_pressure", "1 when less is free than should be, else 0."),
    _gauge("namespace_info", "Always 1; the label names the namespace.", "namespace", bound="1"),
)

_OURS: Final = (
    _gauge("inbox_files", "Files that lie in the lanes of the inbox, at most 20,000 of each.", "priority", bound="3"),
    _gauge(
        "inbox_gate_shut",
        "1 while files wait in the inbox for this reason, else 0.",
        "reason",
        bound="disk_pressure, queue_depth_limit, running_step_limit, submit_rate_limit",
    ),
    _gauge("queue_stalled_seconds", "For how long work was ready and slots were free while nothing moved."),
    _gauge("alert_active", "1 while the alert fires, else 0.", "rule", "severity", bound="7 rules, 2 severities"),
    _gauge("counts_age_seconds", "Age of the numbers of tasks, steps and messages; 0 but for very many of them."),
    _gauge("schedules_active", "Schedules that are neither paused nor at their end."),
    _counter(
        "schedule_ticks_total",
        "Ticks of schedules by what became of them; ticks that were passed over together count once.",
        "result",
        bound="fired, missed, skipped, failed",
    ),
    _histogram("schedule_late_seconds", "How long after its tick the run of a schedule was stored."),
    _gauge("budgets", "Budgets that are set.", "scope", bound="agent, key, task"),
    _gauge("budgets_used_up", "Budgets that have nothing left now.", "scope", bound="agent, key, task"),
    _counter("budget_used_up_total", "Times that a budget was used up."),
    _counter("budget_cut_total", "Attempts that were cut, or not begun, because a budget was used up."),
    _gauge("store_database_bytes", "Size of the database file."),
    _gauge("store_wal_bytes", "Size of the file of the write-ahead log; it is made in advance and kept."),
    _gauge("payload_keys", "Payload keys that texts of the root may be encrypted with."),
    _counter("payload_resealed_total", "Texts that were brought under a new payload key."),
    _histogram("store_commit_seconds", "How long commits took, from BEGIN to COMMIT.", "node", bound=_NODE),
    _histogram("store_commit_writes", "Messages that one commit carried.", "node", bound=_NODE),
    _counter("store_commits_failed_total", "Transactions that the database refused.", "node", bound=_NODE),
    _gauge("node_slots", "Slots of the node in each pool.", "node", "pool", bound="64 nodes, 4 pools"),
    _gauge("node_report_age_seconds", "Age of the node's report, from which its metrics are.", "node", bound=_NODE),
    _gauge("gossip_bound", "1 while the node has a socket to gossip through, else 0.", "node", bound=_MESH_NODE),
    _gauge("gossip_live_members", "Other members that are not gone, as the node sees it.", "node", bound=_MESH_NODE),
    _gauge("gossip_lag_seconds", "How late the node's gossip loop last ran.", "node", bound=_MESH_NODE),
    _gauge(
        "gossip_local_health", "How little the node trusts its own judgement: 0 well to 7.", "node", bound=_MESH_NODE
    ),
    _gauge("gossip_local_alive", "1 while the node trusts itself to work, else 0.", "node", bound=_MESH_NODE),
    _counter(
        "gossip_datagrams_total", "Datagrams of gossip.", "node", "direction", bound=f"{_MESH_NODE}; sent, received"
    ),
    _counter("gossip_bytes_total", "Bytes of gossip.", "node", "direction", bound=f"{_MESH_NODE}; sent, received"),
    _counter(
        "gossip_invalid_total",
        "Datagrams that changed nothing, by the reason.",
        "node",
        "reason",
        bound=f"{_MESH_NODE}; foreign, too_long, too_many, overflowed, unknown_key, wrong_code, replayed, former,"
        " malformed",
    ),
    _counter(
        "gossip_events_total",
        "What the node's membership machine did: suspicions, verdicts, refutations and others.",
        "node",
        "event",
        bound=f"{_MESH_NODE}; bad_events, conflicts, events, events_dropped, held_back, late, merged, pruned, refused,"
        " refutations, successions, suspicions, unanswered, verdicts",
    ),
    _gauge("actor_mailbox_messages", "Messages that wait in mailboxes.", "node", "actor", bound=_ACTOR),
    _counter("actor_handled_total", "Messages taken from mailboxes.", "node", "actor", bound=_ACTOR),
    _counter("actor_failed_total", "Messages whose handling raised an error.", "node", "actor", bound=_ACTOR),
    _counter("actor_refused_total", "Messages that nobody takes.", "node", "actor", bound=_ACTOR),
    _counter(
        "actor_dropped_total", "Messages that a full or closed mailbox did not keep.", "node", "actor", bound=_ACTOR
    ),
    _counter("actor_restarts_total", "Restarts after a crash.", "node", "actor", bound=_ACTOR),
    _counter("actor_handling_seconds_total", "Time spent on messages.", "node", "actor", bound=_ACTOR),
    _gauge("actor_handling_seconds_max", "The longest time spent on one message.", "node", "actor", bound=_ACTOR),
    _counter(
        "agent_attempts_total",
        "Attempts that ended on the node, by what they came to.",
        "node",
        "agent",
        "outcome",
        bound=f"{_AGENT}; succeeded, failed, snoozed",
    ),
    _histogram("agent_run_seconds", "How long attempts ran.", "node", "agent", bound=_AGENT),
)

FAMILIES: Final = (*FIXED, *_OURS)
