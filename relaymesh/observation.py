"""What somebody on call asks of a root: counts, metrics, service levels, alerts, health, the cluster epoch.

Each function is one answer and the audit record about it. ``relaymesh.client`` opens the root before. The clock is read
inside the transaction, because the wait for the lock may have been long.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from relaymesh.audit import AuditTrail
from relaymesh.core.slo import Levels, misses, objectives
from relaymesh.errors import RootError
from relaymesh.node_view import (
    AlertsOutcome,
    AlertState,
    ClusterEpochBumpOutcome,
    ClusterStateOutcome,
    HealthOutcome,
    SloAlert,
    SloAlertOutcome,
    StatsOutcome,
)
from relaymesh.store import admin
from relaymesh.store.root import signs_gossip

if TYPE_CHECKING:
    from relaymesh.settings import Settings
    from relaymesh.store.database import Database
    from relaymesh.store.store import Store

__all__ = [
    "ReportFileError",
    "alerts",
    "bump_epoch",
    "cluster_state",
    "health",
    "levels_of",
    "metrics",
    "read_stats",
    "render_metrics",
    "slo_evaluate",
    "stats",
    "targets_of",
]

ACTOR = "cli"


class ReportFileError(RootError):
    """A file that was asked for cannot be written."""

    code = "report_unwritable"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"{self.path} cannot be written ({self.cause}): choose another --out"


# -- look ------------------------------------------------------------------------------------------------------------


def read_stats(store: Database, settings: Settings, *, now_ms: Callable[[], int]) -> StatsOutcome:
    """Return counts and ages of the root, all of one moment; says nothing to the audit log."""
    with store.snapshot():
        return _counts(store, settings, now_ms())


def _counts(store: Database, settings: Settings, now_ms: int) -> StatsOutcome:
    from relaymesh.store.stats import stats as counts_and_ages  # a probe of health need not load it

    return counts_and_ages(
        store.conn,
        store.root,
        namespace=store.namespace,
        now_ms=now_ms,
        min_free_disk_bytes=settings.min_free_disk_bytes,
        gossip_signing=signs_gossip(store.root, settings.gossip_shared_secret),
    )


def stats(store: Database, settings: Settings, *, now_ms: Callable[[], int]) -> StatsOutcome:
    """Return counts and ages of the root, all of one moment."""
    return read_stats(store, settings, now_ms=now_ms)


def render_metrics(store: Database, settings: Settings, *, now_ms: Callable[[], int]) -> str:
    """Return the exposition; says nothing to the audit log, which would grow with every scrape."""
    from relaymesh.metric.collect import metrics_text

    with store.snapshot():
        at_ms = now_ms()
        return metrics_text(store.conn, store.root, _counts(store, settings, at_ms), now_ms=at_ms)


def metrics(store: Database, settings: Settings, *, now_ms: Callable[[], int]) -> str:
    """Return the exposition."""
    text = render_metrics(store, settings, now_ms=now_ms)
    AuditTrail(store.root, store.namespace).record(
        "runtime.metrics",
        actor=ACTOR,
        resource="runtime/metrics",
        result="ok",
        details={"bytes": len(text.encode())},
    )
    return text


def alerts(store: Database, *, limit: int) -> AlertsOutcome:
    """Return how the rules stand, and at most ``limit`` of the last changes."""
    from relaymesh.core.alert import OK, Phase
    from relaymesh.core.alert_rule import RULES
    from relaymesh.store.alert import load_alerts, recent_changes

    with store.reading():
        states = load_alerts(store.conn).states
    rules = [(rule.name, states.get(rule.name, OK)) for rule in RULES]
    return AlertsOutcome(
        firing=sum(state.phase is Phase.FIRING for _, state in rules),
        rules=tuple(
            AlertState(rule=name, phase=state.phase.value, severity=state.severity, since_ms=state.since_ms)
            for name, state in rules
        ),
        recent=tuple(recent_changes(store.root, limit)),
    )


def health(root: Path, *, settings: Callable[[], Settings], now_ms: int) -> HealthOutcome:
    """Return whether the root can be used; does not raise for what it is there to find.

    What somebody should know and no restart mends is a note: the root stays as well as it is.
    """
    from relaymesh.checks import file_problems, mesh_notes, notes_of, remembered_ms
    from relaymesh.store.health import check

    min_free_bytes, keep_ms, pauses, problems = 0, 0, True, []
    try:
        kept = settings()
        min_free_bytes = kept.min_free_disk_bytes
        pauses = kept.pause_worker_when_local_not_alive
        keep_ms = remembered_ms(kept, now_ms)
    except RootError as error:
        problems.append(str(error))
    problems += file_problems(root)
    found = check(root, now_ms=now_ms, min_free_disk_bytes=min_free_bytes, file_problems=problems)
    if not found.db_ok:
        return found
    notes = notes_of(root, now_ms, newer_than_ms=max(0, now_ms - keep_ms), pauses=pauses)
    return msgspec.structs.replace(
        found,
        inbox_files=notes.inbox_files,
        inbox_gate=notes.inbox_gate,
        notes=(*notes.sentences, *mesh_notes(root / "run", now_ms=now_ms)),
    )


# -- service levels --------------------------------------------------------------------------------------------------


def levels_of(found: StatsOutcome) -> Levels:
    """Return what is observed of the service levels."""
    return Levels(
        queue_lag_ms=found.queue_lag_ms,
        step_p95_ms=found.step_latency_p95_ms,
        step_p99_ms=found.step_latency_p99_ms,
        dead_growth_1h=found.dead_letter_growth_1h,
        replication_lag_ms=found.replication_last_import_lag_ms,
    )


def targets_of(settings: Settings) -> Levels:
    """Return what the service levels should not exceed."""
    return Levels(
        queue_lag_ms=settings.slo_queue_lag_target_ms,
        step_p95_ms=settings.slo_step_p95_target_ms,
        step_p99_ms=settings.slo_step_p99_target_ms,
        dead_growth_1h=settings.slo_dead_letter_growth_target_1h,
        replication_lag_ms=settings.slo_replication_lag_target_ms,
    )


def slo_evaluate(store: Store, settings: Settings, out: Path, *, now_ms: Callable[[], int]) -> SloAlertOutcome:
    """Compare the service levels with their targets now, whatever was before; write the answer to ``out``.

    Raises:
        ReportFileError: ``out`` cannot be written; nothing was counted.
    """
    from relaymesh.store.counter import SLO_ALERT_FIRED
    from relaymesh.store.output_place import root_of_own_file

    if (root := root_of_own_file(out.absolute())) is not None:
        raise ReportFileError(str(out), f"it is a place of the data root {root} itself")

    evaluated_at_ms = now_ms()
    found = read_stats(store, settings, now_ms=lambda: evaluated_at_ms)
    missed = tuple(
        SloAlert(
            metric=miss.metric,
            observed=miss.observed,
            target=miss.target,
            burn_rate=miss.burn_rate,
            severity=miss.severity,
            message=f"{miss.metric} is {miss.observed}, above its target of {miss.target}",
        )
        for miss in misses(objectives(levels_of(found), targets_of(settings)))
    )
    _write_atomically(
        out,
        msgspec.json.format(
            msgspec.json.encode(
                {
                    "namespace": store.namespace,
                    "evaluated_at_ms": evaluated_at_ms,
                    "fired": len(missed),
                    "alerts": [
                        {
                            "metric": alert.metric,
                            "observed": alert.observed,
                            "target": alert.target,
                            "burn_rate": alert.burn_rate,
                            "severity": alert.severity,
                            "message": alert.message,
                        }
                        for alert in missed
                    ],
                }
            ),
            indent=2,
        )
        + b"\n",
    )
    if missed:
        with store.write():
            store.add_counter(SLO_ALERT_FIRED, len(missed))
    AuditTrail(store.root, store.namespace).record(
        "slo.evaluate",
        actor=ACTOR,
        resource="runtime/slo",
        result="alert" if missed else "ok",
        details={
            "namespace": store.namespace,
            "alerts": [alert.metric for alert in missed],
            "total_fired": len(missed),
            "output": str(out),
        },
    )
    return SloAlertOutcome(
        namespace=store.namespace,
        evaluated_at_ms=evaluated_at_ms,
        alerts=missed,
        total_fired=len(missed),
        output_path=str(out),
    )


def _write_atomically(path: Path, data: bytes) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise ReportFileError(str(path), error.strerror or type(error).__name__) from error


# -- the cluster epoch -----------------------------------------------------------------------------------------------


def cluster_state(store: Database) -> ClusterStateOutcome:
    """Return the fencing counter of the root."""
    with store.reading():
        value, version, updated_at_ms = admin.cluster_state(store.conn)
    epoch = int(value)
    AuditTrail(store.root, store.namespace).record(
        "cluster.state.get",
        actor=ACTOR,
        resource="runtime/cluster-state",
        result="ok",
        details={"key": "cluster_epoch", "epoch": epoch, "version": version},
    )
    return ClusterStateOutcome(
        key="cluster_epoch", raw_value=value, epoch=epoch, version=version, updated_at_ms=updated_at_ms
    )


def bump_epoch(store: Store, *, reason: str, actor: str, now_ms: Callable[[], int]) -> ClusterEpochBumpOutcome:
    """Raise the fencing counter: what is in flight fails its commit once."""
    with store.write():
        epoch, version, updated_at_ms = store.bump_epoch(now_ms=now_ms())
    AuditTrail(store.root, store.namespace).record(
        "cluster.epoch.bump",
        actor=actor,
        resource="runtime/cluster-state",
        result="ok",
        details={"previous_epoch": epoch - 1, "current_epoch": epoch, "version": version, "reason": reason},
    )
    return ClusterEpochBumpOutcome(
        previous_epoch=epoch - 1, current_epoch=epoch, version=version, updated_at_ms=updated_at_ms, reason=reason
    )
