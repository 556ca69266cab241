"""Kills at random moments over a running load. One seed is one order of victims; the moments are the machine's."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.integration import submitter
from tests.integration.harness import NodeProcess, Site, history, read_acknowledged

__all__ = ["Storm", "check_joins"]

NODES = ("a", "b")
CLIENTS = 2


class Storm:
    """Two nodes and two clients on one root, and somebody who kills them.

    pause_s: the shortest and longest time between two cycles.
    """

    def __init__(
        self, site: Site, seed: int, *, pause_s: tuple[float, float] = (0.2, 0.5), open_max: int = 150
    ) -> None:
        self.site = site
        self.seed = seed
        self.killed: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._pause_s = pause_s
        self._open_max = open_max
        self._nodes: dict[str, NodeProcess] = {}
        self._clients: dict[int, subprocess.Popen[bytes]] = {}
        self._acknowledged: list[Path] = []

    def run(self, cycles: int, *, on_cycle: Callable[[int], object] = lambda _: None) -> Counter[str]:
        """Kill ``cycles`` times, let the load end, check; return how many tasks came to what."""
        for node_id in NODES:
            self._start_node(node_id)
        for number in range(CLIENTS):
            self._start_client(number)
        self._nodes["a"].wait_up()
        for cycle in range(cycles):
            time.sleep(self._rng.uniform(*self._pause_s))
            (kill,) = self._rng.choices(
                (self._kill_node, self._kill_worker, self._kill_client, self._kill_both), weights=(3, 6, 3, 1)
            )
            kill()
            on_cycle(cycle)
        for client in self._clients.values():
            client.kill()
            client.wait()
        return self.check()

    def check(self) -> Counter[str]:
        for node_id, node in self._nodes.items():
            if node.process.poll() is not None:
                self._start_node(node_id)
        self.site.wait_done(120)
        acknowledged = read_acknowledged(self._acknowledged)
        assert acknowledged, "no client was ever answered"
        outcomes = history(self.site, acknowledged)
        check_joins(self.site)
        return outcomes

    def _start_node(self, node_id: str) -> None:
        self._nodes[node_id] = self.site.node(node_id, measured=False)

    def _start_client(self, number: int) -> None:
        path = self.site.folder / f"acknowledged.{number}.{len(self._acknowledged)}"
        self._acknowledged.append(path)
        self._clients[number] = self.site.start(
            "-m",
            "tests.integration.submitter",
            str(self.site.root),
            str(self.site.agents),
            str(self._rng.randrange(1 << 30)),
            str(path),
            str(self._open_max),
        )

    def _kill_node(self) -> None:
        self.killed["node"] += 1
        node_id = self._rng.choice(NODES)
        self._nodes[node_id].kill()
        self._start_node(node_id)

    def _kill_worker(self) -> None:
        workers = [worker for node in self._nodes.values() for worker in node.workers()]
        if not workers:
            return self._kill_client()  # all nodes are just starting
        self.killed["worker"] += 1
        with contextlib.suppress(psutil.Error):
            self._rng.choice(workers).kill()

    def _kill_client(self) -> None:
        self.killed["client"] += 1
        number = self._rng.randrange(CLIENTS)
        client = self._clients[number]
        # A client that ended by itself would hide an error that reached it.
        assert client.poll() is None, f"a client ended with status {client.returncode}"
        client.kill()
        client.wait()
        self._start_client(number)

    def _kill_both(self) -> None:
        """Both nodes at once, so that nobody is there to take over."""
        self.killed["both nodes"] += 1
        for node_id in NODES:
            self._nodes[node_id].kill()
        for node_id in NODES:
            self._start_node(node_id)


def check_joins(site: Site) -> None:
    """Every workflow that succeeded joined all of its parts, once, in order."""
    joins = site.rows(
        "SELECT s.step_id, s.result_payload FROM steps s JOIN tasks t USING(task_id)"
        " WHERE t.status='SUCCESS' AND s.step_id LIKE '%\\_join' ESCAPE '\\'"
    )
    wrong = [(step_id, output) for step_id, output in joins if submitter.joined(output) != submitter.JOINED]
    assert not wrong, f"joins that miss or repeat a part: {wrong[:3]}"
    copies = site.rows(
        "SELECT map_parent, count(*) FROM steps WHERE map_parent IS NOT NULL GROUP BY map_parent HAVING count(*)<>?",
        submitter.MAP_ITEMS,
    )
    assert not copies, f"maps that were spread out wrong: {copies[:3]}"
