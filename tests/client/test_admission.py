"""Who meets the admission gate, what it says, and what it leaves in the audit log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh import Client
from relaymesh.admission import QueueFullError, SubmitRateError, TooManyRunningError
from relaymesh.cli import main
from relaymesh.view import TaskRequest


def set_bounds(root: Path, **values: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "relaymesh-settings.json").write_text(json.dumps(values))


def test_the_defaults_do_not_hold_a_program_back(tmp_path: Path) -> None:
    with Client(tmp_path / "root") as client:
        for number in range(300):
            client.submit("echo", str(number))
        lines = list(client.submit_many(TaskRequest(agent="echo", input=f"many {n}") for n in range(6_000)))

    assert {line.result for line in lines} == {"accepted"}


def test_a_bound_that_was_set_holds_for_programs_and_batches(tmp_path: Path) -> None:
    set_bounds(tmp_path / "root", maxIngressQueueDepth=3)
    with Client(tmp_path / "root") as client:
        client.submit("echo", "1")
        lines = list(client.submit_many(TaskRequest(agent="echo", input=f"many {n}") for n in range(4)))

        assert [line.result for line in lines] == ["accepted", "accepted", "rejected", "rejected"]
        assert {line.code for line in lines[2:]} == {"queue_depth_limit"}
        with pytest.raises(QueueFullError, match="deeper than 3 steps"):
            client.submit("echo", "one more")
        assert client.submit("echo", "1").deduplicated
        assert client.stats().submit_rejected_total == 3


def test_the_commands_go_by_the_defaults_but_a_batch_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = str(tmp_path / "root")
    with Client(root) as client:
        list(client.submit_many(TaskRequest(agent="echo", input=str(n)) for n in range(5_000)))
    (tmp_path / "one.ndjson").write_text('{"agent": "echo", "input": "from a batch"}\n')
    (tmp_path / "flow.json").write_text('{"steps": [{"id": "a", "agent": "echo", "input": "x"}]}')

    assert main(["--root", root, "submit", "--batch", "one.ndjson"]) == 0
    capsys.readouterr()
    assert main(["--root", root, "--output", "json", "submit", "--agent", "echo", "--input", "over"]) == 1
    assert json.loads(capsys.readouterr().err)["code"] == "queue_depth_limit"
    assert main(["--root", root, "--output", "json", "submit-workflow", "--file", "flow.json"]) == 1
    assert json.loads(capsys.readouterr().err)["code"] == "queue_depth_limit"


def test_a_refusal_is_audited_with_what_the_gate_saw(tmp_path: Path) -> None:
    set_bounds(tmp_path / "root", submitRateLimitPerMin=1)
    with Client(tmp_path / "root", now_ms=lambda: 1_700_000_000_000) as client:
        client.submit("echo", "1", priority="high")
        with pytest.raises(SubmitRateError):
            client.submit("echo", "2", priority="high")
        (row,) = [json.loads(line) for line in client.audit_query(action="admission.reject")]

    assert (row["result"], row["resource"]) == ("submit_rate_limit", "runtime/admission")
    assert row["details"] == {
        "reason": "submit_rate_limit",
        "source": "submit",
        "priority": "HIGH",
        "queue_depth": 0,
        "running_steps": 0,
        "max_queue_depth": 5_000,
        "max_running_steps": 2_000,
        "submit_rate_limit_per_min": 1,
        "rejected_total": 1,
    }


def test_each_refusal_says_what_to_do() -> None:
    for error, setting in (
        (QueueFullError(5_000), "maxIngressQueueDepth"),
        (TooManyRunningError(2_000), "maxRunningSteps"),
        (SubmitRateError(240), "submitRateLimitPerMin"),
    ):
        assert setting in str(error) and "nothing was stored" in str(error)
