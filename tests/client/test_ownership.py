from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.client import Client
from relaymesh.errors import InputError
from relaymesh.store.export import OutputFileError
from relaymesh.store.lease_report import REPORTS_MAX, drop_reports, hourly_path
from tests.store.bench import Bench

HOUR_MS = 3_600_000


def refuse(client: Client, bench: Bench, count: int = 1) -> str:
    """Let a former owner answer, this often; return the task."""
    task_id = client.submit("echo", "1").task_id
    (lease,) = bench.claim()
    client.cancel(task_id)
    for _ in range(count):
        bench.succeed(lease)
        bench.now_ms += 10
    return task_id


def test_ownership_events_are_those_of_the_table_and_of_the_audit_log_newest_first(
    client: Client, bench: Bench
) -> None:
    task_id = refuse(client, bench)
    trail = AuditTrail(bench.root, now_ms=lambda: bench.now_ms)
    details = {"dead_nodes": ["n1", "n2"], "reclaimed": 3}
    trail.record(
        "ownership.recover", actor="runtime", resource="runtime/ownership", result="recovered", details=details
    )
    trail.record("step.execute", actor="runtime", resource="step/x", result="exception")

    newest, conflict = client.ownership_events()

    assert (newest.source, newest.action, newest.node_id, newest.result) == (
        "audit",
        "ownership.recover",
        "n1,n2",
        "recovered",
    )
    assert newest.details["reclaimed"] == 3
    assert (conflict.source, conflict.action, conflict.result) == (
        "lease_conflicts",
        "success_commit_conflict",
        "conflict",
    )
    assert conflict.task_id == task_id
    assert conflict.details["actual_lease_owner"] == ""
    assert conflict.details["actual_status"] == "CANCELLED"
    assert client.ownership_events(limit=1) == [newest]


def test_ownership_events_that_are_too_old_are_left_out(client: Client, bench: Bench) -> None:
    refuse(client, bench)
    bench.now_ms += 2 * HOUR_MS

    assert client.ownership_events(since_hours=1) == []
    assert len(client.ownership_events(since_hours=3)) == 1


def test_more_hours_than_there_are_mean_all_of_them(client: Client, bench: Bench) -> None:
    refuse(client, bench)

    assert len(client.lease_conflicts(since_hours=10**20)) == 1
    assert len(client.ownership_events(since_hours=10**20)) == 1


def test_more_rows_than_an_answer_may_hold_are_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="100,000"):
        client.ownership_events(limit=100_001)
    with pytest.raises(InputError, match="100,000"):
        client.lease_report(limit=100_001)
    with pytest.raises(InputError, match="100,000"):
        client.lease_conflicts(limit=100_001)
    with pytest.raises(InputError, match="since_hours is at least 1"):
        client.ownership_events(since_hours=0)


def test_the_report_counts_the_conflicts_beyond_one_page_of_the_table(client: Client, bench: Bench) -> None:
    refuse(client, bench, 600)

    outcome = client.lease_report()

    assert (outcome.generated, outcome.rows) == (True, 600)
    assert outcome.path == str(bench.root / "reports" / "lease-conflicts-manual.json")
    report = json.loads(Path(outcome.path).read_text())
    assert list(report) == [
        "generated_at",
        "window_hours",
        "rows",
        "by_event_type",
        "top_steps",
        "top_workers",
        "sample",
    ]
    assert (report["window_hours"], report["rows"]) == (24, 600)
    assert report["by_event_type"] == {"success_commit_conflict": 600}
    assert list(report["top_steps"].values()) == list(report["top_workers"].values()) == [600]
    ids = [row["id"] for row in report["sample"]]
    assert ids == sorted(set(ids), reverse=True)
    assert len(ids) == 600
    assert client.lease_report(limit=10).rows == 10


def test_a_report_that_cannot_be_written_changes_nothing(client: Client, bench: Bench, tmp_path: Path) -> None:
    refuse(client, bench)
    (tmp_path / "folder").mkdir()

    with pytest.raises(OutputFileError):
        client.lease_report(out=tmp_path / "folder")
    assert not (bench.root / "reports" / "lease-conflicts-manual.json").exists()


def test_maintenance_writes_one_report_an_hour(client: Client, bench: Bench) -> None:
    refuse(client, bench)

    assert client.maintenance().lease_report_generated
    assert not client.maintenance().lease_report_generated
    report = json.loads(hourly_path(bench.root, bench.now_ms).read_text())
    bench.now_ms += HOUR_MS
    assert client.maintenance().lease_report_generated

    assert report["rows"] == 1
    rows = [json.loads(row) for row in client.audit_query(action="lease.report.generate")]
    assert [row["details"]["rows"] for row in rows] == [1, 1]
    assert client.query("SELECT count(*) FROM steps", ())


def test_reports_go_with_the_conflicts_that_they_are_about_and_never_become_too_many(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    for hour in range(REPORTS_MAX + 5):
        hourly_path(tmp_path, hour * HOUR_MS).write_text("{}")
    (folder / "lease-conflicts-manual.json").write_text("{}")

    assert drop_reports(tmp_path) == 5
    assert not hourly_path(tmp_path, 4 * HOUR_MS).exists()
    assert drop_reports(tmp_path, 105 * HOUR_MS + 1) == 100
    assert hourly_path(tmp_path, 105 * HOUR_MS).exists()
    assert (folder / "lease-conflicts-manual.json").exists()
