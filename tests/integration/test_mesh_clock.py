"""The wall clock of one node of a mesh is an hour wrong, or jumps while it runs: nobody takes it for dead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import Site, eventually, history
from tests.integration.test_clock import HOUR_S, Clock
from tests.integration.test_mesh import audited, free_port, gossip, mesh_of, wait_live, wait_words, words

pytestmark = pytest.mark.slow

NAMES = ("a", "b", "c")
ALL_ALIVE = dict.fromkeys(NAMES, "ALIVE")
PACKETS = 8

MakeSite = Callable[..., Site]


def heard(site: Site, node_id: str) -> int:
    return int(mesh_of(site, node_id).get("received", 0))


def more_is_heard(site: Site, node_id: str) -> None:
    """Wait until a node has had so many more packets that each other was asked several times."""
    before = heard(site, node_id)
    eventually(lambda: heard(site, node_id) >= before + PACKETS, what=f"{node_id} hears more")


def test_a_node_whose_clock_is_an_hour_ahead_and_is_then_set_back_stays_a_member(
    make_site: MakeSite, tmp_path: Path
) -> None:
    clock, port = Clock(tmp_path), free_port()
    clock.set(HOUR_S)
    sites = {name: make_site(name, settings={"gossipSharedSecret": "a secret of this test"}) for name in NAMES}
    for name, site in sites.items():
        options = () if name == "a" else ("--seeds", f"127.0.0.1:{port}")
        environment = clock.environment if name == "c" else {}
        words_of = ("--gossip-port", str(port if name == "a" else 0), *options)
        site.node(name, concurrency=1, gossip=True, options=words_of, environment=environment).wait_up()
    for name, site in sites.items():
        wait_live(site, name, 2)
        wait_words(site, ALL_ALIVE)
    apart_ms = sites["c"].one("SELECT last_heartbeat_ms FROM mesh_nodes WHERE node_id='c'") - sites["a"].one(
        "SELECT last_heartbeat_ms FROM mesh_nodes WHERE node_id='a'"
    )

    for offset_s in (0, -HOUR_S):
        clock.set(offset_s)
        more_is_heard(sites["c"], "c")

    assert abs(apart_ms / 1000 - HOUR_S) < 60, "the shim did not move the clock"
    assert [words(site) for site in sites.values()] == [ALL_ALIVE] * 3
    said = {entry["current_status"] for site in sites.values() for entry in audited(site, "membership.state")}
    assert said == {"ALIVE"}
    with sites["c"].client() as client:
        assert client.wait(client.submit("echo", "x").task_id, timeout_ms=60_000).status == "SUCCESS"


def test_jumps_under_a_node_of_a_shared_root_take_no_step_from_anybody(make_site: MakeSite, tmp_path: Path) -> None:
    clock, site = Clock(tmp_path), make_site(settings={"leaseTimeoutMs": 2_000})
    gossip(site, "a").wait_up()
    site.node("c", concurrency=1, gossip=True, options=("--gossip-port", "0"), environment=clock.environment).wait_up()
    for name in ("a", "c"):
        wait_live(site, name, 1)

    ids: list[str] = []
    for jump_s in (HOUR_S, -HOUR_S):
        with site.client() as client:
            ids += [client.submit("stamp", {"ms": 5_000}, idempotency_key=f"{jump_s} {n}").task_id for n in range(2)]
        eventually(lambda: not site.rows("SELECT 1 FROM steps WHERE status='PENDING'"), what="the steps run")
        assert site.one("SELECT count(DISTINCT lease_owner) FROM steps WHERE status='RUNNING'") == 2
        clock.set(jump_s)
        site.wait_done()

    assert history(site, ids) == {"SUCCESS": 4}
    assert len(site.ran()) == 4, "a step was started again"
    assert site.rows("SELECT DISTINCT attempt, lease_epoch FROM steps") == [(1, 1)]
    assert site.rows("SELECT * FROM lease_conflicts") == []
    assert "DEAD" not in {entry["current_status"] for entry in audited(site, "membership.state")}
