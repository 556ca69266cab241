"""docs/metrics.md, made from the catalogue: ``python -m tests.docs.metrics_page`` writes it."""

from __future__ import annotations

from relaymesh.core.alert_rule import RULES
from relaymesh.metric.family import FAMILIES, FIXED, Family
from tests.docs.page import REPO

__all__ = ["PAGE", "page"]

PAGE = REPO / "docs" / "metrics.md"

_INTRO = """# Metrics

Made from `relaymesh/metric/family.py` and `relaymesh/core/alert_rule.py` by `python -m tests.docs.metrics_page`; a
test holds it to them. `relaymesh metrics` prints the page, `relaymesh serve-metrics` serves it at
`http://127.0.0.1:9464/metrics`, in the Prometheus text format 0.0.4. Either works whether a node runs or not.

Each sample is there twice: with the labels below, and once more with `namespace` as first label. In a query name one
of the two: `relaymesh_tasks_total{namespace="default"}`. `relaymesh_namespace_info` has the namespace anyway, and is
there once.

## Of the root

The same in every process, and as right after a crash as the tables they come from. Counters lie in the database: they
survive restarts, and do not fall when rows are purged. Members, replication and the web console read 0 until there
are any. The names are fixed, also where a linter would choose others: `promtool check metrics` reads the page, and
has words for the names of this table only.
"""

_NODES = """
## Of the store and of running nodes

What is labelled `node` comes from the node's process, by way of a small file in `run/` that it writes every 5 s: it
counts from the start of that process, is up to 5 s old, and is gone when the node is. Worker actors are counted
together.
"""

_ALERTS = """
## Alerts

Each running node looks at these every 5 s. A reading that is above its target at every look for the time in the
second column fires the alert; one that is at or below 90 % of it at every look for the time in the third ends it.
From twice the target on, for as long, the alert is `critical`, else `warning`. All nodes of a root share the state,
so that one of them tells of a change: a line in `alerts/alerts.log` (JSON, rotated at 1 MiB, five old files), one in
the node's log, an audit record, and one more in `relaymesh_slo_alert_fire_total`. `relaymesh alerts` shows both.
While no node runs nobody looks, and what was seen before counts for nothing afterwards.

| Rule | Fires after | Is over after | Reading | Target |
|---|---|---|---|---|
"""

_READINGS = {
    "queue_lag": ("`relaymesh_queue_lag_ms`", "`sloQueueLagTargetMs`"),
    "step_p95": ('`relaymesh_step_latency_ms{quantile="0.95"}`', "`sloStepP95TargetMs`"),
    "step_p99": ('`relaymesh_step_latency_ms{quantile="0.99"}`', "`sloStepP99TargetMs`"),
    "dead_growth_1h": ("`relaymesh_dead_letter_growth_1h`", "`sloDeadLetterGrowthTarget1h`"),
    "replication_lag": ("`relaymesh_replication_last_import_lag_ms`", "`sloReplicationLagTargetMs`"),
    "disk_pressure": ("`minFreeDiskBytes`", "`relaymesh_disk_free_bytes`"),
    "stalled": ("`relaymesh_queue_stalled_seconds`", "10 s"),
}


def page() -> str:
    """Return the whole page."""
    fixed = "".join(f"| {number} {_row(family)}" for number, family in enumerate(FIXED, start=1))
    ours = "".join(_row(family) for family in FAMILIES[len(FIXED) :])
    rules = "".join(
        f"| `{rule.name}` | {rule.sustain_ms // 1000} s | {rule.recover_ms // 1000} s | "
        f"{' | '.join(_READINGS[rule.name])} |\n"
        for rule in RULES
    )
    return (
        f"{_INTRO}\n| # | Family | Type | Labels | What it says |\n|---|---|---|---|---|\n{fixed}"
        f"{_NODES}\n| Family | Type | Labels | What it says |\n|---|---|---|---|\n{ours}"
        f"{_ALERTS}{rules}"
    )


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    bound = f" ({family.bound})" if family.bound else ""
    return f"| `{family.name}` | {family.kind} | {labels}{bound} | {family.help} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
