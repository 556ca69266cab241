"""Worker processes for tests: started with the sample agents, killed at the end, their events in a queue."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from relaymesh.agents.process import WorkerProcess
from relaymesh.wire.codec import Message
from relaymesh.wire.work import RunSteps, StepOrder, StepReport, StepReports, StopWorker, WorkerReady

WAIT_S = 20.0
SAMPLES = Path(__file__).with_name("sample_agents.py")

M = TypeVar("M", bound=Message)


def make_order(
    agent_id: str, payload: str = "", *, row_id: int = 1, timeout_ms: int = 60_000, **other: object
) -> StepOrder:
    values: dict[str, object] = {
        "row_id": row_id,
        "step_id": f"stp_{row_id}",
        "task_id": "tsk_1",
        "agent_id": agent_id,
        "attempt": 1,
        "payload": payload,
        "lease_token": f"lease_{row_id}",
        "fencing_token": 7,
        "idempotency_token": "once",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "timeout_ms": timeout_ms,
        "traceparent": "",
    }
    return StepOrder(**{**values, **other})  # type: ignore[arg-type]


class Worker:
    """One worker process and what it said."""

    def __init__(self, root: Path, sources: Sequence[str]) -> None:
        self.events: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.seen: list[Message] = []
        self.process = WorkerProcess(root, sources, self.events.put)
        self.process.start()

    def next(self, *types: type[M], within_s: float = WAIT_S) -> M:
        """Return the next event of these types; others go to ``seen``."""
        until = time.monotonic() + within_s
        while True:
            event = self.events.get(timeout=max(0.001, until - time.monotonic()))
            self.seen.append(event)
            if isinstance(event, types):
                return event

    def send(self, *orders: StepOrder) -> None:
        assert self.process.send(RunSteps(orders))

    def reports(self, count: int, within_s: float = WAIT_S) -> list[StepReport]:
        found: list[StepReport] = []
        while len(found) < count:
            found += self.next(StepReports, within_s=within_s).reports
        return found

    def run(self, agent_id: str, payload: str = "", **other: object) -> StepReport:
        self.send(make_order(agent_id, payload, **other))  # type: ignore[arg-type]
        return self.reports(1)[0]

    def drop_events(self) -> None:
        self.seen.clear()
        while not self.events.empty():
            self.events.get()


@pytest.fixture
def new_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(root: Path = tmp_path, sources: Sequence[str] = (str(SAMPLES),)) -> Worker:
        worker = Worker(root, sources)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.process.kill()


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    (root / "agents").mkdir()
    scripts = SAMPLES.with_name("scripts")
    entries = [{"id": path.stem, "command": [sys.executable, str(path)]} for path in sorted(scripts.glob("*.py"))]
    for entry in entries:
        entry["graceMs"] = 300
    entries.append({"id": "no-such-program", "command": ["/no/such/program"]})
    (root / "agents" / "scripts.json").write_text(json.dumps({"agents": entries}))
    return root


@pytest.fixture(scope="session")
def _shared_worker(shared_root: Path) -> Iterator[Worker]:
    worker = Worker(shared_root, [str(SAMPLES)])
    worker.next(WorkerReady)
    yield worker
    worker.process.send(StopWorker())  # in its own way, so that it can say which of its lines were run
    worker.process.wait(5)
    worker.process.kill()


@pytest.fixture
def worker(_shared_worker: Worker) -> Worker:
    """One process for all tests that leave it as it was."""
    assert _shared_worker.process.alive
    _shared_worker.drop_events()
    return _shared_worker


@pytest.fixture
def order() -> Callable[..., StepOrder]:
    return make_order


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    def wait(condition: Callable[[], object], within_s: float = WAIT_S) -> None:
        until = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < until, "it did not come to pass"
            time.sleep(0.01)

    return wait
