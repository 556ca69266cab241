"""What `relaymesh worker` prints while it runs: real workers on real roots, and a printer without a node."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relaymesh.cli import printer as printing
from relaymesh.cli.call import Call
from relaymesh.client import Client
from relaymesh.store.error import StoreBusyError
from relaymesh.store.root import DATABASE

PATIENCE_S = 60.0
AGENTS = """
import os, sys, time
from relaymesh import AgentFailed, agent

@agent
def refuses(text: str) -> str:
    raise AgentFailed("never", code="never", retryable=False)

@agent
def waits(text: str) -> str:
    open(text + ".started", "w").close()
    while not os.path.exists(text):
        time.sleep(0.01)
    return text
"""


class Worker:
    """One `relaymesh worker` whose output is read by the test."""

    def __init__(self, root: Path, *options: str, words: tuple[str, ...] = ()) -> None:
        agents = root.parent / "agents.py"
        agents.write_text(AGENTS, encoding="utf-8")
        command = [sys.executable, "-m", "relaymesh", *words, "--root", str(root), "worker", "--concurrency", "1"]
        self.process = subprocess.Popen(
            [*command, "--agents", str(agents), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout

    def document(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Read until a document is what is wanted."""
        for line in self.out:
            found: dict[str, Any] = json.loads(line)
            if wanted(found):
                return found
        raise AssertionError("the worker ended before")

    def outcome(self, task_id: str, words: str = "") -> dict[str, Any]:
        return self.document(lambda found: found.get("taskId") == task_id and words in found["message"])

    def end(self) -> tuple[int, str, str]:
        """SIGTERM; return the exit status and the rest of the output."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Worker]]:
    with contextlib.ExitStack() as stack:

        def started(*options: str, words: tuple[str, ...] = ()) -> Worker:
            worker = Worker(root, *options, words=words)
            stack.callback(worker.process.wait)
            stack.callback(worker.process.kill)
            return worker

        yield started


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    """A client that knows the agents of the file."""
    path = root.parent / "agents.py"
    path.write_text(AGENTS, encoding="utf-8")
    with Client(root, agents=[str(path)]) as client:
        yield client


def test_each_attempt_that_ended_is_one_document(client: Client, start: Callable[..., Worker]) -> None:
    well = client.submit("echo", "a").task_id
    again = client.submit("fail", "b").task_id
    dead = client.submit("refuses", "c").task_id

    worker = start()
    first = json.loads(worker.out.readline())
    found: dict[str, dict[str, Any]] = {}
    while len(found) < 3:
        outcome = worker.document(lambda document: document.get("processed"))
        found.setdefault(outcome["taskId"], outcome)

    assert first["nodeId"] == "node-local" and first["wallReclaimed"] == 0  # a MaintenanceOutcome begins the cycle
    assert found[well] == {
        "processed": True,
        "taskId": well,
        "msgId": f"msg_{well.replace('tsk_', 'stp_')}.1",
        "message": "the task is complete",
    }
    assert "attempt 1 failed, the next one is due" in found[again]["message"]
    assert "attempt 1 failed and was the last: never" in found[dead]["message"]
    assert worker.end()[0] == 0


def test_a_cycle_without_an_attempt_says_so_after_what_maintenance_did(start: Callable[..., Worker]) -> None:
    worker = start("--interval-ms", "50")

    lines = [json.loads(worker.out.readline()) for _ in range(4)]

    assert ["nodeId" in line for line in lines] == [True, False, True, False]
    assert lines[1]["processed"] is False and lines[1]["taskId"] is None and lines[1]["msgId"] is None
    assert worker.end()[0] == 0


def test_a_result_that_came_too_late_is_told_as_refused(
    client: Client, start: Callable[..., Worker], root: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    task = client.submit("waits", str(gate)).task_id
    worker = start("--interval-ms", "20")
    worker.document(lambda _: Path(f"{gate}.started").exists())

    with contextlib.closing(sqlite3.connect(root / DATABASE)) as conn, conn:
        conn.execute("UPDATE steps SET lease_epoch=lease_epoch+1, lease_token='other' WHERE task_id=?", (task,))
        gate.touch()

    assert "refused" in worker.outcome(task)["message"]


def test_maintenance_counts_what_it_took_from_a_dead_node(
    client: Client, start: Callable[..., Worker], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    task = client.submit("waits", str(gate)).task_id
    first = start("--node-id", "first", "--interval-ms", "20")
    first.document(lambda _: Path(f"{gate}.started").exists())
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    gate.touch()

    second = start("--node-id", "second", "--interval-ms", "200")
    counts = second.document(lambda found: found.get("deadOwnerReclaimed"))

    assert counts["nodeId"] == "second"
    assert counts["deadOwnerReclaimed"] == counts["deadOwnerRetryScheduled"] == 1
    assert counts["deadOwnerDeadLettered"] == 0
    client.result(task, timeout_ms=int(PATIENCE_S * 1000))


def test_renewals_of_leases_are_counted(client: Client, start: Callable[..., Worker], tmp_path: Path) -> None:
    client.submit("waits", str(tmp_path / "never"))

    worker = start("--graceful-timeout-ms", "1")

    assert worker.document(lambda found: found.get("leaseHeartbeats"))["leaseHeartbeats"] == 1


def test_without_maintenance_there_is_no_document_of_it(start: Callable[..., Worker]) -> None:
    worker = start("--maintenance=false", "--interval-ms", "20")

    lines = [json.loads(worker.out.readline()) for _ in range(3)]

    assert all(line["processed"] is False for line in lines)


def test_a_person_sees_ended_attempts_only(client: Client, start: Callable[..., Worker]) -> None:
    task = client.submit("echo", "a").task_id
    worker = start("--interval-ms", "20", words=("--output", "table"))

    line = worker.out.readline()
    status, rest, _ = worker.end()

    assert task in line and "the task is complete" in line
    assert (status, rest) == (0, "")


def test_a_reader_that_goes_ends_the_worker(start: Callable[..., Worker]) -> None:
    worker = start("--interval-ms", "20")
    worker.out.readline()
    worker.out.close()

    assert worker.process.wait(PATIENCE_S) == 1
    assert worker.process.stderr is not None and worker.process.stderr.read() == ""


@pytest.mark.slow
def test_a_reader_that_stands_still_does_not_stop_the_node(client: Client, start: Callable[..., Worker]) -> None:
    worker = start()
    worker.out.readline()
    tasks = [client.submit("echo", f"x{number}").task_id for number in range(1_500)]  # far more than a pipe holds

    for task in tasks:
        client.result(task, timeout_ms=int(PATIENCE_S * 1000))
    worker.process.terminate()
    status = worker.process.wait(PATIENCE_S)

    assert status == 0
    assert worker.process.stderr is not None
    assert "attempts ended and are not printed" in worker.process.stderr.read()
    assert len(set(tasks)) == 1_500


# A printer without a node ------------------------------------------------------------------------------------------


class EndedNode:
    node_id = "n"

    def drain(self, grace_ms: int | None = None) -> None:
        raise AssertionError("the printing failed")


def printer_of(terminal: Any) -> printing.Printer:
    return printing.Printer(Call("root", "default", None, terminal.doors), interval_s=0.01, maintenance=False)


def row(number: int) -> tuple[Any, ...]:
    return (f"stp_{number}", f"tsk_{number}", 1, 1, "SUCCESS", "SUCCESS", 1, None, None, None, None, 0)


def answer(_: str, values: tuple[str]) -> list[Any]:
    return [row(row_id) for row_id, _ in json.loads(values[0])]


def test_what_is_more_than_the_buffer_holds_is_counted(
    terminal: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "WAITING_MAX", 2)
    terminal.answers(query=answer)
    printer = printer_of(terminal)

    printer.committed([(1, 1), (2, 1), (3, 1)])
    printer.committed([(4, 1)])
    printer.begin(EndedNode())  # type: ignore[arg-type]
    printer.finish(0)

    out, err = capsys.readouterr()
    assert [json.loads(line)["taskId"] for line in out.splitlines()] == ["tsk_1", "tsk_2"]
    assert "2 attempts ended and are not printed" in err


def test_attempts_are_looked_up_in_batches_of_one_query(
    terminal: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "_BATCH_MAX", 2)
    terminal.answers(query=answer)
    printer = printer_of(terminal)

    printer.committed([(number, 1) for number in range(5)])
    printer.begin(EndedNode())  # type: ignore[arg-type]
    printer.finish(0)

    assert len(capsys.readouterr().out.splitlines()) == 5
    assert [name for name, _, _ in terminal.client.calls].count("query") == 3


def test_a_store_that_cannot_be_read_for_a_while_loses_nothing(
    terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([StoreBusyError(0)])

    def sometimes(sql: str, values: tuple[str]) -> list[Any]:
        for error in answers:
            raise error
        printed.set()
        return answer(sql, values)

    printed = printing.threading.Event()
    terminal.answers(query=sometimes)
    printer = printer_of(terminal)

    printer.committed([(1, 1)])
    printer.begin(EndedNode())  # type: ignore[arg-type]
    assert printed.wait(PATIENCE_S)
    printer.finish(0)

    out, err = capsys.readouterr()
    assert [json.loads(line)["taskId"] for line in out.splitlines() if "tsk" in line] == ["tsk_1"]
    assert "cannot be read" in err
