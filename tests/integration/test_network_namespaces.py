"""Two nodes in network namespaces of their own, with a cable between them that is cut: real interfaces, real routes.

The namespaces and the cable are made for this module, carry the id of its process, and are removed with it. Where the
machine does not allow that, these tests are left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import Site, eventually
from tests.integration.test_mesh import audited, mesh_of, paused, wait_live, words

pytestmark = pytest.mark.slow

PORT = 17_888
HOSTS = {"a": "10.203.77.1", "b": "10.203.77.2"}
BOTH = {"a": "ALIVE", "b": "ALIVE"}
SETTINGS = {
    "gossipSharedSecret": "a secret of this test",
    "suspectAfterMs": 4_000,
    "suspectRecoverMinMs": 200,
    "deadRecoverMinMs": 1_000,
}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


class Cable:
    """Two namespaces and a pair of interfaces that joins them."""

    def __init__(self) -> None:
        pid = os.getpid()
        self.spaces = {name: f"rmx-{pid}-{number}" for number, name in enumerate(HOSTS)}
        self.ends = {name: f"rmx{pid}{name}" for name in HOSTS}  # names of interfaces have at most 15 characters

    def lay(self) -> None:
        for space in self.spaces.values():
            ip("netns", "add", space)
            ip("netns", "exec", space, "ip", "link")
        first, second = (("name", self.ends[name], "netns", self.spaces[name]) for name in HOSTS)
        ip("link", "add", *first, "type", "veth", "peer", *second)
        for name, host in HOSTS.items():
            ip("-n", self.spaces[name], "link", "set", "lo", "up")
            ip("-n", self.spaces[name], "addr", "add", f"{host}/30", "dev", self.ends[name])
            ip("-n", self.spaces[name], "link", "set", self.ends[name], "up")

    def remove(self) -> None:
        """With the namespaces go the interfaces."""
        for space in self.spaces.values():
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True, timeout=30)

    # What a sends to b is thrown away; what b sends arrives.
    def cut_one_way(self) -> None:
        ip("-n", self.spaces["a"], "route", "add", "blackhole", f"{HOSTS['b']}/32")

    def mend_one_way(self) -> None:
        ip("-n", self.spaces["a"], "route", "del", "blackhole", f"{HOSTS['b']}/32")

    def pull(self) -> None:
        ip("-n", self.spaces["a"], "link", "set", self.ends["a"], "down")

    def plug(self) -> None:
        ip("-n", self.spaces["a"], "link", "set", self.ends["a"], "up")


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    if sys.platform != "linux" or shutil.which("ip") is None:
        pytest.skip("network namespaces are made with `ip` of Linux, which is not here")
    made = Cable()
    try:
        try:
            made.lay()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine does not allow network namespaces: {error.stderr.strip()}")
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def sites(cable: Cable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    folder: Path = tmp_path_factory.mktemp("namespaces")
    made = {name: Site(folder / name, settings=SETTINGS) for name in HOSTS}
    try:
        for name, other in (("a", "b"), ("b", "a")):
            made[name].node(
                name,
                concurrency=1,
                gossip=True,
                wrapper=("ip", "netns", "exec", cable.spaces[name]),
                options=(
                    *("--gossip-bind", HOSTS[name], "--gossip-port", str(PORT)),
                    *("--seeds", f"{HOSTS[other]}:{PORT}"),
                ),
            )
        for site in made.values():
            site.nodes[0].wait_up()
        yield made
    finally:
        for site in made.values():
            site.close()


def all_alive(sites: dict[str, Site]) -> None:
    eventually(lambda: all(words(site) == BOTH for site in sites.values()), what="both hold both ALIVE")
    for name, site in sites.items():
        wait_live(site, name, 1)


def test_nodes_in_two_namespaces_find_each_other_by_seeds_and_a_secret(sites: dict[str, Site]) -> None:
    all_alive(sites)

    for site in sites.values():
        addresses = dict(site.rows("SELECT node_id, address FROM mesh_members"))
        assert addresses == {name: f"{host}:{PORT}" for name, host in HOSTS.items()}


def test_a_cable_that_is_pulled_makes_each_dead_for_the_other_until_it_is_back(
    sites: dict[str, Site], cable: Cable
) -> None:
    all_alive(sites)

    cable.pull()
    try:
        for name, other in (("a", "b"), ("b", "a")):
            eventually(lambda n=name, o=other: words(sites[n])[o] == "DEAD", what=f"{other} is DEAD")  # type: ignore[misc]
            eventually(lambda n=name: paused(sites[n], n), what=f"{name} pauses")  # type: ignore[misc]
    finally:
        cable.plug()

    all_alive(sites)
    eventually(lambda: not any(paused(site, name) for name, site in sites.items()), what="both go on")


def test_of_two_nodes_of_which_one_is_not_heard_neither_holds_the_other_alive(
    sites: dict[str, Site], cable: Cable
) -> None:
    all_alive(sites)
    before = int(mesh_of(sites["a"], "a")["received"])

    cable.cut_one_way()
    try:
        eventually(lambda: words(sites["b"])["a"] == "DEAD", what="a is DEAD for b, which does not hear it")
        eventually(lambda: words(sites["a"])["b"] == "DEAD", what="b is DEAD for a, which has no answers")
        eventually(lambda: int(mesh_of(sites["a"], "a")["received"]) > before, what="a hears b all the same")
    finally:
        cable.mend_one_way()

    all_alive(sites)
    assert {entry["node"] for entry in audited(sites["b"], "membership.state")} == {"node/a"}
