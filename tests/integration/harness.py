"""Real nodes on real data roots: start them, break them, and check afterwards what the database and the agents say.

    Site        one data root: settings, agents, nodes, and the end of every process that was started for it
    NodeProcess one ``relaymesh up``
    history     what must hold after any crash: nothing acknowledged is lost, one committed outcome per step

Every process carries a mark in its environment, which workers and scripts inherit, so that none can be left behind.
The database of a site gets triggers that write down each committed outcome in the transaction that commits it: a count
that does not depend on the code under test.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from relaymesh.client import Client
from relaymesh.store.root import DATABASE

__all__ = [
    "AGENTS",
    "MARK",
    "REPO",
    "SCRIPTS",
    "WITNESS",
    "NodeProcess",
    "Ran",
    "Site",
    "eventually",
    "history",
    "marked",
    "plain_environment",
]

HERE = Path(__file__).parent
REPO = HERE.parent.parent
AGENTS = HERE / "witness_agents.py"
MARK = "RELAYMESH_TEST_MARK"
WITNESS = "RELAYMESH_TEST_WITNESS"
PATIENCE_S = 60.0

_SAY = f'printf "%s %s %s\\n" "$RELAYMESH_STEP_ID" "$RELAYMESH_FENCING_TOKEN" $$ >> "${WITNESS}"'
SCRIPTS = {
    "agents": [
        {
            # Takes as many hundredths of a second as its input says, a digit.
            "id": "script",
            "command": [
                "/bin/sh",
                "-c",
                f'read -r ms; {_SAY}; sleep "0.0${{ms:-1}}"; printf "%s" "$RELAYMESH_FENCING_TOKEN"',
            ],
            "timeoutMs": 30_000,
        },
        {"id": "endless_script", "command": ["/bin/sh", "-c", f"{_SAY}; sleep 600"], "timeoutMs": 600_000},
    ]
}

_TRIGGERS = """
CREATE TABLE IF NOT EXISTS witness_commit(step_id TEXT, before TEXT, after TEXT, lease_epoch INTEGER);
CREATE TRIGGER IF NOT EXISTS witness_step AFTER UPDATE OF status ON steps
WHEN OLD.status <> NEW.status AND (NEW.status IN ('SUCCESS','DEAD_LETTER','CANCELLED')
    OR OLD.status IN ('SUCCESS','DEAD_LETTER','CANCELLED'))
BEGIN INSERT INTO witness_commit VALUES (NEW.step_id, OLD.status, NEW.status, NEW.lease_epoch); END;
CREATE TABLE IF NOT EXISTS witness_task(task_id TEXT, before TEXT, after TEXT);
CREATE TRIGGER IF NOT EXISTS witness_task_end AFTER UPDATE OF status ON tasks
WHEN OLD.status <> NEW.status AND (NEW.status IN ('SUCCESS','DEAD_LETTER','CANCELLED')
    OR OLD.status IN ('SUCCESS','DEAD_LETTER','CANCELLED'))
BEGIN INSERT INTO witness_task VALUES (NEW.task_id, OLD.status, NEW.status); END;
"""


def eventually(
    condition: Callable[[], Any], *, within_s: float = PATIENCE_S, what: str = "", every_s: float = 0.02
) -> Any:
    """Return what ``condition`` returns once that is true; fail when the time is over."""
    until = time.monotonic() + within_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < until, f"did not happen within {within_s:g} s: {what or condition}"
        time.sleep(every_s)


def plain_environment() -> dict[str, str]:
    """Return our environment without what makes child processes measure coverage: for those that are killed anyway."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "COV_CORE_"))}


def marked(mark: str) -> list[psutil.Process]:
    """Return the live processes that carry this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class NodeProcess:
    """One node, as a user would start it."""

    def __init__(
        self,
        site: Site,
        node_id: str,
        *,
        concurrency: int,
        command: Sequence[str] | None,
        options: Sequence[str],
        environment: Mapping[str, str],
        wrapper: Sequence[str],
        measured: bool,
        gossip: bool,
    ) -> None:
        self.site, self.node_id = site, node_id
        self.log_path = site.folder / f"{node_id}.{site.next_number()}.log"
        words = command or [
            sys.executable,
            "-m",
            "relaymesh",
            "--root",
            str(site.root),
            "up",
            "--node-id",
            node_id,
            "--concurrency",
            str(concurrency),
            "--agents",
            str(site.agents),
            *(() if gossip else ("--no-gossip",)),
            *options,
        ]
        inherited = dict(os.environ) if measured else plain_environment()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [*wrapper, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=REPO,
                env={**inherited, **site.environment, **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_logged(self, text: str) -> None:
        """The log has a thread of its own: what is seen elsewhere may be logged a moment later."""
        eventually(lambda: text in self.log, what=f"{self.node_id} logs: {text}")

    def wait_up(self, within_s: float = PATIENCE_S) -> NodeProcess:
        """Wait until it says that it is up."""

        def up() -> bool:
            assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.log}"
            return "is up on" in self.log

        eventually(up, within_s=within_s, what=f"{self.node_id} is up")
        return self

    def kill(self) -> None:
        """``kill -9``, and wait for it."""
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def terminate(self, within_s: float = PATIENCE_S) -> int:
        """SIGTERM; return the exit status."""
        self.process.terminate()
        return self.wait(within_s)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.node_id} did not end within {within_s:g} s:\n{self.log}") from None

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes that are alive."""
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.Error):
                    if any("relaymesh.agents.host" in word for word in child.cmdline()):
                        found.append(child)
        return found


class Ran:
    """One line of the witness: an agent ran this step under this fencing token."""

    __slots__ = ("fence", "pid", "step_id")

    def __init__(self, line: str) -> None:
        step_id, fence, pid = line.split()
        self.step_id, self.fence, self.pid = step_id, int(fence), int(pid)


class Site:
    """A data root under test.

    settings: on top of short retries; ``leaseTimeoutMs`` makes leases short. copy_of: start with what another root has;
        nobody may be at work there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, object] | None = None,
        agents: Path = AGENTS,
        root: Path | None = None,
        copy_of: Site | None = None,
    ) -> None:
        self.folder = folder
        self.root = root or folder / "root"
        self.agents = agents
        self.mark = secrets.token_hex(8)
        self.witness = folder / "witness.txt"
        self.environment = {MARK: self.mark, WITNESS: str(self.witness)}
        self.nodes: list[NodeProcess] = []
        self.others: list[subprocess.Popen[bytes]] = []
        self._number = 0
        self._conn: sqlite3.Connection | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if copy_of is not None:
            shutil.copytree(copy_of.root, self.root)
            return
        self.root.mkdir(parents=True, exist_ok=True)
        chosen = {"baseBackoffMs": 50, "maxBackoffMs": 500, **(settings or {})}
        (self.root / "relaymesh-settings.json").write_text(json.dumps(chosen))
        (self.root / "agents").mkdir(exist_ok=True)
        (self.root / "agents" / "scripts.json").write_text(json.dumps(SCRIPTS))
        with self.client() as client:
            client.init()
        with contextlib.closing(sqlite3.connect(self.root / DATABASE)) as conn:
            conn.executescript(_TRIGGERS)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def client(self) -> Client:
        return Client(self.root, agents=(str(self.agents),))

    def node(
        self,
        node_id: str = "a",
        *,
        concurrency: int = 2,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        command: Sequence[str] | None = None,
        measured: bool = True,
        gossip: bool = False,
    ) -> NodeProcess:
        """Start a node; it is not up yet (``wait_up``).

        gossip: whether it joins others; what a test of something else is about must not hang on whether a busy machine
        answers in time. measured: whether its lines count for coverage. wrapper: words in front of the command.
        command: another one.
        """
        node = NodeProcess(
            self,
            node_id,
            concurrency=concurrency,
            command=command,
            options=options,
            environment=environment or {},
            wrapper=wrapper,
            measured=measured,
            gossip=gossip,
        )
        self.nodes.append(node)
        return node

    def run(
        self, *words: str, input: bytes | None = None, timeout_s: float = PATIENCE_S, wrapper: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command on this root to its end. Under a wrapper that breaks calls nothing is measured: the measuring
        would meet them too.
        """
        surroundings = plain_environment() if wrapper else os.environ
        return subprocess.run(
            [*wrapper, sys.executable, "-m", "relaymesh", "--root", str(self.root), *words],
            input=input,
            capture_output=True,
            cwd=REPO,
            env={**surroundings, **self.environment},
            timeout=timeout_s,
        )

    def start(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a Python program beside the nodes."""
        process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            cwd=REPO,
            env={**plain_environment(), **self.environment, **(environment or {})},
            start_new_session=True,
        )
        self.others.append(process)
        return process

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        if self._conn is None:
            self._conn = sqlite3.connect(
                f"{(self.root / DATABASE).as_uri()}?mode=ro", uri=True, timeout=30, check_same_thread=False
            )
        return self._conn.execute(sql, values).fetchall()

    def one(self, sql: str, *values: object) -> Any:
        """Return the first column of the first row, or None."""
        rows = self.rows(sql, *values)
        return rows[0][0] if rows else None

    def open_tasks(self) -> int:
        return int(self.one("SELECT count(*) FROM tasks WHERE status IN ('PENDING','RUNNING','RETRYING')"))

    def wait_done(self, within_s: float = PATIENCE_S) -> None:
        """Wait until every task has ended."""
        until = time.monotonic() + within_s
        while self.open_tasks():
            assert time.monotonic() < until, self.report()
            time.sleep(0.05)

    def ran(self) -> list[Ran]:
        """Return what agents witnessed; a last line that a kill cut off is left out."""
        if not self.witness.exists():
            return []
        text = self.witness.read_text()
        return [Ran(line) for line in text.splitlines() if len(line.split()) == 3]

    def report(self) -> str:
        """Say what is still open, for a failure that should explain itself."""
        lines = [
            " ".join(map(str, row))
            for row in self.rows(
                "SELECT s.step_id, s.agent_id, s.status, s.waiting_on, s.delayed, s.attempt, s.lease_owner,"
                " s.owner_generation, s.lease_epoch, s.next_retry_at_ms, s.updated_at_ms, s.last_error, t.status"
                " FROM steps s JOIN tasks t USING(task_id) WHERE t.status IN ('PENDING','RUNNING','RETRYING')"
                " AND s.status<>'SUCCESS' LIMIT 20"
            )
        ]
        nodes = [
            f"{node.node_id} pid {node.pid} {_state(node)} {node.process.poll()}: {node.log[-1500:]}"
            for node in self.nodes[-3:]
        ]
        return "\n".join([f"{self.open_tasks()} tasks are open at {time.time_ns() // 1_000_000}:", *lines, *nodes])

    def close(self) -> None:
        """End every process that was started for this site."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None
        for process in [*(node.process for node in self.nodes), *self.others]:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.kill(process.pid, signal.SIGCONT)
                process.kill()
                process.wait()
        for left in marked(self.mark):
            with contextlib.suppress(psutil.Error):
                left.kill()


def _state(node: NodeProcess) -> str:
    try:
        return psutil.Process(node.pid).status()
    except psutil.Error:
        return "gone"


def read_acknowledged(paths: Iterable[Path]) -> list[str]:
    """Return the task ids that clients wrote down; a last line without its end was cut off by a kill."""
    found = []
    for path in paths:
        if path.exists():
            found += [line for line in path.read_text().split("\n")[:-1] if line]
    return found


def history(site: Site, acknowledged: Iterable[str]) -> Counter[str]:
    """Check what must hold after any crash, once all tasks have ended; return how many tasks came to what."""
    known = dict(site.rows("SELECT task_id, status FROM tasks"))
    lost = [task_id for task_id in acknowledged if task_id not in known]
    assert not lost, f"{len(lost)} acknowledged tasks are not in the database: {lost[:5]}"
    assert not site.open_tasks(), site.report()

    stuck = site.rows("SELECT step_id, status, lease_owner FROM steps WHERE status IN ('RUNNING','RETRYING') LIMIT 5")
    assert not stuck, f"steps of ended tasks are still on their way: {stuck}"
    twice = site.rows("SELECT step_id, count(*) FROM witness_commit GROUP BY step_id HAVING count(*)<>1 LIMIT 5")
    assert not twice, f"steps with more than one committed outcome: {twice}"
    twice = site.rows("SELECT task_id, count(*) FROM witness_task GROUP BY task_id HAVING count(*)<>1 LIMIT 5")
    assert not twice, f"tasks that ended more than once: {twice}"
    unwitnessed = site.rows(
        "SELECT step_id FROM steps WHERE status IN ('SUCCESS','DEAD_LETTER','CANCELLED')"
        " AND step_id NOT IN (SELECT step_id FROM witness_commit) LIMIT 5"
    )
    assert not unwitnessed, f"steps that ended without a transition: {unwitnessed}"
    _check_witness(site)
    return Counter(known.values())


def _check_witness(site: Site) -> None:
    """Each lease was used once, and what was committed is what its last owner returned."""
    ran: dict[str, list[int]] = {}
    for line in site.ran():
        ran.setdefault(line.step_id, []).append(line.fence)
    shared = [step_id for step_id, fences in ran.items() if len(set(fences)) != len(fences)]
    assert not shared, f"steps that ran twice under one fencing token: {shared[:5]}"
    for step_id, output, epoch, cluster_epoch in site.rows(
        "SELECT step_id, result_payload, lease_epoch, cluster_epoch FROM steps"
        " WHERE status='SUCCESS' AND agent_id IN ('stamp','thread_stamp','script') AND map_template IS NULL"
    ):
        fence = json.loads(output)
        fence = fence["fence"] if isinstance(fence, dict) else fence
        assert fence == cluster_epoch << 32 | epoch, f"{step_id}: the output of owner {fence} was committed by {epoch}"
        assert fence in ran.get(step_id, ()), f"{step_id} was committed and did not run under {fence}"


def processes(pids: Iterable[int]) -> Iterator[psutil.Process]:
    """Yield those of these processes that live and are no zombies."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process
