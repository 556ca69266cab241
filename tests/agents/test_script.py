"""Script agents, for real, in a worker process."""

from __future__ import annotations

import json
import sys
import time

import psutil
import pytest

from relaymesh.wire.work import CancelStep, StepProgress

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="adoption of orphans is a Linux feature")


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_the_payload_comes_by_stdin_and_the_output_is_stripped(worker, size: int) -> None:
    report = worker.run("count_input", "x" * size)

    assert (report.kind, report.output) == ("succeeded", str(size))


@pytest.mark.parametrize("agent", ["ignores_input", "closes_input"])
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_script_need_not_read_its_input(worker, agent: str, size: int) -> None:
    assert worker.run(agent, "x" * size).kind == "succeeded"


def test_a_script_finds_its_context_in_the_environment(worker) -> None:
    before_ms = time.time() * 1000
    told = json.loads(worker.run("show_environment", timeout_ms=30_000, attempt=2).output)

    assert told["RELAYMESH_TASK_ID"] == "tsk_1"
    assert told["RELAYMESH_STEP_ID"] == "stp_1"
    assert told["RELAYMESH_ATTEMPT"] == "2"
    assert told["RELAYMESH_FENCING_TOKEN"] == "7"
    assert told["RELAYMESH_IDEMPOTENCY_TOKEN"] == "once"
    assert told["TRACEPARENT"] == f"00-{told['RELAYMESH_TRACE_ID']}-{told['RELAYMESH_SPAN_ID']}-01"
    assert 0 < int(told["RELAYMESH_DEADLINE_MS"]) - before_ms < 35_000
    assert "PYTHONPATH" not in told or not told["PYTHONPATH"].startswith(str(sys.path[0]) + ":")


def test_a_failure_names_the_exit_code_and_what_the_script_said(worker) -> None:
    report = worker.run("fails")

    assert (report.code, report.retryable) == ("agent_error", True)
    assert report.error.startswith("the script ended with exit code 3: first cause out of order xxx")
    assert report.error.endswith("x...")
    assert len(report.error) == len("the script ended with exit code 3: ") + 512 + 3
    assert "\n" not in report.error
    assert [line.text for line in report.log] == ["first cause"]
    assert worker.run("fails_quietly").error == "the script ended with exit code 4: it said nothing"


@posix_only
def test_a_script_that_a_signal_ended_says_which(worker) -> None:
    assert "signal 9 (SIGKILL)" in worker.run("kills_itself").error


def test_a_program_that_does_not_exist_is_a_failure_that_names_the_cause(worker) -> None:
    report = worker.run("no-such-program")

    assert (report.code, report.error) == (
        "cannot_start",
        "cannot start '/no/such/program': No such file or directory",
    )


def test_much_output_on_both_pipes_blocks_nobody(worker) -> None:
    report = worker.run("floods")

    assert report.output.endswith("end")
    assert len(report.output) == 3_000_003
    assert len(report.log) == 1 and len(report.log[0].text) == 4096  # three megabytes without a line break


@posix_only
def test_a_flood_of_lines_is_passed_over_and_what_it_asks_for_is_heard(worker) -> None:
    report = worker.run("floods_lines", timeout_ms=20_000)

    assert (report.kind, report.for_ms) == ("snoozed", 1500)
    assert report.log[-1].text.startswith("4,999,050 more lines were dropped")


def test_output_above_the_limit_is_an_error_that_is_never_retried_and_ends_the_script(worker) -> None:
    began = time.monotonic()
    report = worker.run("too_large_output")

    assert (report.code, report.retryable) == ("output_too_large", False)
    assert time.monotonic() - began < 10


def test_output_that_is_not_utf8_is_mended_and_the_log_says_so(worker) -> None:
    report = worker.run("not_utf8")

    assert report.output == "caf\ufffd"
    assert "not all UTF-8" in report.log[0].text


def test_a_script_talks_in_lines_on_stderr(worker) -> None:
    report = worker.run("talks")

    assert next(event.progress for event in worker.seen if isinstance(event, StepProgress)) == "40%"
    assert report.kind == "succeeded"
    assert [line.text for line in report.log] == [
        "::relaymesh dance",
        "::relaymesh snooze soon",
        "a line for the log",
    ]
    snoozed = worker.run("snoozes_script")
    assert (snoozed.kind, snoozed.for_ms) == ("snoozed", 2500)
    assert worker.run("fails_for_good_script").retryable is False


@posix_only
def test_a_timeout_asks_first(worker) -> None:
    report = worker.run("stops_when_asked", timeout_ms=1_000)

    assert (report.code, report.output) == ("timeout", "")
    assert report.finished_at_ms - report.started_at_ms < 1_300 + 2_000


@linux_only
@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_nothing_of_a_script_outlives_its_end_by_more_than_the_grace_time(
    worker, order, tmp_path, eventually, how: str
) -> None:
    pids_file = tmp_path / "pids"
    worker.send(order("hangs", str(pids_file), timeout_ms=1_500 if how == "timeout" else 60_000))
    eventually(pids_file.exists)
    pids = [int(pid) for pid in pids_file.read_text().split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    if how == "cancel":
        worker.process.send(CancelStep(1, "lease_1", "no longer wanted"))
        asked = time.monotonic()

    report = worker.reports(1)[0]

    assert report.code == {"timeout": "timeout", "cancel": "cancelled"}[how]
    if how == "cancel":
        assert time.monotonic() - asked < 0.3 + 2
    else:
        assert report.finished_at_ms - report.started_at_ms < 1_500 + 300 + 2_000
    assert not any(psutil.pid_exists(pid) for pid in pids)  # no zombie either
    assert psutil.Process(worker.process.pid).children(recursive=True) == []


@linux_only
def test_a_child_that_a_script_leaves_behind_is_ended_and_holds_nothing_up(worker) -> None:
    began = time.monotonic()
    report = worker.run("leaves_child")

    assert report.kind == "succeeded"
    assert not psutil.pid_exists(int(report.output))
    assert time.monotonic() - began < 5
    assert "left behind" in report.log[0].text


@linux_only
def test_killing_the_worker_kills_its_script_and_all_below(
    new_worker, shared_root, order, tmp_path, eventually
) -> None:
    worker = new_worker(shared_root, ())
    pids_file = tmp_path / "pids"
    worker.send(order("hangs", str(pids_file)))
    eventually(pids_file.exists)

    worker.process.kill()

    assert not any(psutil.pid_exists(int(pid)) for pid in pids_file.read_text().split())
