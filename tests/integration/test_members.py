"""Real nodes on one root: who takes over, what the commands say meanwhile, and a worker that is paused and goes on."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from relaymesh.store.root import DATABASE
from tests.integration.harness import REPO, NodeProcess, Site, eventually, history

SETTINGS = {"leaseTimeoutMs": 2_000, "suspectAfterMs": 2_500, "deadAfterMs": 4_000}


def document(site: Site, *words: str) -> Any:
    done = site.run(*words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def execute(site: Site, sql: str, *values: object) -> None:
    """As an operator with sqlite3 in his hand."""
    conn = sqlite3.connect(site.root / DATABASE, timeout=30)
    with conn:
        conn.execute(sql, values)
    conn.close()


def three(site: Site) -> dict[str, NodeProcess]:
    nodes = {name: site.node(name, concurrency=2) for name in ("a", "b", "c")}
    for node in nodes.values():
        node.wait_up()
    return nodes


def test_each_step_of_a_killed_node_is_taken_by_one_of_the_others_and_the_commands_tell_of_it(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings=SETTINGS)
    nodes = three(site)
    with site.client() as client:
        acknowledged = [
            client.submit("stamp", {"ms": 6_000}, idempotency_key=str(number)).task_id for number in range(6)
        ]
    eventually(lambda: len(site.ran()) == 6, what="six steps run")
    owners = dict(site.rows("SELECT lease_owner, count(*) FROM steps GROUP BY lease_owner"))
    assert owners == {"a": 2, "b": 2, "c": 2}
    before = document(site, "mesh-summary")

    nodes["b"].kill()

    eventually(lambda: not site.one("SELECT count(*) FROM steps WHERE lease_owner='b'"), what="the takeover")
    site.wait_done()
    assert history(site, acknowledged) == {"SUCCESS": 6}
    assert (before["aliveNodes"], before["runningByAliveOwners"]) == (3, 6)
    assert len(site.ran()) == 8
    # One of two took each step: nobody was refused.
    assert document(site, "lease-conflicts") == []
    assert sorted(site.rows("SELECT owner_deaths, count(*) FROM steps GROUP BY 1")) == [(0, 4), (1, 2)]
    eventually(lambda: site.one("SELECT status FROM mesh_nodes WHERE node_id='b'") == "DEAD", what="the verdict")
    members = {member["nodeId"]: member["status"] for member in document(site, "members")}
    assert members == {"a": "ALIVE", "b": "DEAD", "c": "ALIVE"}
    taken = [event for event in document(site, "ownership-events") if event["action"] == "ownership.recover.dead_node"]
    assert {event["nodeId"] for event in taken} == {"b"}
    assert sum(event["details"]["reclaimed"] for event in taken) == 2
    assert document(site, "stats")["deadOwnerReclaimedTotal"] == 2
    assert document(site, "mesh-prune", "--older-than-ms", "0")["pruned"] == 1
    assert [member["nodeId"] for member in document(site, "members")] == ["a", "c"]


def test_a_worker_whose_node_is_held_suspect_takes_nothing_says_why_and_goes_on_by_itself(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings={"suspectRecoverMinMs": 2_500, "suspectAfterMs": 15_000})
    words = [sys.executable, "-m", "relaymesh", "--root", str(site.root), "worker", "--node-id", "n"]
    worker = site.node("n", command=[*words, "--interval-ms", "200", "--concurrency", "1"])
    eventually(lambda: site.one("SELECT 1 FROM mesh_nodes WHERE node_id='n' AND generation=1"), what="it is up")
    at_ms = time.time_ns() // 1_000_000
    execute(site, "UPDATE mesh_nodes SET status='SUSPECT', status_changed_at_ms=?", at_ms)
    eventually(lambda: "paused: the local node n is SUSPECT" in worker.log, what="it says that it is paused")

    with site.client() as client:
        task_id = client.submit("echo", "later").task_id
        (why,) = client.explain(task_id)
        notes = client.health().notes
        site.wait_done()
        steps = client.query("SELECT started_at_ms FROM steps")

    assert why.reason == "node_paused"
    assert any("n is SUSPECT" in note for note in notes)
    assert steps[0][0] >= at_ms + 2_500
    assert "takes steps again" in worker.log
    assert document(site, "stats")["workerPausedTotal"] == 1
    rows = site.run("audit-query", "--action", "worker.pause.local_status").stdout.splitlines()
    assert [json.loads(row)["details"]["status"] for row in rows] == ["SUSPECT"]


@pytest.mark.slow
def test_the_demonstration_ends_well_and_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, str(REPO / "scripts" / "mesh_demo.py")], capture_output=True, text=True, timeout=120, cwd=REPO
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("is killed", "nothing was lost", "REFUSED", "All 2 tasks succeeded"):
        assert words in done.stdout
