"""What a client is told about a root, and what the audit log says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.errors import RootError
from relaymesh.observation import ReportFileError
from tests.store.bench import Bench


def audit(client: Client) -> list[tuple[str, str, str, str]]:
    lines = (client.root / "audit" / "audit.log").read_text(encoding="utf-8").splitlines()
    return [(row["action"], row["actor"], row["resource"], row["result"]) for row in map(json.loads, lines)]


def details(client: Client) -> dict[str, object]:
    last = (client.root / "audit" / "audit.log").read_text(encoding="utf-8").splitlines()[-1]
    found: dict[str, object] = json.loads(last)["details"]
    return found


def test_each_look_leaves_its_record(client: Client) -> None:
    client.init()
    client.metrics()
    client.cluster_state()
    client.slo_evaluate()
    client.cluster_epoch_bump()

    assert audit(client) == [
        ("runtime.metrics", "cli", "runtime/metrics", "ok"),
        ("cluster.state.get", "cli", "runtime/cluster-state", "ok"),
        ("slo.evaluate", "cli", "runtime/slo", "ok"),
        ("cluster.epoch.bump", "cli", "runtime/cluster-state", "ok"),
    ]


def test_a_scrape_leaves_none(client: Client) -> None:
    client.init()

    assert client.render_metrics().startswith("# HELP relaymesh_tasks_total ")
    assert not (client.root / "audit" / "audit.log").exists()


def test_a_scrape_takes_changed_settings_and_keeps_the_old_ones_over_a_file_that_is_broken(client: Client) -> None:
    file = client.root / "relaymesh-settings.json"
    pages = []

    for text in ('{"minFreeDiskBytes": 7}', '{"minFreeDiskBytes": 8}', "{"):
        file.write_text(text)
        pages.append(client.render_metrics())

    assert ["relaymesh_min_free_disk_bytes 7" in pages[0], *("bytes 8\n" in page for page in pages[1:])] == [True] * 3


def test_health_of_a_root_that_is_not_there_makes_none(tmp_path: Path, caplog) -> None:
    with Client(tmp_path / "nowhere") as client:
        assert not client.health().ok

    assert not (tmp_path / "nowhere").exists()
    assert caplog.records == []  # nor is it tried


def test_health_tells_of_settings_that_cannot_be_read_instead_of_raising(client: Client) -> None:
    (client.root / "relaymesh-settings.json").write_text("{")

    found = client.health()

    assert (found.ok, found.live) == (False, True)
    assert "settings" in found.problems[0]


def test_a_fresh_root_has_epoch_1_and_raising_it_adds_1_to_both_numbers(client: Client, bench: Bench) -> None:
    first = client.cluster_state()
    bench.now_ms += 5
    bumped = client.cluster_epoch_bump(reason="drill", actor="kim")
    last = client.cluster_state()

    assert (first.raw_value, first.epoch, first.version) == ("1", 1, 1)
    assert (bumped.previous_epoch, bumped.current_epoch, bumped.version, bumped.reason) == (1, 2, 2, "drill")
    assert (last.epoch, last.version, last.updated_at_ms) == (2, 2, bumped.updated_at_ms)
    assert ("cluster.epoch.bump", "kim", "runtime/cluster-state", "ok") in audit(client)


def test_what_follows_in_the_transaction_that_raises_the_epoch_is_of_the_new_one(bench: Bench) -> None:
    bench.one()
    with bench.store.write():
        former = bench.store.state.read().epoch
        bench.store.bump_epoch(now_ms=bench.now_ms)
        assert bench.store.state.read().epoch == former + 1


def test_what_was_in_flight_when_the_epoch_was_raised_is_refused_once(client: Client, bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim()

    client.cluster_epoch_bump()
    late = bench.succeed(lease)

    assert late.refused == (lease.row_id,)
    assert client.lease_conflicts()[0].event_type == "success_commit_conflict"


def test_missed_service_levels_are_counted_and_written_down(client: Client, bench: Bench) -> None:
    (client.root / "relaymesh-settings.json").write_text('{"sloQueueLagTargetMs": 100}')
    bench.one()
    bench.now_ms += 500

    outcome = client.slo_evaluate()

    (alert,) = outcome.alerts
    assert (alert.metric, alert.observed, alert.target, alert.burn_rate, alert.severity) == (
        "queue_lag",
        500,
        100,
        5.0,
        "critical",
    )
    assert json.loads(Path(outcome.output_path).read_bytes()) == {
        "namespace": "default",
        "evaluated_at_ms": bench.now_ms,
        "fired": 1,
        "alerts": [
            {
                "metric": "queue_lag",
                "observed": 500,
                "target": 100,
                "burn_rate": 5.0,
                "severity": "critical",
                "message": alert.message,
            }
        ],
    }
    assert outcome.output_path == str(client.root / "alerts" / "slo-alerts-latest.json")
    assert client.stats().slo_alert_fire_total == 1
    assert "slo.evaluate" in {action for action, *_ in audit(client)}


def test_a_file_that_cannot_be_written_counts_nothing(client: Client, bench: Bench, tmp_path: Path) -> None:
    (client.root / "relaymesh-settings.json").write_text('{"sloQueueLagTargetMs": 100}')
    bench.one()
    bench.now_ms += 500

    with pytest.raises(ReportFileError, match="choose another --out") as caught:
        client.slo_evaluate(tmp_path / "nowhere" / "x.json")

    assert isinstance(caught.value, RootError)
    assert client.stats().slo_alert_fire_total == 0


def test_the_settings_show_in_the_counts(client: Client) -> None:
    (client.root / "relaymesh-settings.json").write_text(
        json.dumps({"minFreeDiskBytes": 1 << 60, "gossipSharedSecret": "not for anybody"})
    )

    shown = client.stats()

    assert (shown.min_free_disk_bytes, shown.disk_pressure, shown.gossip_signing_enabled) == (1 << 60, 1, 1)
    assert "not for anybody" not in client.metrics() + json.dumps(details(client))
