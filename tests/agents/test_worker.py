"""Worker processes, for real: what Python agents may do in them, and how their steps end."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from relaymesh.wire.work import (
    CancelStep,
    RevokeSteps,
    RunSteps,
    StepProgress,
    StepReports,
    StepsRevoked,
    StepStarted,
    StopWorker,
    WorkerExited,
    WorkerOutput,
    WorkerReady,
    WorkerRefused,
    WorkerRetiring,
)
from tests.agents.conftest import make_order

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="adoption of orphans is a Linux feature")


def gone(pid: int) -> bool:
    """No process of this pid, not even a zombie."""
    return not psutil.pid_exists(pid)


def test_it_says_which_agents_it_has(new_worker, shared_root) -> None:
    ready = new_worker(shared_root).next(WorkerReady)

    assert {"echo", "same", "repeat-words", "count_input"} <= set(ready.agents)


def test_a_worker_that_cannot_load_its_agents_says_why_and_ends(new_worker, tmp_path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_at_all")
    worker = new_worker(sources=[str(broken)])

    assert "no_such_module_at_all" in worker.next(WorkerRefused).error
    assert worker.next(WorkerExited).exit_status == 1


def test_what_is_printed_while_modules_are_imported_goes_to_the_nodes_log(new_worker) -> None:
    assert new_worker().next(WorkerOutput).text == "printed while this module is imported"


def test_text_goes_in_and_comes_out_as_it_is(worker) -> None:
    for text in ("", "plain", 'quo"te\n\x00\u2028 é 😀'):
        report = worker.run("same", text)

        assert (report.kind, report.output) == ("succeeded", text)
        assert report.started_at_ms <= report.finished_at_ms


def test_none_is_empty_text(worker) -> None:
    assert worker.run("nothing").output == ""


def test_an_annotated_input_is_read_as_json_and_checked(worker) -> None:
    assert json.loads(worker.run("repeat-words", '{"words":["a"],"times":2}').output) == {"words": ["a", "a"]}

    for payload in ("no json", '{"words":[1]}', "{}", "", "[" * 100_000):
        report = worker.run("repeat-words", payload)
        assert (report.kind, report.code, report.retryable) == ("failed", "bad_input", False)


def test_an_error_is_one_line_and_its_traceback_is_in_the_log(worker) -> None:
    report = worker.run("raises", "two\nlines")

    assert (report.code, report.error, report.retryable) == ("agent_error", "ValueError: cannot use two lines", True)
    text = [line.text for line in report.log]
    assert text[0] == "Traceback (most recent call last):"
    assert "sample_agents.py" in text[1]


@pytest.mark.parametrize(("name", "retryable"), [("KeyError", False), ("OSError", True), ("ValueError", False)])
def test_the_type_of_an_error_decides_whether_it_is_retried(worker, name: str, retryable: bool) -> None:
    assert worker.run("raises_by_name", name).retryable is retryable


def test_an_agent_may_fail_with_a_code_of_its_own(worker) -> None:
    for_good, for_now = worker.run("fails_for_good"), worker.run("fails_for_now")

    assert (for_good.code, for_good.error, for_good.retryable) == ("no_customer", "no such customer", False)
    assert (for_now.retryable, for_now.retry_after_ms) == (True, 1500)


def test_an_agent_that_calls_exit_fails_and_the_worker_goes_on(worker) -> None:
    assert worker.run("exits").error == "SystemExit: 3"
    assert worker.run("same", "still here").output == "still here"


@pytest.mark.skipif(sys.platform == "win32", reason="the pipe is a handle there, which no closerange reaches")
def test_a_worker_whose_pipe_an_agent_closes_is_killed_and_its_step_named(new_worker) -> None:
    worker = new_worker()

    worker.send(make_order("closes_all_files", row_id=5))

    assert worker.next(WorkerExited, within_s=10).running_row_id == 5
    assert any("closed the pipe" in event.text for event in worker.seen if isinstance(event, WorkerOutput))


@pytest.mark.skipif(sys.platform == "win32", reason="it has only one of them")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_agent_of_a_file_may_share_its_work_with_processes_of_its_own(worker, method: str) -> None:
    for _ in range(2):  # what the first left behind is ended with it, and the second starts it anew
        assert worker.run("counts_in_processes", method, timeout_ms=15_000).output == "14"


def test_the_working_directory_is_back_after_an_agent_that_left_it(worker, tmp_path) -> None:
    before = worker.run("working_directory").output

    assert worker.run("goes_to", str(tmp_path)).output == str(tmp_path.resolve())
    assert worker.run("working_directory").output == before


@pytest.mark.parametrize(
    ("agent", "code"), [("not_json", "bad_output"), ("surrogate", "bad_output"), ("too_large", "output_too_large")]
)
def test_an_output_that_cannot_be_stored_is_never_retried(worker, agent: str, code: str) -> None:
    report = worker.run(agent)

    assert (report.kind, report.code, report.retryable) == ("failed", code, False)


def test_coroutines_share_one_loop(worker) -> None:
    first, second = worker.run("coroutine", "a").output, worker.run("coroutine", "b").output

    assert first.split()[0] == "a" and second.split()[0] == "b"
    assert first.split()[1] == second.split()[1]


def test_what_an_agent_prints_and_logs_is_stored_with_its_attempt(worker) -> None:
    lines = [(line.level, line.text) for line in worker.run("prints").log]

    assert lines == [
        ("STDOUT", "to stdout"),
        ("STDERR", "to stderr"),
        ("INFO", "through logging"),
        ("STDOUT", "no line break"),
    ]
    assert [(line.level, line.text) for line in worker.run("logs", "x").log] == [
        ("DEBUG", "debug x"),
        ("ERROR", "error"),
    ]
    assert worker.run("same", "x").log == ()


def test_a_flood_of_log_lines_is_cut_and_the_traceback_is_kept(worker) -> None:
    log = worker.run("floods_log").log

    assert len(log) <= 1_001
    assert sum(len(line.text.encode()) for line in log) <= 64 * 1024 + 4096
    assert "more lines were dropped" in log[-1].text
    assert log[-2].text == "ValueError: at the end"


def test_an_agent_is_told_who_it_is(worker) -> None:
    incoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    told = json.loads(worker.run("tells", traceparent=incoming, attempt=3, timeout_ms=5000).output)

    assert (told["task"], told["step"], told["attempt"]) == ("tsk_1", "stp_1", 3)
    assert (told["fencing"], told["idempotency"]) == (7, "once")
    assert told["incoming"] == incoming
    assert told["traceparent"] == f"00-{told['trace']}-{told['span']}-00"
    assert 0 < told["remaining"] <= 5000
    assert told["pythonpath"] == os.environ.get("PYTHONPATH")


def test_a_snooze_gets_past_an_except_exception(worker) -> None:
    report = worker.run("snoozes", "1.25")

    assert (report.kind, report.for_ms) == ("snoozed", 1250)
    assert worker.run("snoozes", "-1").output == "swallowed ValueError"


def test_heartbeats_are_thinned_out_and_the_last_one_arrives(worker) -> None:
    worker.run("heartbeats")

    beats = [event.progress for event in worker.seen if isinstance(event, StepProgress)]
    assert beats[0] == '{"done":0}'
    assert beats[-1] == '{"done":199}'
    assert len(beats) < 50


def test_orders_run_in_order_and_quick_ones_are_reported_together(worker, order) -> None:
    worker.send(*(order("same", str(number), row_id=number) for number in range(2_000)))

    assert [report.row_id for report in worker.reports(2_000)] == list(range(2_000))
    assert sum(isinstance(event, StepReports) for event in worker.seen) < 1_000


def test_a_long_step_is_announced_and_holds_back_no_report(worker, order) -> None:
    worker.send(order("same", "quick", row_id=1), order("sleeps_for_good", "0.3", row_id=2))

    assert worker.reports(1)[0].row_id == 1
    assert worker.next(StepStarted).row_id == 2
    assert worker.reports(1)[0].output == "slept"


def test_an_unknown_agent_is_a_failure(worker) -> None:
    assert worker.run("nobody").code == "unknown_agent"


def test_a_timeout_sets_cancelled_and_decides_the_outcome(worker, tmp_path) -> None:
    report = worker.run("waits", str(tmp_path / "started"), timeout_ms=100)

    assert (report.kind, report.code, report.output) == ("failed", "timeout", "")
    assert report.error == "the step took longer than its limit of 100 ms"
    assert worker.run("coroutine_sleeps", timeout_ms=100).code == "timeout"
    assert worker.run("checks", timeout_ms=100).code == "timeout"


def test_a_cancel_reaches_a_running_step(worker, order, tmp_path, eventually) -> None:
    started = tmp_path / "started"
    worker.send(order("waits", str(started)))
    eventually(started.exists)

    worker.process.send(CancelStep(1, "lease_1", "the task was cancelled"))

    report = worker.reports(1)[0]
    assert (report.code, report.error) == ("cancelled", "the attempt was stopped: the task was cancelled")


def test_a_cancel_of_another_lease_changes_nothing(worker, order, tmp_path, eventually) -> None:
    started = tmp_path / "started"
    worker.send(order("waits", str(started), timeout_ms=300))
    eventually(started.exists)

    worker.process.send(CancelStep(1, "lease_of_an_earlier_attempt", "late"))

    assert worker.reports(1)[0].code == "timeout"


def test_steps_that_have_not_begun_are_given_back(worker, order, tmp_path, eventually) -> None:
    started = tmp_path / "started"
    waits = order("waits", str(started), timeout_ms=500)
    worker.send(waits, *(order("same", row_id=number) for number in range(2, 7)))
    eventually(started.exists)

    worker.process.send(RevokeSteps((1, 3, 4, 99)))
    assert worker.next(StepsRevoked).row_ids == (3, 4)
    worker.process.send(CancelStep(5, "lease_5", "not wanted"))
    assert worker.next(StepsRevoked).row_ids == (5,)

    assert [report.row_id for report in worker.reports(3)] == [1, 2, 6]


def test_a_stop_finishes_the_running_step_and_gives_back_the_rest(new_worker, order, tmp_path, eventually) -> None:
    worker = new_worker()
    started = tmp_path / "started"
    worker.send(order("waits", str(started), timeout_ms=300), order("same", row_id=2))
    eventually(started.exists)

    worker.process.send(StopWorker())

    assert worker.next(StepsRevoked).row_ids == (2,)
    assert worker.reports(1)[0].row_id == 1
    exited = worker.next(WorkerExited)
    assert (exited.exit_status, exited.running_row_id) == (0, None)
    assert not worker.process.alive
    assert not worker.process.send(StopWorker())


def test_a_worker_retires_after_its_steps_and_gives_back_what_comes_later(new_worker, order) -> None:
    worker = new_worker()
    worker.send(*(order("recycled", row_id=number) for number in range(1, 6)))

    assert [report.row_id for report in worker.reports(3)] == [1, 2, 3]
    retiring = worker.next(WorkerRetiring)
    assert (retiring.reason, retiring.row_ids) == ("steps", (4, 5))
    worker.send(order("same", row_id=6))
    assert worker.next(StepsRevoked).row_ids == (6,)
    worker.process.send(StopWorker())
    assert worker.next(WorkerExited).exit_status == 0


def test_a_worker_that_holds_too_much_memory_retires(new_worker, order) -> None:
    worker = new_worker()
    worker.send(order("leaks"))

    assert worker.reports(1)[0].kind == "succeeded"
    assert worker.next(WorkerRetiring).reason == "memory"


@pytest.mark.parametrize("agent", ["dies", "crashes"])
def test_a_step_that_takes_its_worker_down_is_named(new_worker, order, agent: str) -> None:
    worker = new_worker()
    worker.send(order("sleeps_for_good", "0.05", row_id=1), order("same", row_id=2), order(agent, row_id=3))

    exited = worker.next(WorkerExited)

    assert exited.exit_status != 0
    assert exited.running_row_id == 3  # though the report of 2 may be lost with it
    if agent == "crashes":
        output = "\n".join(event.text for event in worker.seen if isinstance(event, WorkerOutput))
        assert "Fatal Python error" in output


def test_killing_a_worker_ends_a_step_that_does_not_listen(new_worker, order) -> None:
    worker = new_worker()
    worker.send(order("sleeps_for_good"))
    worker.next(StepStarted)

    worker.process.kill()

    assert not worker.process.alive
    assert gone(worker.process.pid)
    assert worker.next(WorkerExited).pid == worker.process.pid
    worker.process.kill()  # once more does nothing


@linux_only
def test_a_daemon_is_ended_with_the_attempt_that_started_it(worker, tmp_path) -> None:
    report = worker.run("leaves_daemon", str(tmp_path / "pid"))

    assert report.output == "left a daemon"
    assert gone(int((tmp_path / "pid").read_text()))
    assert len(report.log) == 1
    assert re.fullmatch(r"ended (1 process|[2-9] processes) that the attempt left behind", report.log[0].text)


@linux_only
def test_what_a_module_starts_when_it_is_imported_lives_as_long_as_its_worker(new_worker, tmp_path, eventually) -> None:
    module = tmp_path / "helped.py"
    module.write_text(
        "import subprocess, sys\nfrom relaymesh import agent\n"
        "HELPER = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "@agent\ndef helper(text):\n"
        "    other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "    return [HELPER.pid, HELPER.poll(), other.pid]\n"
    )
    worker = new_worker(sources=[str(module)])

    first, second = (json.loads(worker.run("helper", row_id=number).output) for number in (1, 2))

    assert first[:2] == second[:2] == [first[0], None]
    assert gone(first[2]) and gone(second[2])
    worker.process.kill()
    assert gone(first[0])


def test_an_agent_may_run_programs(worker) -> None:
    report = worker.run("runs_program", "hello")

    assert (report.output, report.log) == ("hello\n", ())


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_a_forked_child_that_comes_back_out_of_an_agent_is_no_second_worker(worker) -> None:
    assert worker.run("forks_and_forgets").output == "from the parent"
    assert worker.run("same", "next").output == "next"


@linux_only
def test_a_daemon_of_a_step_that_hangs_dies_with_its_killed_worker(new_worker, order, tmp_path, eventually) -> None:
    worker = new_worker()
    worker.send(order("hides_daemon_and_hangs", str(tmp_path / "pid")))
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    daemon = int((tmp_path / "pid").read_text())

    began = time.monotonic()
    worker.process.kill()

    assert gone(daemon) and gone(worker.process.pid)
    assert time.monotonic() - began < 2


@linux_only
def test_a_worker_that_is_killed_from_outside_leaves_nothing_running(new_worker, order, tmp_path, eventually) -> None:
    worker = new_worker()
    worker.send(order("hides_daemon_and_hangs", str(tmp_path / "pid")))
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())

    os.kill(worker.process.pid, 9)

    assert worker.next(WorkerExited).exit_status == -9
    daemon = int((tmp_path / "pid").read_text())
    eventually(lambda: gone(daemon) or psutil.Process(daemon).status() == psutil.STATUS_ZOMBIE)


@linux_only
def test_when_the_node_dies_its_workers_end_and_all_below_them(tmp_path, eventually) -> None:
    node = tmp_path / "node.py"
    node.write_text(
        textwrap.dedent(f"""
            import sys, time
            from pathlib import Path
            sys.path.insert(0, {str(Path(__file__).parents[2])!r})
            from relaymesh.agents.process import WorkerProcess
            from relaymesh.wire.work import RunSteps, StepOrder
            samples, root = {str(Path(__file__).with_name("sample_agents.py"))!r}, Path({str(tmp_path)!r})
            worker = WorkerProcess(root, [samples], lambda event: None)
            worker.start()
            (root / "worker").write_text(str(worker.pid))
            pid_file = str(root / "pid")
            order = StepOrder(1, "s", "t", "hides_daemon_and_hangs", 1, pid_file, "l", 1, "i", "0" * 32, 60000)
            worker.send(RunSteps((order,)))
            time.sleep(600)
        """)
    )
    process = subprocess.Popen([sys.executable, str(node)])
    try:
        eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    finally:
        process.kill()
        process.wait()

    pids = [int((tmp_path / name).read_text()) for name in ("worker", "pid")]

    # Init collects them in its own time; what counts here is that nothing runs any more.
    eventually(lambda: all(gone(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in pids))


def test_a_worker_ends_when_it_is_sent_what_is_no_message(new_worker) -> None:
    worker = new_worker()
    worker.next(WorkerReady)

    # Nothing that the node sends is malformed; so reach below ``send``.
    worker.process._outbox.put(_Nonsense(()))

    assert worker.next(WorkerExited).exit_status == 76


class _Nonsense(RunSteps, frozen=True):
    """Encodes to an envelope that nobody knows."""

    TAG = "work.nonsense"
    HEAD = RunSteps.HEAD.replace(b"work.run", b"work.non")


def test_a_message_that_is_not_for_a_worker_is_reported_and_passed_over(new_worker, order) -> None:
    worker = new_worker()
    worker.process.send(WorkerExited(1, 1))

    assert worker.run("same", "goes on").output == "goes on"
    texts = []
    with pytest.raises(queue.Empty):
        while True:
            texts.append(worker.next(WorkerOutput, within_s=0.2).text)
    seen = [event.text for event in worker.seen if isinstance(event, WorkerOutput)]
    assert any("not for a worker: WorkerExited" in text for text in seen)
