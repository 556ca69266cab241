"""What the client records, and what it finds in the audit log."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relaymesh import Client
from relaymesh.audit import AuditTrail
from relaymesh.errors import RootError
from relaymesh.evidence import SpanOfTimeError
from relaymesh.view import TaskRequest
from tests.store.bench import NOON


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "data", actor="ann")


def rows(client: Client, **wanted: Any) -> list[dict[str, Any]]:
    return [json.loads(row) for row in client.audit_query(**wanted)]


def test_each_task_of_a_batch_has_its_row_in_one_write(client: Client) -> None:
    lines = list(client.submit_many(TaskRequest(agent="echo", input=f"{n % 3}") for n in range(4)))

    found = rows(client, action="task.submit")[::-1]

    assert [row["task_id"] for row in found] == [line.task_id for line in lines]
    assert [row["result"] for row in found] == ["submitted"] * 3 + ["deduplicated"]
    assert found[0]["actor"] == "ann"
    assert found[0]["details"]["agent"] == "echo"


def test_a_refused_submit_leaves_no_row(client: Client) -> None:
    client.init()

    with pytest.raises(Exception, match="there is no agent"):
        client.submit("nobody", "x")

    assert rows(client) == []


def test_cancel_and_replay_are_recorded_whatever_came_of_them(client: Client) -> None:
    task_id = client.submit("echo", "x").task_id
    client.cancel(task_id)
    client.cancel_soft(task_id)
    client.cancel("tsk_none")
    client.replay(task_id)
    client.replay_batch()

    soft_again, unknown = rows(client, action="task.cancel")[1], rows(client, action="task.cancel")[0]
    first = rows(client, action="task.cancel")[2]
    assert (first["result"], first["details"]) == (
        "cancelled",
        {"mode": "hard", "step_rows": 1, "message_rows": 1, "cluster_epoch": 1},
    )
    assert (soft_again["result"], unknown["result"]) == ("terminal_state:CANCELLED", "not_found")
    (replayed,) = rows(client, action="dead.replay")
    assert (replayed["result"], replayed["details"]) == ("invalid_state", {"status": "CANCELLED"})
    (batch,) = rows(client, action="dead.replay.batch")
    assert batch["details"] == {"status": "DEAD_LETTER", "limit": 100, "candidates": 0, "replayed": 0, "failed": 0}


def test_the_export_of_a_task_holds_its_rows_as_they_stand(client: Client, tmp_path: Path) -> None:
    task_id = client.submit("echo", "x").task_id
    client.submit("echo", "y")
    client.cancel(task_id)

    outcome = client.task_export(task_id, tmp_path / "out.json")

    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert outcome.audit_events == 2
    assert document["audit_events"] == client.audit_query(task=task_id)[::-1][:2]
    (row,) = rows(client, action="task.export")
    assert row["details"] == {"output": str(tmp_path / "out.json"), "audit_rows": 2}


def test_looking_at_the_log_is_recorded_after_it_was_read(client: Client, tmp_path: Path) -> None:
    client.submit("echo", "x")

    assert len(client.audit_tail(10)) == 1
    assert len(client.audit_query(action="audit.tail", from_ms=0)) == 1
    assert client.audit_verify().total_rows == 3
    assert client.audit_siem_export(tmp_path / "siem").exported == 4

    last = [json.loads(row) for row in client.audit_tail(4)]
    assert [row["action"] for row in last] == ["audit.tail", "audit.query", "audit.verify", "audit.siem.export"]
    assert last[1]["details"] == {
        "action": "audit.tail",
        "from": "1970-01-01T00:00:00.000Z",
        "to": None,
        "limit": 100,
        "returned": 1,
    }
    assert last[2]["details"] == {"checked_rows": 3, "legacy_rows": 0, "broken_line": 0, "reason": ""}


def test_an_exported_line_has_the_names_of_a_siem_and_no_null(client: Client, tmp_path: Path) -> None:
    client.submit("echo", "x")

    client.audit_siem_export(tmp_path / "siem")

    (line,) = [json.loads(line) for line in (tmp_path / "siem").read_text().splitlines()]
    assert list(line) == [
        "@timestamp",
        "event.action",
        "event.outcome",
        "event.actor",
        "trace.id",
        "span.id",
        "task.id",
        "step.id",
        "relaymesh.namespace",
        "relaymesh.principal_id",
        "relaymesh.hash",
        "relaymesh.signature",
        "relaymesh.details",
    ]
    assert (line["event.action"], line["span.id"], line["relaymesh.principal_id"]) == ("task.submit", "", "")


def test_a_span_that_ends_before_it_begins_is_an_error(client: Client) -> None:
    client.init()

    with pytest.raises(SpanOfTimeError, match="exchange --from and --to"):
        client.audit_query(from_ms=2_000, to_ms=1_000)


def test_a_root_that_is_not_there_is_not_made_by_asking(client: Client) -> None:
    for ask in (client.audit_tail, client.audit_verify, client.audit_query):
        with pytest.raises(RootError, match="there is no data root"):
            ask()

    assert not client.root.exists()


def test_each_namespace_has_its_own_log(tmp_path: Path) -> None:
    blue, green = Client(tmp_path, namespace="blue"), Client(tmp_path, namespace="green")
    blue.submit("echo", "x")
    green.init()

    assert [row["namespace"] for row in rows(blue)] == ["blue"]
    assert rows(green) == []


def test_a_masked_field_of_the_settings_is_masked_whoever_makes_the_row(tmp_path: Path) -> None:
    root, at_ms = tmp_path / "data", [NOON]
    client = Client(root, now_ms=lambda: at_ms[0])
    client.submit("echo", "1")
    client.close()
    client = Client(root, now_ms=lambda: at_ms[0])
    settings = {"auditMaskedFields": ["reason", "task-label", "mode", "tick", "bytes"]}
    (root / "relaymesh-settings.json").write_text(json.dumps(settings))
    task_id = client.submit("echo", "1").task_id

    client.cancel(task_id)  # by the client
    client.cluster_epoch_bump(reason="told nobody")  # by what the client calls, with a trail of its own
    client.metrics()
    client.schedules.create("late", at_ms=NOON + 10, agent="echo")
    at_ms[0] += 1_000
    client.maintenance()
    cli = [sys.executable, "-m", "relaymesh", "--root", str(root)]
    subprocess.run([*cli, "cluster-epoch-bump", "--reason", "told nobody"], check=True, capture_output=True)
    AuditTrail(root).record("a", actor="cli", resource="r", result="ok", details={"Task_Label": "told nobody"})

    found = rows(client)
    assert "told nobody" not in json.dumps(found)
    masked = {row["action"]: row["details"] for row in found}
    assert masked["task.cancel"]["mode"] == masked["cluster.epoch.bump"]["reason"] == "***"
    assert masked["runtime.metrics"]["bytes"] == "***"
    assert masked["schedule.fire"]["tick"] == "***"
