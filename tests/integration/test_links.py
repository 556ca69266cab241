"""Real nodes of three roots over links that lose, delay, bend and cut: who is held dead, and who is not.

Nothing here is timed: each wait ends when the proxy or the nodes have counted what the test is about.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from chaos.checker import check
from chaos.finding import bounds_of
from chaos.history import read
from chaos.proxy import CLEAR, Proxy
from chaos.sim.network import CHANCE, Link
from tests.integration.harness import REPO, Site, eventually, plain_environment
from tests.integration.test_mesh import audited, free_port, gossip, mesh_of, paused, wait_live, words

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")
A, B, C = 0, 1, 2
ALL_ALIVE = dict.fromkeys(NAMES, "ALIVE")
SETTINGS = {
    "gossipSharedSecret": "a secret of this test",
    "suspectAfterMs": 4_000,
    "suspectRecoverMinMs": 200,
    "deadRecoverMinMs": 1_000,
}


class Mesh:
    """Three roots with a node each, and the proxy between them."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in NAMES]
        self.proxy = Proxy(ports, seed=7)
        self.sites = {name: Site(folder / name, settings=SETTINGS) for name in NAMES}
        for number, name in enumerate(NAMES):
            seeds = ",".join(face for face in self.proxy.faces if face != self.proxy.faces[number])
            options = ("--advertise", self.proxy.faces[number], "--seeds", seeds)
            gossip(self.sites[name], name, *options, port=ports[number])
        for site in self.sites.values():
            site.nodes[0].wait_up()

    def calm(self) -> None:
        """Mend all links, and wait until all hold all ALIVE."""
        self.proxy.lift_all()
        self.proxy.set_base(CLEAR)
        eventually(lambda: all(words(site) == ALL_ALIVE for site in self.sites.values()), what="all are ALIVE")
        for name, site in self.sites.items():
            wait_live(site, name, 2)

    def total(self, what: str) -> int:
        return self.proxy.total()[what]

    def deaths(self) -> list[tuple[str, str]]:
        """Return who was held dead by whom."""
        return [
            (entry["observer"], entry["node"])
            for site in self.sites.values()
            for entry in audited(site, "membership.state")
            if entry["current_status"] == "DEAD"
        ]

    def records(self) -> dict[str, set[tuple[str, int, str]]]:
        """Return what each root holds of whom."""
        sql = "SELECT node_id, generation, state FROM mesh_members"
        return {name: set(site.rows(sql)) for name, site in self.sites.items()}

    def refused(self, reason: str) -> int:
        return sum(mesh_of(site, name).get("refused", {}).get(reason, 0) for name, site in self.sites.items())

    def close(self) -> None:
        for site in self.sites.values():
            site.close()
        self.proxy.close()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("links"))
    yield made
    made.close()


@pytest.fixture
def mesh(started: Mesh) -> Mesh:
    """Return the one mesh of this module, calm."""
    started.calm()
    return started


def test_every_packet_passes_the_proxy_and_every_node_is_known_by_its_face(mesh: Mesh) -> None:
    for number, name in enumerate(NAMES):
        for site in mesh.sites.values():
            assert site.one("SELECT address FROM mesh_members WHERE node_id=?", name) == mesh.proxy.faces[number]
    assert mesh.total("strangers") == 0
    links = [(source, target) for source in range(3) for target in range(3) if source != target]
    assert all(mesh.proxy.counts(*link)["delivered"] for link in links)


def test_over_links_that_lose_a_fifth_and_take_their_time_nobody_is_held_dead(mesh: Mesh) -> None:
    before, lost = mesh.deaths(), mesh.total("lost")

    mesh.proxy.set_base(Link(CHANCE // 5, floor_us=10_000, mean_us=2_000))
    eventually(lambda: mesh.total("lost") >= lost + 30, what="packets are lost")

    assert mesh.deaths() == before
    eventually(lambda: all(words(site) == ALL_ALIVE for site in mesh.sites.values()), what="all are ALIVE")


def test_who_is_not_heard_by_one_is_vouched_for_by_others(mesh: Mesh) -> None:
    before, cut = mesh.deaths(), mesh.proxy.counts(A, B)["cut"]

    mesh.proxy.cut("a to b", [A], [B], one_way=True)
    eventually(lambda: mesh.proxy.counts(A, B)["cut"] >= cut + 32, what="packets of a to b are lost")

    assert mesh.deaths() == before
    assert "DEAD" not in {**words(mesh.sites["a"]), **words(mesh.sites["b"])}.values()


def test_who_is_cut_off_is_dead_for_the_others_pauses_and_comes_back(mesh: Mesh) -> None:
    a, b, c = mesh.sites.values()

    mesh.proxy.cut("c", [C], [A, B])
    for site in (a, b):
        eventually(lambda site=site: words(site)["c"] == "DEAD", what="c is DEAD for others")  # type: ignore[misc]
    eventually(lambda: paused(c, "c"), what="c pauses")
    with c.client() as client:
        waits = client.submit("echo", "x").task_id
        open_while_cut = client.task(waits).status
    mesh.proxy.lift("c")

    eventually(lambda: not paused(c, "c"), what="c goes on")
    with c.client() as client:
        assert client.wait(waits, timeout_ms=60_000).status == "SUCCESS"
    assert open_while_cut == "PENDING"
    eventually(lambda: all(words(site) == ALL_ALIVE for site in mesh.sites.values()), what="all are ALIVE")
    assert {("a", "node/c"), ("b", "node/c")} <= set(mesh.deaths())


def test_packets_that_are_bent_repeated_and_out_of_order_are_counted_and_change_nothing(mesh: Mesh) -> None:
    before, deaths, wrong = mesh.records(), mesh.deaths(), mesh.refused("wrong_code")
    replayed = mesh.refused("replayed")

    # Of each packet a whole one arrives as well: what is lost is not what this is about.
    mesh.proxy.set_base(Link(0, 100, 300, duplicate=CHANCE, reorder=CHANCE // 4, corrupt=CHANCE // 2))
    eventually(lambda: mesh.refused("wrong_code") >= wrong + 8, what="bent packets are refused")
    eventually(lambda: mesh.refused("replayed") >= replayed + 8, what="repeated packets are refused")

    assert mesh.records() == before
    assert mesh.deaths() == deaths


def _command(tmp_path: Path, scenario: dict[str, Any], *options: str) -> subprocess.Popen[str]:
    file = tmp_path / "scenario.json"
    file.write_text(json.dumps(scenario))
    words = ["procs", "--scenario", str(file), "--keep", str(tmp_path / "kept"), *options]
    return subprocess.Popen(
        [sys.executable, "-m", "relaymesh", "chaos", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPO,
        env=plain_environment(),
    )


def _left(folder: Path) -> list[psutil.Process]:
    """Return the processes that work on roots below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in word for word in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_scenario_on_real_processes_is_recorded_checked_and_leaves_nothing_behind(tmp_path: Path) -> None:
    scenario = {
        "nodes": 2,
        "seconds": 6,
        "work": {"steps": 6, "for": 4_000, "leaseMs": 2_000},
        "method": [
            {"at": 500, "for": 1_000, "fault": "slow", "nodes": [0], "ms": 100},
            {"at": 1_500, "for": 3_000, "fault": "crash", "nodes": [1]},
        ],
    }
    history = tmp_path / "history.jsonl"

    ran = _command(tmp_path, scenario, "--one-root", "--history", str(history))
    output, error = ran.communicate(timeout=150)

    assert ran.returncode == 0, output + error
    figures = json.loads(output)
    events = read(history)
    assert figures["steps"] == figures["commits"] == 6
    assert [entry["node"] for entry in figures["gone"]] == ["node-0001"]
    assert figures["leftOut"] == ["slow at 500: processes are not slowed down"]
    starts = [event.value["generation"] for event in events if event.f == "start" and event.node == "node-0001"]
    assert len(starts) == 2 and starts[0] < starts[1]
    assert check(events, bounds_of(events)) == [] and events[-1].value == {"nodes": ["node-0000", "node-0001"]}
    assert _left(tmp_path / "kept") == []


def test_a_run_that_is_told_to_end_again_and_again_ends_its_nodes(tmp_path: Path) -> None:
    scenario = {"nodes": 2, "seconds": 600, "method": [{"at": 0, "fault": "pause", "nodes": [0]}]}
    ran = _command(tmp_path, scenario)
    kept = tmp_path / "kept"

    def stands_still() -> bool:
        assert ran.poll() is None, ran.communicate()
        return any(process.status() == psutil.STATUS_STOPPED for process in _left(kept))

    try:
        eventually(stands_still, what="a node stands still")

        def ended() -> bool:
            ran.send_signal(signal.SIGTERM)
            return ran.poll() is not None

        eventually(ended, what="it has ended")
    finally:
        ran.kill()
        ran.communicate()

    assert ran.returncode == 143
    assert _left(kept) == []
