from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relaymesh.node import GossipOptions, NodeOptions
from relaymesh.node_view import BenchmarkRunOutcome, MaintenanceOutcome, StatsOutcome, WorkerOutcome
from relaymesh.view import Explanation

BENCHMARK = BenchmarkRunOutcome(
    submitted_tasks=5,
    completed_tasks=5,
    pending_tasks=0,
    timed_out=False,
    submit_started_at_ms=1,
    submit_finished_at_ms=2,
    run_started_at_ms=3,
    run_finished_at_ms=4,
    run_duration_ms=1,
    loops=1,
    throughput_tasks_per_sec=5000.0,
    latency_p50_ms=1,
    latency_p95_ms=2,
    latency_p99_ms=3,
    status_counts={"SUCCESS": 5},
    stats=StatsOutcome(task_status={}, step_status={}, message_state={}, lease_conflict_by_type={}),
)
OUTCOME = WorkerOutcome(processed=False, task_id=None, msg_id=None, message="queue empty")


class FakeNode:
    """Ends with ``status`` at the first wait, or when it has been told to."""

    paused_reason = ""

    node_id = "node-local"

    def __init__(self, *, status: int = 0, ends_on: str | None = None, signals: int | Sequence[int] = 0) -> None:
        self.told: list[str] = []
        self._status = status
        self._ends_on = ends_on
        self._signals = signals * [signal.SIGTERM] if isinstance(signals, int) else signals
        self._waits = 0
        self._changed = threading.Condition()

    def drain(self, grace_ms: int | None = None) -> None:
        self._tell("drain")

    def kill(self, exit_status: int = 1) -> None:
        self._status = exit_status
        self._tell("kill")

    def _tell(self, what: str) -> None:
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()

    def wait(self, timeout_s: float | None = None) -> int | None:
        if self._ends_on is None:
            return self._status
        with self._changed:
            self._waits += 1
            assert self._waits < 10, "nobody ended the node"
            if len(self._signals) > len(self.told):
                count = len(self.told)
                signal.raise_signal(self._signals[count])
                self._changed.wait_for(lambda: len(self.told) > count, timeout=2)
            return self._status if self._ends_on in self.told else None


@pytest.fixture(autouse=True)
def keep_signal_handlers():
    numbers = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGBREAK", signal.SIGINT)]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_up_starts_a_node_on_the_root_and_ends_with_its_status(terminal) -> None:
    terminal.answers(start=FakeNode(status=3))

    ended = terminal.run("--root", "r", "up", "--agents", "a.py", "--concurrency", "2", "--graceful-timeout-ms", "70")

    assert ended.status == 3
    assert "node node-local is up" in ended.err
    assert terminal.doors.started == [
        NodeOptions(
            root=Path(os.path.abspath("r")), agents=("a.py",), concurrency=2, grace_ms=70, gossip=GossipOptions()
        )
    ]


def test_up_leaves_to_the_node_what_is_not_said(terminal) -> None:
    terminal.answers(start=FakeNode())

    assert terminal.run("up").status == 0

    assert terminal.doors.started == [NodeOptions(root=Path(os.path.abspath("data")), gossip=GossipOptions())]


def test_up_and_worker_are_told_how_to_find_others(terminal) -> None:
    words = ["--gossip-bind", "0.0.0.0", "--gossip-port", "0", "--advertise", "192.0.2.1", "--seeds-file", "s.txt"]
    seeds = ["--seeds", "192.0.2.2:17888, [::1]:1", "--seeds", "host:2"]

    for command in ("up", "worker"):
        terminal.answers(start=FakeNode(ends_on="drain", signals=1))
        assert terminal.run(command, *words, *seeds, "--no-zeroconf").status == 0

    assert [options.gossip for options in terminal.doors.started] == 2 * [
        GossipOptions(
            bind="0.0.0.0",
            port=0,
            advertise="192.0.2.1",
            seeds=("192.0.2.2:17888", "[::1]:1", "host:2"),
            seeds_file=Path(os.path.abspath("s.txt")),
            zeroconf=False,
        )
    ]


@pytest.mark.parametrize("seed", ["192.0.2.1", "host:port", "::1:17888", "a:0", "b,a:1:2"])
def test_a_seed_that_cannot_be_one_is_wrong_usage(terminal, seed: str) -> None:
    ended = terminal.run("up", "--seeds", seed)

    assert ended.status == 2
    assert ended.err.startswith("error[usage]: ")
    assert "--seeds" in ended.err
    assert terminal.doors.started == []


@pytest.mark.parametrize("place", [":::", "host:99999", "[::1", "0.0.0.0:17888"])
def test_a_place_at_which_nobody_can_be_reached_is_wrong_usage(terminal, place: str) -> None:
    ended = terminal.run("worker", "--advertise", place)

    assert ended.status == 2
    assert ended.err.startswith("error[usage]: ")
    assert "--advertise" in ended.err
    assert terminal.doors.started == []


@pytest.mark.parametrize("words", [["up", "--no-gossip"], ["up", "--gossip=false"], ["worker", "--no-gossip"]])
def test_a_node_can_be_kept_out_of_every_mesh(terminal, words: list[str]) -> None:
    terminal.answers(start=FakeNode(ends_on="drain", signals=1))

    assert terminal.run(*words).status == 0

    (options,) = terminal.doors.started
    assert options.gossip is None


def test_the_default_id_that_somebody_asks_for_is_asked_for(terminal) -> None:
    terminal.answers(start=FakeNode())

    terminal.run("up", "--node-id", "node-local")

    assert terminal.doors.started[0].node_id == "node-local"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_node_which_ends_with_its_own_status(terminal, number: int) -> None:
    node = FakeNode(ends_on="drain", signals=[number])
    terminal.answers(start=node)

    ended = terminal.run("up")

    assert ended.status == 0
    assert node.told == ["drain"]


@pytest.mark.parametrize("command", ["up", "worker"])
@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGTERM, 143),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_a_second_signal_ends_the_node_at_once_with_the_status_of_that_signal(
    terminal, command: str, first: int, second: int, status: int
) -> None:
    node = FakeNode(ends_on="kill", signals=[first, second])
    terminal.answers(start=node)

    ended = terminal.run(command)

    assert ended.status == status
    assert node.told == ["drain", "kill"]
    # Whoever pressed Ctrl-C and sees nothing happen has to know what the next one does.
    assert ended.err.count("is stopping, and waits for the steps that run") == 1


@pytest.mark.parametrize("command", ["up", "worker"])
def test_the_help_says_what_a_second_signal_does(terminal, command: str) -> None:
    page = " ".join(terminal.run(command, "--help").out.split())

    assert "A second signal stops it at once" in page
    assert "130 after Ctrl-C, 143 after SIGTERM" in page


def test_a_worker_runs_until_it_is_stopped(terminal) -> None:
    node = FakeNode(ends_on="drain", signals=1)
    terminal.answers(start=node)

    assert terminal.run("worker", "--worker-id", "w", "--node-id", "n", "--maintenance=false").status == 0

    (options,) = terminal.doors.started
    assert (options.worker_id, options.node_id, options.maintenance) == ("w", "n", False)


def test_a_worker_polls_once_after_a_maintenance_tick(terminal) -> None:
    terminal.answers(run_once=OUTCOME, maintenance=MaintenanceOutcome(node_id="node-local"))

    ended = terminal.run("worker", "--once")

    first, second = ended.out.split("}\n{")
    assert '"nodeId": "node-local"' in first
    assert json.loads("{" + second) == {"processed": False, "taskId": None, "msgId": None, "message": "queue empty"}
    assert ended.status == 0


@pytest.mark.parametrize("words", [["--once", "--maintenance=false"], ["--once=true", "--maintenance=false"]])
def test_a_worker_polls_without_maintenance_when_told_so(terminal, words: list[str]) -> None:
    terminal.answers(run_once=OUTCOME)

    assert terminal.run("worker", *words).document["processed"] is False


def test_a_blank_node_id_falls_back_to_the_worker_id(terminal) -> None:
    terminal.answers(run_once=OUTCOME)

    terminal.run("worker", "--once", "--maintenance=false", "--worker-id", "w", "--node-id", " ")

    assert terminal.doors.started[0].node_id == "w"


def test_a_blank_node_id_of_up_falls_back_to_the_worker_id_too(terminal) -> None:
    terminal.answers(start=FakeNode())

    terminal.run("up", "--worker-id", "w", "--node-id", "")

    assert terminal.doors.started[0].node_id == "w"


def test_the_help_of_worker_says_what_its_options_do_and_do_not_do(terminal) -> None:
    page = " ".join(terminal.run("worker", "--help").out.split())

    assert "How often the settings and retry policies are looked at" in page
    assert "Without it heartbeats, due retries and the worker's own takeover at its start go on." in page
    assert "Each cycle prints a SettingsReloadOutcome if settings changed, a MaintenanceOutcome, then a" in page
    assert "in audit rows" not in page


def test_a_benchmark_prints_and_writes_its_report(terminal, tmp_path: Path) -> None:
    terminal.answers(benchmark=BENCHMARK)
    report = tmp_path / "report.json"

    ended = terminal.run("benchmark-run", "--tasks", "5", "--report-out", str(report))

    assert ended.status == 0
    assert ended.document["throughputTasksPerSec"] == 5000.0
    assert json.loads(report.read_bytes()) == ended.document


def test_a_benchmark_has_the_defaults_and_floors_of_the_reference(terminal) -> None:
    terminal.answers(benchmark=BENCHMARK)

    terminal.run("benchmark-run")
    terminal.run("benchmark-run", "--tasks", "0", "--input-size", "0", "--max-seconds", "1", "--poll-batch", "0")

    defaults, floors = [options for name, _, options in terminal.client.calls if name == "benchmark"]
    common: dict[str, Any] = {"agent": "echo", "priority": "normal"}
    for options in (defaults, floors):
        del options["on_held"]
    assert defaults == common | {"tasks": 1000, "input_size": 64, "max_seconds": 300, "poll_batch": 64}
    assert floors == common | {"tasks": 1, "input_size": 1, "max_seconds": 5, "poll_batch": 1}


def test_a_benchmark_in_which_nothing_moves_says_why_beside_its_answer(terminal) -> None:
    why = Explanation(
        step_id="stp_1",
        reason="queue_paused",
        since_ms=1,
        detail="the queue is paused",
        command="relaymesh queue resume",
    )

    def held(**options: Any) -> BenchmarkRunOutcome:
        options["on_held"](why)
        return BENCHMARK

    terminal.answers(benchmark=held)

    ended = terminal.run("benchmark-run", "--tasks", "5")

    assert ended.document["completedTasks"] == 5
    assert "nothing moves: the queue is paused; `" in ended.err
    assert " queue resume` lets it go on, and the run ends 300 s after its start\n" in ended.err


def test_a_benchmark_that_ran_out_of_time_ends_with_1(terminal) -> None:
    import msgspec

    terminal.answers(benchmark=msgspec.structs.replace(BENCHMARK, timed_out=True))

    assert terminal.run("benchmark-run").status == 1


def test_a_person_gets_the_figures_of_a_benchmark_rounded_and_no_object_of_ours(terminal) -> None:
    import msgspec

    terminal.answers(benchmark=msgspec.structs.replace(BENCHMARK, throughput_tasks_per_sec=1247.52475247524754))

    out = terminal.run("--output", "table", "benchmark-run").out

    assert "1,247.5" in out
    assert "Outcome(" not in out


def test_the_result_of_a_benchmark_is_printed_though_its_file_cannot_be_written(terminal, tmp_path) -> None:
    terminal.answers(benchmark=BENCHMARK)

    ended = terminal.run("benchmark-run", "--report-out", str(tmp_path))

    assert (ended.status, ended.document["completedTasks"]) == (1, 5)
    assert ended.err.startswith("error[io]: ")
