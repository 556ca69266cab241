from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from actors.address import Address
from actors.audit import AuditDesk
from actors.audit_rows import AuditRowsOf
from relaymesh.audit import AuditTrail
from relaymesh.audit.span_file import FILES_MAX, SpanFile, timed
from relaymesh.audit.trail import SPAN_VARIABLE
from relaymesh.client import Client
from relaymesh.store.root import create_layout
from relaymesh.wire.audit import Record, body_of
from relaymesh.wire.store import FinishedStep
from tests.store.bench import NOON, Bench, report_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_layout(tmp_path)
    return tmp_path


def spans(root: Path) -> list[dict[str, Any]]:
    lines = (root / "trace" / "otel-spans.jsonl").read_text().splitlines()
    return [json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in lines]


def test_nothing_is_written_unless_it_is_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SPAN_VARIABLE, raising=False)

    AuditTrail(root).record("a", actor="cli", resource="r", result="ok")

    assert not (root / "trace" / "otel-spans.jsonl").exists()


def test_each_row_is_a_span_in_the_shape_of_otlp(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPAN_VARIABLE, "1")
    trail = AuditTrail(root, "blue", now_ms=lambda: 1_700_000_000_123)
    trail.record(
        "step.execute",
        actor="w",
        resource="step/s",
        result="dead_lettered",
        task_id="t",
        trace_id="ab" * 16,
        span_id="cd" * 8,
    )
    trail.record("a", actor="cli", resource="r", result="ok")

    failed, plain = spans(root)

    assert (failed["traceId"], failed["spanId"], failed["name"], failed["kind"]) == (
        "ab" * 16,
        "cd" * 8,
        "step.execute",
        1,
    )
    assert failed["startTimeUnixNano"] == "1700000000123000000"
    assert failed["status"] == {"code": 2}
    assert {one["key"]: one["value"]["stringValue"] for one in failed["attributes"]} == {
        "relaymesh.actor": "w",
        "relaymesh.resource": "step/s",
        "relaymesh.result": "dead_lettered",
        "relaymesh.task_id": "t",
    }
    assert (len(plain["traceId"]), len(plain["spanId"]), plain["status"]) == (32, 16, {})
    line = json.loads((root / "trace" / "otel-spans.jsonl").read_text().splitlines()[0])["resourceSpans"][0]
    assert [one["value"]["stringValue"] for one in line["resource"]["attributes"]] == ["relaymesh", "blue", "blue"]
    assert line["scopeSpans"][0]["scope"] == {"name": "relaymesh-audit", "version": "v1"}


def test_the_span_of_an_attempt_lasts_as_long_as_the_attempt(root: Path) -> None:
    body = body_of(Record("step.execute", "w", "step/s", "step_completed"), namespace="default", now_ms=5_000)

    SpanFile(root).append([timed(body, 1_000, 4_250), timed(body, 0, 0), timed(body, 9, 8)])

    lasted, unknown, wrong = ((one["startTimeUnixNano"], one["endTimeUnixNano"]) for one in spans(root))
    assert lasted == ("1000000000", "4250000000")
    assert unknown == wrong == ("5000000000", "5000000000")


def test_the_attempts_of_a_node_have_their_own_times(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPAN_VARIABLE, "1")
    desk, trail = AuditDesk(Address("audit")), AuditTrail(root)
    rows = AuditRowsOf(desk, "default", "n1", "w")
    bench = Bench(root / "other")
    bench.one("echo")
    (lease,) = bench.claim()
    report = report_of(lease, started_at_ms=NOON - 700, finished_at_ms=NOON - 40)

    rows.begin(NOON)
    rows.finished([FinishedStep(lease, report, "w")], bench.finish((lease, report)))
    rows.hand_in()
    trail.append(desk.take()[0])
    bench.close()

    (span,) = spans(root)
    assert (span["name"], span["startTimeUnixNano"]) == ("step.execute", f"{NOON - 700}000000")
    assert span["endTimeUnixNano"] == f"{NOON - 40}000000"
    assert trail.place.log.read_text().count("step.execute") == 1


def test_processes_that_write_at_once_leave_whole_lines_one_for_each_row(root: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from relaymesh.audit import AuditTrail\n"
        "trail = AuditTrail(Path(sys.argv[1]))\n"
        "for n in range(30): trail.record('a', actor='p', resource='r', result='ok')\n"
    )
    env = {**os.environ, SPAN_VARIABLE: "true"}
    others = [subprocess.Popen([sys.executable, "-c", program, str(root)], env=env) for _ in range(2)]

    assert [other.wait(60) for other in others] == [0, 0]
    assert len(spans(root)) == 60


def test_files_are_rotated_and_bounded_in_number(root: Path) -> None:
    file = SpanFile(root, file_bytes_max=2_000)
    for number in range(60):
        file.append([body_of(Record("a", "cli", f"r{number}", "ok"), namespace="default", now_ms=number)])

    files = sorted((root / "trace").iterdir())
    assert len(files) == FILES_MAX
    assert all(path.stat().st_size <= 2_000 for path in files)
    assert spans(root)[-1]["attributes"][1]["value"]["stringValue"] == "r59"
    first = (root / "trace" / "otel-spans.1.jsonl").read_text().splitlines()[-1]
    assert f"r{60 - len(spans(root)) - 1}" in first


def test_a_folder_in_the_way_costs_the_spans_and_not_the_rows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPAN_VARIABLE, "1")
    (root / "trace" / "otel-spans.jsonl").mkdir(parents=True)

    with Client(root) as client:
        client.audit.record("a", actor="cli", resource="r", result="ok")

        assert len(client.audit_query(action="a")) == 1
