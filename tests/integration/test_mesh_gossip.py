"""Nodes that run, and processes that live for a moment: ticks, seeds by file, and a change of the key without a gap."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import PATIENCE_S, Site, eventually
from tests.integration.test_mesh import free_port, gossip, mesh_of, wait_live, wait_words, words

pytestmark = pytest.mark.slow

SECRET = "a secret of this test"
SIGNED = {"gossipSharedSecret": SECRET}

MakeSite = Callable[..., Site]


def run(root: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relaymesh", "--root", str(root), "--output", "json", *words]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE_S)


def answer(ended: subprocess.CompletedProcess[str]) -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_tick_and_a_node_that_runs_hear_of_each_other_and_the_tick_is_never_probed(
    make_site: MakeSite, tmp_path: Path
) -> None:
    port, tick_root = free_port(), tmp_path / "tick"
    node, other = make_site("node", settings=SIGNED), make_site("other", settings=SIGNED)
    gossip(node, "a", port=port).wait_up()
    gossip(other, "b", "--seeds", f"127.0.0.1:{port}").wait_up()
    wait_live(node, "a", 1)
    tick_root.mkdir()
    (tick_root / "relaymesh-settings.json").write_text(json.dumps(SIGNED))

    def tick() -> Any:
        words = ("--node-id", "t", "--bind-port", str(free_port()), "--seeds", f"127.0.0.1:{port}")
        return answer(run(tick_root, "gossip-sync", *words, "--rounds", "2", "--window-ms", "500"))

    found = tick()

    assert found["accepted"] >= 1 and found["invalid"] == 0
    conn = sqlite3.connect(tick_root / "relaymesh.db")
    assert dict(conn.execute("SELECT node_id, status FROM mesh_nodes")) == {"a": "ALIVE", "b": "ALIVE", "t": "ALIVE"}
    conn.close()
    # It was passed on to the other node, and is a row in both tables; but no member that would be probed.
    for site in (node, other):
        wait_words(site, {"a": "ALIVE", "b": "ALIVE", "t": "ALIVE"})
        assert site.rows("SELECT 1 FROM mesh_members WHERE node_id='t'") == []
    wait_live(other, "b", 1)
    wait_live(node, "a", 1)


def test_a_file_of_seeds_is_read_again_by_a_node_that_runs(make_site: MakeSite, tmp_path: Path) -> None:
    port, seeds = free_port(), tmp_path / "seeds.txt"
    sites = {name: make_site(name, settings=SIGNED) for name in ("a", "b")}
    seeds.write_text("# nobody yet\nnonsense\n")
    b = gossip(sites["b"], "b", "--seeds-file", str(seeds)).wait_up()
    gossip(sites["a"], "a", port=port).wait_up()
    assert words(sites["b"]) == {"b": "ALIVE"}

    aside = tmp_path / "new.txt"
    aside.write_text(f"localhost:{port}\n")
    os.replace(aside, seeds)

    for site in sites.values():
        wait_words(site, {"a": "ALIVE", "b": "ALIVE"})
    assert b.log.count("line 2") == 1


def test_the_key_is_changed_in_phases_while_no_node_loses_another(make_site: MakeSite, tmp_path: Path) -> None:
    port, stick = free_port(), tmp_path / "stick"
    sites = {name: make_site(name, settings=SIGNED) for name in ("a", "b")}
    gossip(sites["a"], "a", port=port).wait_up()
    gossip(sites["b"], "b", "--seeds", f"127.0.0.1:{port}").wait_up()
    for name, site in sites.items():
        wait_live(site, name, 1)

    def keys(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        return run(sites[name].root, "gossip-keys", *words)

    def confirmed(name: str, key_id: str) -> tuple[int, int]:
        (key,) = [one for one in answer(keys(name, "status"))["keys"] if one["keyId"] == key_id]
        return key["confirmed"], key["users"]

    old, new = (key["keyId"] for key in answer(keys("a", "install", "--generate", str(stick)))["keys"])
    early = keys("a", "use", new)
    assert early.returncode == 1 and "gossip_key_needed" in early.stderr
    answer(keys("b", "install", "--from", str(stick)))
    for name in sites:
        eventually(lambda name=name: confirmed(name, new)[0] == 2, what=f"{name} hears that both hold the key")  # type: ignore[misc]
        answer(keys(name, "use", new))
    for name in sites:
        eventually(lambda name=name: confirmed(name, new)[1] == 2, what=f"{name} sees that both use the key")  # type: ignore[misc]
    refused = keys("a", "remove", old)
    assert refused.returncode == 1 and "within the last 10 minutes" in refused.stderr
    for name in sites:
        answer(keys(name, "remove", old, "--force"))

    def both_use_it_alone() -> bool:
        return all([key["keyId"] for key in answer(keys(name, "status"))["keys"]] == [new] for name in sites)

    assert both_use_it_alone()
    for name, site in sites.items():
        wait_live(site, name, 1)
        assert words(site) == {"a": "ALIVE", "b": "ALIVE"}
        refused_packets = mesh_of(site, name)["refused"]
        assert not {"unknown_key", "wrong_code"} & set(refused_packets), refused_packets
        with site.client() as client:
            states = [json.loads(row)["result"] for row in client.audit_query(action="membership.state")]
        assert set(states) <= {"alive"}
    assert SECRET not in "".join(node.log for site in sites.values() for node in site.nodes)
