"""What a killed node stored and did not record is found by the next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.audit import AuditTrail
from relaymesh.client import Client
from relaymesh.store.unrecorded import unrecorded_submits
from tests.store.bench import NOON, Bench

WORKFLOW = {
    "steps": [
        {"id": "a", "agent": "echo", "input": ""},
        {"id": "b", "agent": "echo", "input": "", "dependsOn": ["a"]},
    ]
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "root")
    yield bench
    bench.close()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AuditTrail, "append", lambda *_, **__: None)


def test_tasks_without_a_row_are_told_of_and_those_with_one_are_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    trail = AuditTrail(bench.root, now_ms=lambda: NOON)
    with Client(bench.root, now_ms=lambda: NOON) as client:
        client.submit("echo", "recorded")
        client.submit_workflow(WORKFLOW)
        with monkeypatch.context() as killed:
            forget(killed)
            single = client.submit("echo", "lost")
            workflow = client.submit_workflow(WORKFLOW, idempotency_key="another")

    found = unrecorded_submits(bench.store.conn, trail, since_ms=NOON - 1_000, before_ms=NOON + 1)

    assert [(record.action, record.task_id, record.actor) for record in found] == [
        ("task.submit", single.task_id, "unknown"),
        ("workflow.submit", workflow.task_id, "unknown"),
    ]
    assert found[0].details["agent"] == "echo"
    assert found[1].details["step_count"] == 2


def test_tasks_of_another_time_are_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trail = AuditTrail(bench.root, now_ms=lambda: NOON)
    forget(monkeypatch)
    with Client(bench.root, now_ms=lambda: NOON) as client:
        client.submit("echo", "x")

    assert unrecorded_submits(bench.store.conn, trail, since_ms=NOON + 1, before_ms=NOON + 2) == []
    assert unrecorded_submits(bench.store.conn, trail, since_ms=NOON - 5, before_ms=NOON) == []
    assert len(unrecorded_submits(bench.store.conn, trail, since_ms=NOON, before_ms=NOON + 1)) == 1
