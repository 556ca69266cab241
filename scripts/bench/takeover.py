"""takeover: how long after its owner's death a running step runs again, on real processes that share one root.

    owner claims the step, its agent writes down that it began ─┬─ kill -9 (or SIGSTOP) of the owner: the clock starts
    another node: notices, takes the step back, claims, runs ───┴─ the agent writes down that it began again: it stops

Killed owners are noticed by the lock that the operating system drops; one that stands still only by its lease, as would
be the owner on another machine. A node that was killed is started anew while the next trial runs, which begins as soon
as three are alive.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.figure import budget, quantiles
from bench.node import BenchError
from bench.place import environment, new_root, python
from bench.setting import settings
from relaymesh.client import Client

__all__ = ["LEASE_MS", "run"]

LEASE_MS = 2_000
OVER_LEASE_MS = 2_000
NODES = 4
"""One more than a trial needs: the node that was ended last may still be starting."""
PATIENCE_S = 30.0
_AGENT = '''"""An agent that writes down when it begins, and does not end before its step has begun a second time."""

import time
from pathlib import Path

from relaymesh import Context, agent

BEGUN = Path(__file__).with_name("begun.txt")


@agent(isolation="thread")
def begin(number: str, ctx: Context) -> str:
    with open(BEGUN, "a", encoding="utf-8") as file:
        file.write(f"{ctx.step_id} {ctx.fencing_token & 0xFFFFFFFF} {time.monotonic_ns()}\\n")
    while ctx.fencing_token & 0xFFFFFFFF == 1:
        time.sleep(0.05)
    return number
'''


class _Trials:
    """The nodes of one root, and what their agents wrote down."""

    def __init__(self, folder: Path, durability: str) -> None:
        self.root = new_root(folder, durability)
        values = {"durability": durability, "leaseTimeoutMs": LEASE_MS, "baseBackoffMs": 50}
        (self.root / "relaymesh-settings.json").write_text(json.dumps(values), encoding="utf-8")
        self.agents = self.root / "bench_takeover_agent.py"
        self.agents.write_text(_AGENT, encoding="utf-8")
        self.begun = self.root / "begun.txt"
        self.client = Client(self.root, agents=[str(self.agents)])
        self.client.init()
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, node_id: str) -> None:
        words = ["-m", "relaymesh", "--root", str(self.root), "up", "--node-id", node_id, "--concurrency", "1"]
        with open(self.root / f"{node_id}.log", "ab") as log:
            self._nodes[node_id] = subprocess.Popen(
                python(*words, "--agents", str(self.agents)), stdout=log, stderr=log, env=environment(), cwd=self.root
            )

    def wait_alive(self, count: int) -> None:
        """Wait until so many nodes have registered under their present process."""
        pids = {node_id: process.pid for node_id, process in self._nodes.items()}

        def up() -> bool:
            rows = dict(self.client.query("SELECT node_id, pid FROM mesh_nodes WHERE status='ALIVE'"))
            return sum(rows.get(node_id) == pid for node_id, pid in pids.items()) >= count

        self._until("the start of the nodes", up)

    def trial(self, how: str) -> int:
        """Submit a step, end its owner, and return after how many ns it began again."""
        task_id = self.client.submit("begin", uuid.uuid4().hex).task_id
        step_id = f"stp_{task_id.removeprefix('tsk_')}"
        self._until("the start of a step", lambda: self._begun(step_id))
        ((owner,),) = self.client.query("SELECT lease_owner FROM steps WHERE step_id=?", (step_id,))
        process = self._nodes[owner]
        ended_ns = time.monotonic_ns()
        process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        self._until("the takeover", lambda: len(self._begun(step_id)) > 1)
        again_ns = self._begun(step_id)[1]
        self.client.wait_success(task_id, timeout_ms=int(PATIENCE_S * 1000))
        self._end(process)
        self.start(owner)
        return again_ns - ended_ns

    def _begun(self, step_id: str) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            lines = [line.split() for line in self.begun.read_text(encoding="utf-8").splitlines()]
            return [int(words[2]) for words in lines if len(words) == 3 and words[0] == step_id]
        return []

    def _until(self, what: str, look: Any) -> None:
        end = time.monotonic() + PATIENCE_S
        while not look():
            if time.monotonic() > end:
                raise BenchError(f"{what} did not come within {PATIENCE_S:g} s")
            time.sleep(0.01)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        below = []
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in below:
            with contextlib.suppress(psutil.Error):
                child.kill()

    def close(self) -> None:
        for process in self._nodes.values():
            self._end(process)
        self.client.close()


@contextlib.contextmanager
def _trials(folder: Path, durability: str) -> Iterator[_Trials]:
    trials = _Trials(folder, durability)
    try:
        for number in range(NODES):
            trials.start(f"n{number}")
        trials.wait_alive(NODES)
        yield trials
    finally:
        trials.close()


def run(folder: Path, *, kills: int, stops: int, durability: str = "full") -> dict[str, Any]:
    """Return the figures of so many owners that were killed, and that were stopped.

    Raises:
        BenchError: the machine has no signals, or something did not happen in time.
    """
    if sys.platform == "win32":
        raise BenchError("takeover needs SIGKILL and SIGSTOP, which this system does not have")
    found: dict[str, Any] = {}
    all_ms: dict[str, list[int]] = {}
    with _trials(folder, durability) as trials:
        for how, count in (("kill", kills), ("stop", stops)):
            samples = []
            for _ in range(count):
                trials.wait_alive(NODES - 1)
                samples.append(trials.trial(how))
            if samples:
                found[how] = quantiles(samples)
                all_ms[how] = [round(sample / 1e6) for sample in samples]
    limit_ms = float(LEASE_MS + OVER_LEASE_MS)
    return {
        "benchmark": "takeover",
        "runs_again_after": found,
        "all_ms": all_ms,
        "budget": [
            budget(f"{how} of the owner, p99 in ms: lease + 2 s", figure["p99_ms"], "at_most", limit_ms)
            for how, figure in found.items()
        ],
        "settings": settings(folder, durability, lease_ms=LEASE_MS, nodes=NODES, kills=kills, stops=stops),
    }
