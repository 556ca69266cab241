"""How a root does: why steps wait, counts, metrics, service levels, alerts, health, epochs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from relaymesh.argument import check_name, check_note, check_task_id, check_whole_number
from relaymesh.door.base import Door
from relaymesh.errors import RootError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relaymesh.node_view import (
        AlertsOutcome,
        ClusterEpochBumpOutcome,
        ClusterStateOutcome,
        HealthOutcome,
        LeaseReportOutcome,
        OwnershipEvent,
        SloAlertOutcome,
        StatsOutcome,
    )
    from relaymesh.status_view import StatusChecks, StatusOutcome
    from relaymesh.view import Explanation, LeaseConflict

__all__ = ["Observes"]


class Observes(Door):
    """What there is to see of a root."""

    def explain(self, task_id: str) -> list[Explanation]:
        """Return, for each step that has not ended, the first reason why.

        Raises:
            TaskNotFoundError: there is none of this id.
        """
        from relaymesh.operation import explain

        check_task_id(task_id)
        return explain(self._readable(), task_id, settings=self._config, now_ms=self._now_ms)

    def stats(self) -> StatsOutcome:
        """Return counts and ages of the root."""
        from relaymesh.observation import stats

        return stats(self._readable(), self._config(), now_ms=self._now_ms)

    def status(self) -> StatusOutcome:
        """Return how the root stands now: members, lanes, slots, what runs, what is in trouble."""
        from relaymesh.standing import standing

        return standing(self._readable(), self._config(), now_ms=self._now_ms)

    def checks(self) -> StatusChecks:
        """Return what is wrong, or worth knowing, beside the queue: folders, keys, files.

        ``status`` does not look there. Only reads; does not raise for what it is there to find.
        """
        from relaymesh.checks import checks

        return checks(self.root, settings=self._config, now_ms=self._now_ms())

    def metrics(self) -> str:
        """Return the metrics of the root and its running nodes, as Prometheus text."""
        from relaymesh.observation import metrics

        return metrics(self._readable(), self._config(), now_ms=self._now_ms)

    def render_metrics(self) -> str:
        """Like ``metrics``, for a scraper: the audit log does not grow by it. From any thread, one at a time."""
        from relaymesh.observation import render_metrics
        from relaymesh.settings import load

        store = self._readable()
        try:
            self._loaded = load(self.root)  # a server runs for long, and takes what was changed
        except RootError:
            self._config()  # of before, when there is one
        return render_metrics(store, self._config(), now_ms=self._now_ms)

    def slo_evaluate(self, out: str | Path | None = None) -> SloAlertOutcome:
        """Compare the service levels with their targets, and write the answer to a file.

        out: by default ``alerts/slo-alerts-latest.json`` in the root.

        Raises:
            ReportFileError: the file cannot be written.
        """
        from relaymesh.observation import slo_evaluate

        path = Path(out) if out is not None else self.root / "alerts" / "slo-alerts-latest.json"
        return slo_evaluate(self._writable(create=False), self._config(), path, now_ms=self._now_ms)

    def alerts(self, limit: int = 20) -> AlertsOutcome:
        """Return the alerts that running nodes watch for, and at most ``limit`` of their last changes."""
        from relaymesh.observation import alerts

        check_whole_number("limit", limit)
        return alerts(self._readable(), limit=limit)

    def health(self) -> HealthOutcome:
        """Return whether the root can be used; does not raise for what it is there to find."""
        from relaymesh.observation import health

        return health(self.root, settings=self._config, now_ms=self._now_ms())

    def cluster_state(self) -> ClusterStateOutcome:
        """Return the fencing counter of the root."""
        from relaymesh.observation import cluster_state

        return cluster_state(self._readable())

    def cluster_epoch_bump(self, *, reason: str = "manual", actor: str = "cli") -> ClusterEpochBumpOutcome:
        """Raise the fencing counter: what is in flight fails its commit once, and runs again after its lease."""
        from relaymesh.observation import bump_epoch

        check_note("reason", reason)
        check_name("actor", actor)
        outcome = bump_epoch(self._writable(create=False), reason=reason, actor=actor, now_ms=self._now_ms)
        self._wake()
        return outcome

    def lease_conflicts(self, limit: int = 100, since_hours: int = 24) -> list[LeaseConflict]:
        """Return refused writes of fenced owners, newest first."""
        from relaymesh.ownership import conflicts

        return conflicts(self._readable(), limit=limit, since_hours=since_hours, now_ms=self._now_ms)

    def ownership_events(self, limit: int = 100, since_hours: int = 24) -> list[OwnershipEvent]:
        """Return refused writes, recoveries and decisions about who owns a step, newest first."""
        from relaymesh.ownership import events

        return events(self._readable(), self.audit, limit=limit, since_hours=since_hours, now_ms=self._now_ms)

    def lease_report(self, hours: int = 24, limit: int = 5000, *, out: str | Path | None = None) -> LeaseReportOutcome:
        """Write the conflicts of the last hours, and what they come to, to a file below ``reports/`` or to ``out``.

        Raises:
            OutputFileError: it cannot be written; what was there is left as it was.
        """
        from relaymesh.ownership import report

        path = None if out is None else Path(out)
        store, now_ms, actor = self._readable(), self._now_ms, self._actor
        return report(store, self.audit, hours=hours, limit=limit, out=path, actor=actor, now_ms=now_ms)

    def query(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """Return the rows of a read-only query, for reports that no method gives. Column names are the reference's."""
        from relaymesh.operation import query

        return query(self._readable(), sql, values)
