"""The commands of somebody on call, and what health exits with."""

from __future__ import annotations

import pytest

from relaymesh.node_view import (
    AlertsOutcome,
    AlertState,
    ClusterEpochBumpOutcome,
    ClusterStateOutcome,
    HealthOutcome,
    SloAlert,
    SloAlertOutcome,
)

ALERT = SloAlert(
    metric="queue_lag", observed=9, target=3, burn_rate=3.0, severity="critical", message="queue_lag is 9, above 3"
)


def slo(*alerts: SloAlert) -> SloAlertOutcome:
    return SloAlertOutcome(
        namespace="default", evaluated_at_ms=5, alerts=alerts, total_fired=len(alerts), output_path="/x.json"
    )


def health(*, live: bool, ready: bool) -> HealthOutcome:
    return HealthOutcome(
        ok=ready,
        db_ok=True,
        inbox_dir_ok=True,
        processing_dir_ok=True,
        meta_dir_ok=True,
        payload_dir_ok=True,
        audit_dir_ok=True,
        disk_free_bytes=5,
        min_free_disk_bytes=0,
        disk_pressure=False,
        checked_at="2030-01-01T00:00:00Z",
        live=live,
        ready=ready,
    )


def test_metrics_are_printed_as_they_are(terminal) -> None:
    terminal.answers(metrics="# HELP größe\nx 1\n")

    assert terminal.run("--output", "table", "metrics").out == "# HELP größe\nx 1\n"


def test_service_levels_that_are_kept_exit_with_0_and_missed_ones_with_2(terminal) -> None:
    terminal.answers(slo_evaluate=lambda out: slo() if out is None else slo(ALERT))

    kept = terminal.run("slo-evaluate")
    missed = terminal.run("slo-evaluate", "--out", "x.json")

    assert (kept.status, missed.status) == (0, 2)
    assert list(missed.document) == ["namespace", "evaluatedAtMs", "alerts", "totalFired", "outputPath"]
    assert list(missed.document["alerts"][0]) == ["metric", "observed", "target", "burnRate", "severity", "message"]


def test_the_cluster_state_has_the_fields_of_the_reference(terminal) -> None:
    terminal.answers(
        cluster_state=ClusterStateOutcome(key="cluster_epoch", raw_value="2", epoch=2, version=2, updated_at_ms=7)
    )

    document = terminal.run("cluster-state").document

    assert document == {"key": "cluster_epoch", "rawValue": "2", "epoch": 2, "version": 2, "updatedAtMs": 7}


def test_raising_the_epoch_takes_a_reason_and_an_actor_and_has_their_defaults(terminal) -> None:
    bumped = ClusterEpochBumpOutcome(previous_epoch=1, current_epoch=2, version=2, updated_at_ms=7, reason="r")
    terminal.answers(cluster_epoch_bump=bumped)

    ended = terminal.run("cluster-epoch-bump")

    assert list(ended.document) == ["previousEpoch", "currentEpoch", "version", "updatedAtMs", "reason"]
    assert terminal.asked("cluster_epoch_bump") == ((), {"reason": "manual", "actor": "cli"})


def test_alerts_are_their_rules_and_the_last_changes(terminal) -> None:
    rule = AlertState(rule="queue_lag", phase="firing", severity="warning", since_ms=5)
    terminal.answers(alerts=AlertsOutcome(firing=1, rules=(rule,), recent=({"event": "fired"},)))

    document = terminal.run("alerts", "--limit", "3").document

    assert (document["firing"], document["rules"][0]["phase"], document["recent"]) == (
        1,
        "firing",
        [{"event": "fired"}],
    )
    assert terminal.asked("alerts") == ((3,), {})


def test_a_terminal_shows_what_is_not_well_and_the_changes_on_lines_of_their_own(terminal) -> None:
    ok = AlertState(rule="stalled", phase="ok", severity="warning", since_ms=0)
    firing = AlertState(rule="queue_lag", phase="firing", severity="critical", since_ms=5)
    change = {
        "timestamp": "T",
        "rule": "queue_lag",
        "event": "fired",
        "severity": "critical",
        "observed": 9,
        "target": 3,
    }
    terminal.answers(alerts=AlertsOutcome(firing=1, rules=(ok, firing), recent=(change,)), slo_evaluate=slo(ALERT))

    shown = terminal.run("--output", "table", "alerts").out
    missed = terminal.run("--output", "table", "slo-evaluate").out

    assert "firing" in shown and "T queue_lag fired critical" in shown and ": 9, target 3" in shown
    assert "stalled" not in shown and "AlertState" not in shown
    assert "queue_lag" in missed and "SloAlert" not in missed


@pytest.mark.parametrize(
    ("live", "ready", "words", "status"),
    [
        (True, True, [], 0),
        (True, False, [], 1),
        (True, False, ["--check", "live"], 0),
        (True, False, ["--check=ready"], 1),
        (False, False, ["--check", "live"], 1),
    ],
)
def test_health_exits_for_what_was_asked(terminal, live: bool, ready: bool, words: list[str], status: int) -> None:
    terminal.answers(health=health(live=live, ready=ready))

    assert terminal.run("health", *words).status == status


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/live", "is answered as a probe"),
        ("/health", "is answered as a probe"),
        ("/a b", "is no plain path"),
        ("/a?b", "is no plain path"),
        ("/ü", "is no plain path"),
    ],
)
def test_a_path_at_which_the_page_could_never_be_read_is_a_usage_error(terminal, path: str, said: str) -> None:
    ended = terminal.run("serve-metrics", "--path", path)

    assert ended.status == 2
    assert said in ended.err


def test_a_path_without_a_slash_is_a_usage_error(terminal) -> None:
    ended = terminal.run("serve-metrics", "--path", "metrics")

    assert (ended.status, ended.out) == (2, "")
    assert "does not begin with a slash" in ended.err


@pytest.mark.parametrize("bind", ["0.0.0.0", "", "192.0.2.7"])
def test_what_other_machines_reach_needs_principals_or_a_clear_word(terminal, bind: str) -> None:
    ended = terminal.run("serve-metrics", "--bind", bind)

    assert (ended.status, ended.out) == (2, "")
    assert "--auth-file FILE" in ended.err
    assert "--allow-anonymous" in ended.err
