"""Gossip by processes that live for a moment: real sockets, real roots, real keys."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

SECRET = "correct horse battery staple"
PATIENCE_S = 60.0


class Roots:
    """Some roots, each with a UDP port that was free a moment ago."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.started: list[subprocess.Popen[str]] = []

    def make(self, name: str, **settings: object) -> None:
        path = self.folder / name
        path.mkdir()
        (path / "relaymesh-settings.json").write_text(json.dumps(settings), encoding="utf-8")
        self.ports[name] = self._free_port()

    def start(self, name: str, *words: object, command: str = "gossip-sync") -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "relaymesh", "--root", str(self.folder / name), "--output", "json", command]
        argv += ["--node-id", name, "--bind-port", str(self.ports[name]), *map(str, words)]
        begun = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.started.append(begun)
        return begun

    def sync(self, seeds: dict[str, str], *words: object) -> dict[str, Any]:
        """Run one gossip-sync on each, at once; seeds: of each, names of others."""
        begun = {
            name: self.start(name, "--seeds", ",".join(self.at(other) for other in others.split()), *words)
            for name, others in seeds.items()
        }
        return {name: self.answer(process) for name, process in begun.items()}

    def answer(self, process: subprocess.Popen[str]) -> Any:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        return json.loads(out)

    def keys(self, name: str, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "relaymesh", "--root", str(self.folder / name), "--output", "json", "gossip-keys"]
        return subprocess.run([*argv, *words], input=stdin, capture_output=True, text=True, timeout=PATIENCE_S)

    def at(self, name: str) -> str:
        return f"127.0.0.1:{self.ports[name]}"

    def members(self, name: str) -> dict[str, str]:
        conn = sqlite3.connect(self.folder / name / "relaymesh.db")
        try:
            return dict(conn.execute("SELECT node_id, status FROM mesh_nodes").fetchall())
        finally:
            conn.close()

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def _free_port(self) -> int:
        with ExitStack() as held:
            while True:
                one = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                one.bind(("127.0.0.1", 0))
                port = int(one.getsockname()[1])
                if port not in self.ports.values():
                    return port


@pytest.fixture
def roots(tmp_path: Path) -> Iterator[Roots]:
    made = Roots(tmp_path)
    yield made
    made.end()


def test_two_roots_with_one_secret_accept_each_other_and_say_so(roots: Roots) -> None:
    for name in ("a", "b"):
        roots.make(name, gossipSharedSecret=SECRET)

    found = roots.sync({"a": "b", "b": "a"}, "--rounds", 4, "--window-ms", 700)

    assert found["a"]["accepted"] >= 1 and found["b"]["accepted"] >= 1
    assert found["a"]["roundsCompleted"] == 4 and len(found["a"]["ticks"]) == 4
    assert (found["a"]["memberCount"], roots.members("b")) == (2, {"a": "ALIVE", "b": "ALIVE"})
    rows = [json.loads(row) for row in (roots.folder / "a" / "audit" / "audit.log").read_text().splitlines()]
    ticks = [row for row in rows if row["action"] == "membership.gossip.tick"]
    (sync,) = [row for row in rows if row["action"] == "membership.gossip.sync"]
    assert len(ticks) == 4 and sync["details"]["accepted"] == found["a"]["accepted"]
    assert SECRET not in (roots.folder / "a" / "audit" / "audit.log").read_text()


def test_two_roots_with_different_secrets_count_each_other_invalid_and_change_nothing(roots: Roots) -> None:
    roots.make("a", gossipSharedSecret=SECRET)
    roots.make("b", gossipSharedSecret="another one, which is as long")

    found = roots.sync({"a": "b", "b": "a"}, "--rounds", 4, "--window-ms", 700)

    assert found["a"]["invalid"] + found["b"]["invalid"] >= 1
    assert found["a"]["accepted"] == found["b"]["accepted"] == 0
    assert roots.members("a") == {"a": "ALIVE"} and roots.members("b") == {"b": "ALIVE"}


@pytest.mark.slow
def test_the_ends_of_a_chain_hear_of_each_other_through_the_middle(roots: Roots) -> None:
    """a tells b, b passes it on to c. Nobody tells a."""
    for name in ("a", "b", "c"):
        roots.make(name, gossipSharedSecret=SECRET)

    found = roots.sync({"a": "b", "b": "c", "c": "b"}, "--rounds", 6, "--window-ms", 500, "--ttl", 2)

    assert found["b"]["relayed"] >= 1
    assert roots.members("c") == {"a": "ALIVE", "b": "ALIVE", "c": "ALIVE"}
    assert roots.members("a") == {"a": "ALIVE"}


@pytest.mark.slow
def test_a_packet_is_taken_once_also_by_the_next_process_of_the_root(roots: Roots) -> None:
    """Recorded by a stranger in the middle, and sent again and again."""
    for name in ("a", "b"):
        roots.make(name, gossipSharedSecret=SECRET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as middle:
        middle.bind(("127.0.0.1", 0))
        middle.settimeout(PATIENCE_S)
        begun = roots.start("a", "--seeds", f"127.0.0.1:{middle.getsockname()[1]}", command="gossip")
        recorded = middle.recv(2_000)
        roots.answer(begun)
        counts = []
        for _ in range(2):
            listening = roots.start("b", "--window-ms", 1_500, command="gossip")
            while listening.poll() is None:
                middle.sendto(recorded, ("127.0.0.1", roots.ports["b"]))
                time.sleep(0.02)
            counts.append(roots.answer(listening))

    assert [count["accepted"] for count in counts] == [1, 0]
    assert counts[1]["deduplicated"] == counts[1]["received"] >= 1
    assert counts[1]["relayed"] == counts[1]["invalid"] == 0


@pytest.mark.slow
def test_a_file_of_seeds_is_read_again_while_the_process_runs(roots: Roots, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        roots.make(name, gossipSharedSecret=SECRET)
    seeds = tmp_path / "seeds.txt"
    seeds.write_text(f"# first\nnonsense\n{roots.at('b')}\n", encoding="utf-8")
    a = roots.start(
        "a", "--seeds-file", seeds, "--once=false", "--interval-ms", 100, "--window-ms", 100, command="gossip"
    )
    first = roots.answer(roots.start("b", "--window-ms", 1_500, command="gossip"))

    aside = tmp_path / "new.txt"
    aside.write_text(f"{roots.at('c')}\n", encoding="utf-8")
    os.replace(aside, seeds)
    second = roots.answer(roots.start("c", "--window-ms", 1_500, command="gossip"))
    a.send_signal(signal.SIGTERM)
    out, err = a.communicate(timeout=PATIENCE_S)

    assert first["accepted"] >= 1 and second["accepted"] >= 1
    assert a.returncode == 0
    assert all(json.loads(line)["nodeId"] == "a" for line in out.splitlines())
    assert err.count("line 2") == 1


@pytest.mark.slow
def test_a_key_is_changed_while_both_roots_always_understand_each_other(roots: Roots) -> None:
    for name in ("a", "b"):
        roots.make(name, gossipSharedSecret=SECRET)
    stick = roots.folder / "stick"
    both, quick = {"a": "b", "b": "a"}, ("--rounds", 8, "--window-ms", 100, "--interval-ms", 100)

    def talk() -> None:
        found = roots.sync(both, *quick)
        assert found["a"]["accepted"] >= 1 and found["b"]["accepted"] >= 1
        assert found["a"]["invalid"] == found["b"]["invalid"] == 0

    talk()
    installed = json.loads(roots.keys("a", "install", "--generate", str(stick)).stdout)
    old, new = (key["keyId"] for key in installed["keys"])
    talk()
    early = roots.keys("a", "use", new)
    assert early.returncode == 1 and "gossip_key_needed" in early.stderr, early
    assert json.loads(roots.keys("b", "install", "--from", "-", stdin=stick.read_text()).stdout)["changed"]
    talk()
    assert json.loads(roots.keys("a", "use", new).stdout)["primaryKeyId"] == new
    talk()
    assert json.loads(roots.keys("b", "use", new).stdout)["primaryKeyId"] == new
    talk()
    refused = roots.keys("a", "remove", old)
    assert refused.returncode == 1 and "within the last 10 minutes" in refused.stderr
    for name in both:
        assert json.loads(roots.keys(name, "remove", old, "--force").stdout)["changed"]
    talk()

    (key,) = json.loads(roots.keys("a", "status").stdout)["keys"]
    assert (key["keyId"], key["confirmed"], key["users"]) == (new, 2, 2)
    secret = stick.read_text().strip()
    told = "".join(path.read_text(errors="replace") for path in roots.folder.glob("*/audit/*"))
    assert secret not in told and SECRET not in told


def test_seeds_where_nobody_is_do_no_harm_and_a_name_that_nobody_knows_counts_as_invalid(roots: Roots) -> None:
    roots.make("a")
    seeds = f"127.0.0.1:{roots.ports['a'] - 1},no-such-host.invalid:1,[::1]:1,nonsense"

    begun = roots.start("a", "--seeds", seeds, "--rounds", 1, "--window-ms", 100)
    out, err = begun.communicate(timeout=PATIENCE_S)

    found = json.loads(out)
    assert begun.returncode == 0 and "nonsense" in err
    assert "the seed no-such-host.invalid:1 is not told: no address is known of that host" in err
    assert "the seed [::1]:1 is not told: nothing can be sent there from 127.0.0.1:" in err
    assert (found["sent"], found["invalid"]) == (1, 2)


def test_open_gossip_stays_on_this_machine(roots: Roots) -> None:
    roots.make("a")

    ended = roots.start("a", "--bind", "0.0.0.0", "--rounds", 1)
    _, err = ended.communicate(timeout=PATIENCE_S)

    assert ended.returncode == 1
    assert "gossip_insecure" in err


def test_a_host_that_nobody_knows_is_called_that_and_not_unsafe(roots: Roots) -> None:
    roots.make("a")

    ended = roots.start("a", "--bind", "no-such-host.invalid", "--rounds", 1)
    _, err = ended.communicate(timeout=PATIENCE_S)

    assert ended.returncode == 1
    assert "gossip_bind" in err and "no address is known of it" in err


def test_a_port_that_is_taken_is_one_sentence(roots: Roots) -> None:
    roots.make("a")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", roots.ports["a"]))
        ended = roots.start("a", "--rounds", 1)
        _, err = ended.communicate(timeout=PATIENCE_S)

    assert ended.returncode == 1
    assert "gossip_bind" in err and "choose another --bind-port" in err


@pytest.mark.slow
def test_who_falls_silent_is_suspected_then_dead(roots: Roots) -> None:
    roots.make("a", leaseTimeoutMs=100, suspectAfterMs=1_500, deadAfterMs=3_000)
    roots.make("b")
    roots.sync({"a": "b", "b": "a"}, "--rounds", 3, "--window-ms", 500)
    assert roots.members("a")["b"] == "ALIVE"

    until = time.monotonic() + PATIENCE_S
    marked = {"suspectedNodesMarked": 0, "deadNodesMarked": 0}
    while not marked["deadNodesMarked"] and time.monotonic() < until:
        found = roots.answer(roots.start("a", "--rounds", 1, "--window-ms", 400))
        for field in marked:
            marked[field] += found[field]

    assert marked["deadNodesMarked"] == 1 and marked["suspectedNodesMarked"] <= 1
    assert roots.members("a") == {"a": "ALIVE", "b": "DEAD"}
