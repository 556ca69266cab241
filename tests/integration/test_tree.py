"""A timeout and a hard cancel end all that an attempt started, daemons that got away by two forks included."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import Site, eventually, processes

GRACE_S = 0.5
# What the design promises on top of the grace time, and what a busy machine may add.
BOUND_S = GRACE_S + 2.0
SLACK_S = 1.5

SETSID_SCRIPT = """
import os, subprocess, sys, time
pids = sys.stdin.readline().strip()
with open(pids, "a") as file:
    file.write(f"{os.getpid()}\\n")
    file.flush()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ.clear()
            file.write(f"{os.getpid()}\\n")
            file.flush()
            time.sleep(600)
        os._exit(0)
time.sleep(600)
"""


def _family(pids: Path, count: int) -> list[int]:
    def found() -> list[int]:
        lines = pids.read_text().split("\n")[:-1] if pids.exists() else []
        return [int(line) for line in lines] if len(lines) >= count else []

    family: list[int] = eventually(found, what="the family is there")
    assert list(processes(family))
    return family


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    # Nobody's lease runs out, and no renewal comes by chance right after the cancel.
    return make_site(settings={"leaseTimeoutMs": 30_000})


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


def test_a_timeout_ends_the_whole_tree_of_a_python_agent(site: Site, pids: Path) -> None:
    site.node().wait_up()
    with site.client() as client:
        task_id = client.submit("family", {"pids": str(pids)}).task_id
        family = _family(pids, 2)
        started_ms = site.one("SELECT started_at_ms FROM steps")

        eventually(lambda: not list(processes(family)), within_s=15, what="the family is gone", every_s=0.01)

        took_s = time.time() - started_ms / 1000
        view = client.wait(task_id, timeout_ms=10_000)
    assert view.status == "DEAD_LETTER"
    assert "longer than its limit" in (view.last_error or "")
    assert took_s < 1.0 + BOUND_S + SLACK_S


def test_a_hard_cancel_ends_the_whole_tree_of_a_python_agent(site: Site, pids: Path) -> None:
    site.node().wait_up()
    with site.client() as client:
        task_id = client.submit("patient_family", {"pids": str(pids)}).task_id
        family = _family(pids, 2)

        began = time.monotonic()
        client.cancel(task_id)
        eventually(lambda: not list(processes(family)), within_s=15, what="the family is gone", every_s=0.01)

        assert time.monotonic() - began < BOUND_S + SLACK_S
        assert client.task(task_id).status == "CANCELLED"
        # The worker that was killed is replaced.
        assert client.wait(client.submit("stamp", {}).task_id, timeout_ms=20_000).status == "SUCCESS"


def test_a_hard_cancel_ends_the_whole_tree_of_a_script(site: Site, pids: Path, tmp_path: Path) -> None:
    import json
    import sys

    program = tmp_path / "script.py"
    program.write_text(SETSID_SCRIPT)
    entry = {"id": "daemon", "command": [sys.executable, str(program)], "graceMs": 500}
    (site.root / "agents" / "scripts.json").write_text(json.dumps({"agents": [entry]}))
    site.node().wait_up()
    with site.client() as client:
        task_id = client.submit("daemon", f"{pids}\n").task_id
        family = _family(pids, 2)

        began = time.monotonic()
        client.cancel(task_id)
        eventually(lambda: not list(processes(family)), within_s=15, what="the family is gone", every_s=0.01)

        assert time.monotonic() - began < BOUND_S + SLACK_S
