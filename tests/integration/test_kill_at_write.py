"""A node is killed before and after each of its writes in turn: the next one brings the workflow to its right end."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.harness import AGENTS, MARK, REPO, Site, eventually, history, marked, plain_environment

# Ten steps: every kind of agent, a retry, a map over a list that a step puts out, two joins.
WORKFLOW = {
    "steps": [
        {"id": "root", "agent": "say", "input": "[0,1,2]"},
        {"id": "stamp", "agent": "stamp", "input": {"in": {"$from": "root"}}},
        {"id": "thread", "agent": "thread_stamp", "input": {"in": "t"}, "dependsOn": ["root"]},
        {"id": "script", "agent": "script", "input": "1\n", "dependsOn": ["root"]},
        {"id": "retried", "agent": "fail_once", "input": "again", "dependsOn": ["root"]},
        {"id": "each", "agent": "stamp", "map": {"$from": "root"}, "input": {"in": {"$item": ""}}},
        {"id": "first", "agent": "say", "input": "{{steps.stamp.output.in}} {{steps.retried.output}}"},
        {"id": "second", "agent": "say", "input": {"each": {"$from": "each"}, "t": {"$from": "thread", "path": "/in"}}},
        {"id": "third", "agent": "say", "input": "x", "dependsOn": ["script"], "priority": "high"},
        {"id": "end", "agent": "say", "dependsOn": ["third"], "input": [{"$from": "first"}, {"$from": "second"}]},
    ]
}
KILLED = -9


class KillServer:
    """A process that forks nodes which die when they are told to; they and all that they start carry the mark."""

    def __init__(self, mark: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.kill_server", str(AGENTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPO,
            env={**plain_environment(), MARK: mark},
            text=True,
        )

    def run(self, root: Path, at: int = 0, when: str = "before") -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{root} {at} {when}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def template(make_site: Callable[..., Site]) -> Site:
    return make_site("template")


@pytest.fixture
def servers(template: Site) -> Iterator[list[KillServer]]:
    servers = [KillServer(template.mark), KillServer(template.mark)]
    yield servers
    for server in servers:
        server.close()


def test_a_workflow_ends_right_whichever_write_its_node_is_killed_at(
    make_site: Callable[..., Site], template: Site, servers: list[KillServer]
) -> None:
    with template.client() as client:
        task_id = client.submit_workflow(WORKFLOW).task_id

    def sweep(server: KillServer, when: str) -> int:
        """Kill at write 1, 2, 3, ... until the workflow ends before the kill; return how many were there."""
        for at in itertools.count(1):
            site = make_site(f"{when}-{at}", copy_of=template)
            status = server.run(site.root, at, when)
            assert status in (KILLED, 0), f"{when} {at}: {status}"
            if status == KILLED:
                assert server.run(site.root) == 0, f"killed {when} write {at}: {site.report()}"
            _check(site, task_id, f"killed {when} write {at}")
            site.close()
            if status == 0:
                return at - 1
        raise AssertionError

    with ThreadPoolExecutor() as pool:
        before, after = pool.map(sweep, servers, ("before", "after"))

    print(f"{before} and {after} writes")
    assert min(before, after) >= 10
    for server in servers:
        server.close()
    eventually(lambda: not marked(template.mark), within_s=5, what=f"no worker is left of {marked(template.mark)}")


def _check(site: Site, task_id: str, what: str) -> None:
    assert history(site, [task_id]) == {"SUCCESS": 1}, what
    (output,) = site.rows("SELECT result_payload FROM steps WHERE step_id LIKE '%\\_end' ESCAPE '\\'")[0]
    first, second = json.loads(output)
    assert first == "[0,1,2] again", what
    assert [each["in"] for each in second["each"]] == [0, 1, 2], what
    assert second["t"] == "t", what
    assert site.one("SELECT count(*) FROM steps") == len(WORKFLOW["steps"]) + 3, what
    # The failed attempt counts, whatever was killed; the kills do not.
    assert site.one("SELECT attempt FROM steps WHERE step_id LIKE '%\\_retried' ESCAPE '\\'") == 2, what
    assert site.one("SELECT max(attempt) FROM steps WHERE step_id NOT LIKE '%\\_retried' ESCAPE '\\'") == 1, what
