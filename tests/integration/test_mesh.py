"""Real nodes on loopback find each other, notice who is gone, and say so.

Nothing here is timed: each wait ends when what it waits for is there, and fails after a minute.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.harness import NodeProcess, Site, eventually

pytestmark = pytest.mark.slow

SECRET = "a secret of this test"
QUICK = {"suspectRecoverMinMs": 200, "deadRecoverMinMs": 2_000}

MakeSite = Callable[..., Site]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def words(site: Site) -> dict[str, str]:
    """Return the status of each member in the table of a root."""
    return dict(site.rows("SELECT node_id, status FROM mesh_nodes"))


def wait_words(site: Site, wanted: dict[str, str]) -> None:
    eventually(lambda: words(site) == wanted, what=f"{wanted} instead of {words(site)}")


def mesh_of(site: Site, node_id: str) -> dict[str, Any]:
    """Return what a node reports about its mesh, empty before its first report."""
    path = site.root / "run" / f"{node_id}.metrics"
    try:
        mesh: dict[str, Any] = json.loads(path.read_text())["mesh"]
    except FileNotFoundError:
        return {}
    return mesh


def paused(site: Site, node_id: str) -> str:
    """Return why the worker of a node takes nothing, as its report says."""
    return str(json.loads((site.root / "run" / f"{node_id}.metrics").read_text()).get("paused", ""))


def wait_live(site: Site, node_id: str, live: int) -> None:
    eventually(lambda: mesh_of(site, node_id).get("live") == live, what=f"{node_id} sees {live} others")


def audited(site: Site, action: str) -> list[dict[str, Any]]:
    with site.client() as client:
        entries = [json.loads(line) for line in client.audit_query(action=action)]
    return [entry["details"] | {"node": entry["resource"]} for entry in entries]


def runs_a_task(site: Site) -> bool:
    with site.client() as client:
        return client.wait(client.submit("echo", "x").task_id, timeout_ms=60_000).status == "SUCCESS"


def gossip(site: Site, node_id: str, *options: str, port: int = 0) -> NodeProcess:
    return site.node(node_id, concurrency=1, gossip=True, options=("--gossip-port", str(port), *options))


def test_nodes_of_one_root_find_each_other_and_notice_a_death_and_an_orderly_end(make_site: MakeSite) -> None:
    site = make_site(settings=QUICK)
    nodes = {name: gossip(site, name).wait_up() for name in ("a", "b", "c")}
    for name in nodes:
        wait_live(site, name, 2)

    nodes["c"].kill()
    wait_words(site, {"a": "ALIVE", "b": "ALIVE", "c": "DEAD"})
    assert nodes["b"].terminate() == 0
    wait_words(site, {"a": "ALIVE", "b": "LEFT", "c": "DEAD"})
    wait_live(site, "a", 0)

    eventually(lambda: "member c at 127.0.0.1:" in nodes["a"].log + nodes["b"].log, what="its death is logged")
    states = [(entry["node"], entry["current_status"]) for entry in audited(site, "membership.state")]
    assert states.count(("node/c", "DEAD")) == 1  # two nodes have seen it, one has written it
    assert {node for node, _ in states} == {"node/c"}
    assert runs_a_task(site)


def test_nodes_of_three_roots_find_each_other_by_seeds_and_a_secret(make_site: MakeSite) -> None:
    port = free_port()
    sites = {name: make_site(name, settings={**QUICK, "gossipSharedSecret": SECRET}) for name in ("a", "b", "c")}
    seeds = ("--seeds", f"127.0.0.1:{port}")
    nodes = {
        name: gossip(site, name, *(() if name == "a" else seeds), port=port if name == "a" else 0).wait_up()
        for name, site in sites.items()
    }
    for name, site in sites.items():
        wait_live(site, name, 2)
        wait_words(site, {"a": "ALIVE", "b": "ALIVE", "c": "ALIVE"})

    nodes["c"].kill()
    for name in ("a", "b"):
        wait_words(sites[name], {"a": "ALIVE", "b": "ALIVE", "c": "DEAD"})

    nodes["c"] = gossip(sites["c"], "c", *seeds).wait_up()
    for name in ("a", "b"):
        wait_words(sites[name], {"a": "ALIVE", "b": "ALIVE", "c": "ALIVE"})

    assert nodes["b"].terminate() == 0
    for name in ("a", "c"):
        wait_words(sites[name], {"a": "ALIVE", "b": "LEFT", "c": "ALIVE"})
    with sites["a"].client() as client:
        shown = {member.node_id: member for member in client.status().members}
    assert shown["c"].address is not None and shown["c"].rtt_ms is not None
    assert shown["c"].generation >= 2 and shown["c"].host is None
    assert SECRET not in "".join(node.log for node in nodes.values())


def test_who_has_another_secret_never_joins_and_is_counted(make_site: MakeSite) -> None:
    port = free_port()
    ours = make_site("ours", settings={"gossipSharedSecret": SECRET})
    theirs = make_site("theirs", settings={"gossipSharedSecret": "another secret"})
    gossip(ours, "a", port=port).wait_up()
    gossip(theirs, "b", "--seeds", f"127.0.0.1:{port}").wait_up()

    eventually(lambda: mesh_of(ours, "a").get("refused", {}).get("unknown_key", 0) >= 1, what="refused packets")

    assert mesh_of(ours, "a")["live"] == mesh_of(theirs, "b")["live"] == 0
    assert words(ours) == {"a": "ALIVE"}
    with ours.client() as client:
        assert 'relaymesh_gossip_invalid_total{node="a",reason="unknown_key"}' in client.metrics()
        (note,) = eventually(lambda: client.status().health.notes, what="the console says so")
        assert note.startswith("node a: ") and "calls with another secret" in note


def test_a_port_that_is_taken_is_left_to_whoever_has_it(make_site: MakeSite) -> None:
    site = make_site()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = int(other.getsockname()[1])
        gossip(site, "a", port=taken).wait_up()
        address = eventually(lambda: mesh_of(site, "a").get("address"), what="it is bound")

    assert taken < int(address.rpartition(":")[2]) < taken + 32


@pytest.mark.parametrize(
    ("host", "reason"), [("192.0.2.1", "gossip cannot use 192.0.2.1"), ("0.0.0.0", "set gossipSharedSecret")]
)
def test_a_node_that_cannot_or_must_not_bind_says_so_and_works(make_site: MakeSite, host: str, reason: str) -> None:
    site = make_site()
    node = gossip(site, "a", "--gossip-bind", host).wait_up()
    eventually(lambda: mesh_of(site, "a").get("problem"), what="it says so")

    with site.client() as client:
        health = client.health()
        metrics = client.metrics()

    assert health.ok
    assert any(reason in note for note in health.notes)
    node.wait_logged(reason)
    assert 'relaymesh_gossip_bound{node="a"} 0' in metrics
    assert runs_a_task(site)
    assert node.terminate() == 0


def test_of_two_live_nodes_with_one_id_the_later_generation_goes_on_and_the_other_says_so(make_site: MakeSite) -> None:
    port = free_port()
    older = make_site("older", settings={"gossipSharedSecret": SECRET})
    newer = make_site("newer", settings={"gossipSharedSecret": SECRET})
    gossip(newer, "twin", port=port).wait_up().terminate()
    gossip(newer, "twin", port=port).wait_up()
    loser = gossip(older, "twin", "--seeds", f"127.0.0.1:{port}").wait_up()

    eventually(lambda: mesh_of(older, "twin").get("pause"), what="it says so")

    assert "another live node has this node id" in mesh_of(older, "twin")["pause"]
    loser.wait_logged("has the node id twin and the better right to it")
    assert mesh_of(newer, "twin")["pause"] == ""
    eventually(lambda: "another live node" in paused(older, "twin"), what="its worker is paused")
    with older.client() as client:
        assert any("another live node" in note for note in client.health().notes)
        assert client.task(client.submit("echo", "x").task_id).status == "PENDING"
    assert runs_a_task(newer)


def test_when_the_other_node_of_its_id_is_killed_the_one_that_gave_way_goes_on_by_itself(make_site: MakeSite) -> None:
    port = free_port()
    # Short, and long enough for a machine that is busy: a node that beats late would be held for its dwell time.
    short = {"leaseTimeoutMs": 2_000, "suspectAfterMs": 3_000, "deadAfterMs": 6_000}
    settings = {**QUICK, **short, "gossipSharedSecret": SECRET}
    older, newer = make_site("older", settings=settings), make_site("newer", settings=settings)
    gossip(newer, "twin", port=port).wait_up().terminate()
    winner = gossip(newer, "twin", port=port).wait_up()
    loser = gossip(older, "twin", "--seeds", f"127.0.0.1:{port}").wait_up()
    eventually(lambda: mesh_of(older, "twin").get("pause"), what="it says so")
    eventually(lambda: "another live node" in paused(older, "twin"), what="its worker is paused")
    with older.client() as client:
        waiting = client.submit("echo", "x").task_id

        winner.kill()

        assert client.wait(waiting, timeout_ms=60_000).status == "SUCCESS"
        eventually(
            lambda: not any("another live node" in note for note in client.health().notes), what="health is well"
        )
    loser.wait_logged("this one takes steps again")


def test_a_node_that_stood_still_is_suspected_and_alive_again_when_it_goes_on(make_site: MakeSite) -> None:
    site = make_site(settings=QUICK)
    gossip(site, "a").wait_up()
    node = gossip(site, "b").wait_up()
    wait_live(site, "a", 1)

    node.signal(signal.SIGSTOP)
    eventually(lambda: words(site)["b"] in ("SUSPECT", "DEAD"), what="b is suspected")
    node.signal(signal.SIGCONT)

    wait_words(site, {"a": "ALIVE", "b": "ALIVE"})


def test_nodes_over_ipv6_find_each_other(make_site: MakeSite) -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    site = make_site()
    for name in ("a", "b"):
        gossip(site, name, "--gossip-bind", "::1").wait_up()

    wait_live(site, "a", 1)
    wait_live(site, "b", 1)

    assert mesh_of(site, "a")["address"].startswith("[::1]:")
