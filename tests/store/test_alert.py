"""Alerts: the state that all nodes share, and the log."""

from __future__ import annotations

from pathlib import Path

from relaymesh.core.alert import Change, Phase, State
from relaymesh.store import alert
from relaymesh.store.alert import ALERT_LOG, append_changes, encode_states, load_alerts, recent_changes, save_alerts
from relaymesh.store.counter import counters
from tests.store.bench import NOON, Bench

FIRING = {
    "queue_lag": State(phase=Phase.FIRING, since_ms=NOON, looked_at_ms=NOON, high_since_ms=5, severity="critical")
}
CHANGE = Change("queue_lag", "fired", "critical", 90, 10, NOON)


def save(bench: Bench, states: dict[str, State], over_version: int, *, fired: int = 0) -> bool:
    with bench.store.write():
        return save_alerts(
            bench.store.conn, encode_states(states), over_version=over_version, fired=fired, now_ms=bench.now_ms
        )


def test_a_state_comes_back_as_it_was_written(bench: Bench) -> None:
    assert load_alerts(bench.store.conn).version == 0

    assert save(bench, FIRING, 0)

    found = load_alerts(bench.store.conn)
    assert (found.states, found.version, found.written_at_ms) == (FIRING, 1, NOON)


def test_of_two_that_read_the_same_version_one_is_taken_and_counts(bench: Bench) -> None:
    assert save(bench, FIRING, 0, fired=1)
    assert not save(bench, {}, 0, fired=1)

    assert save(bench, {}, 1, fired=2)
    assert not save(bench, FIRING, 1, fired=1)

    assert (load_alerts(bench.store.conn).states, load_alerts(bench.store.conn).version) == ({}, 2)
    assert counters(bench.store.conn)["slo_alert_fire"] == 3


def test_a_state_that_cannot_be_read_is_written_over(bench: Bench) -> None:
    save(bench, FIRING, 0)
    bench.store.conn.execute("UPDATE cluster_state SET state_value='{\"x\":1}' WHERE state_key='alerts'")

    found = load_alerts(bench.store.conn)

    assert (found.states, found.version) == ({}, 1)
    assert save(bench, FIRING, 1)


def test_changes_are_one_line_each_and_are_read_newest_first(tmp_path: Path) -> None:
    append_changes(tmp_path, [CHANGE, CHANGE], node_id="n1", namespace="default")
    append_changes(
        tmp_path, [Change("queue_lag", "recovered", "critical", 1, 10, NOON + 1)], node_id="n1", namespace="default"
    )

    lines = (tmp_path / ALERT_LOG).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert [line["event"] for line in recent_changes(tmp_path, 2)] == ["recovered", "fired"]
    assert recent_changes(tmp_path, 1)[0] == {
        "timestamp": "2023-11-14T22:13:20.001Z",
        "namespace": "default",
        "node_id": "n1",
        "rule": "queue_lag",
        "event": "recovered",
        "severity": "critical",
        "observed": 1,
        "target": 10,
    }


def test_half_a_line_hurts_no_other(tmp_path: Path) -> None:
    append_changes(tmp_path, [CHANGE], node_id="n1", namespace="default")
    with open(tmp_path / ALERT_LOG, "ab") as file:
        file.write(b'{"rule": "que\n')

    assert [line["rule"] for line in recent_changes(tmp_path, 5)] == ["queue_lag"]
    assert recent_changes(tmp_path / "nowhere", 5) == []


def test_the_log_is_rotated_and_old_files_are_let_go(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(alert, "LOG_BYTES_MAX", 1)

    for _ in range(alert.LOG_FILES_MAX + 4):
        append_changes(tmp_path, [CHANGE], node_id="n1", namespace="default")

    kept = sorted(path.name for path in (tmp_path / "alerts").iterdir())
    assert kept == ["alerts.log", *(f"alerts.log.{number}" for number in range(1, alert.LOG_FILES_MAX + 1))]
