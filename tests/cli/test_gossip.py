"""The commands about gossip: what they hand on, and how a secret gets in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relaymesh import Client
from relaymesh.errors import RelayMeshError
from relaymesh.gossip.key import GossipKeyError
from relaymesh.gossip_view import GossipKeysOutcome, GossipSyncOutcome, GossipTickOutcome

TICK = GossipTickOutcome(
    node_id="a",
    bind_port=17_888,
    sent=1,
    relayed=0,
    received=2,
    accepted=2,
    deduplicated=0,
    invalid=0,
    fanout=3,
    ttl=2,
    dedup_cache_size=2,
    suspected_nodes_marked=0,
    dead_nodes_marked=0,
)
KEYS = GossipKeysOutcome(
    signing=True,
    source="settings",
    primary_key_id="0a1b2c3d",
    differs=False,
    key_file="k",
    alive_members=0,
    changed=True,
    message="",
    keys=(),
)


class Keys:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any, **options: Any) -> GossipKeysOutcome:
            self.asked.append((name, *args, *options.values()))
            return KEYS

        return method


@pytest.fixture
def keys(terminal: Any) -> Keys:
    made = Keys()
    vars(terminal.client)["gossip_keys"] = made
    return made


def test_a_tick_is_printed_with_the_fields_of_the_reference_in_order(terminal: Any) -> None:
    terminal.answers(gossip=TICK)

    ended = terminal.run("gossip", "--node-id", "a", "--seeds", "b:1,[::1]:2", "--seeds", "c:3", "--fanout", "-1")

    assert ended.status == 0
    assert list(ended.document) == [
        *("nodeId", "bindPort", "sent", "relayed", "received", "accepted", "deduplicated", "invalid", "fanout", "ttl"),
        *("dedupCacheSize", "suspectedNodesMarked", "deadNodesMarked"),
    ]
    _, options = terminal.asked("gossip")
    options.pop("say")
    assert options == {
        "node_id": "a",
        "bind": "127.0.0.1",
        "bind_port": 17_888,
        "seeds": ("b:1", "[::1]:2", "c:3"),
        "seeds_file": None,
        "window_ms": 300,
        "fanout": -1,
        "ttl": -1,
    }


def test_a_sync_is_printed_with_the_fields_of_the_reference_in_order(terminal: Any) -> None:
    sums = {"node_id": "a", "bind_port": 1, "sent": 1, "relayed": 0, "received": 2, "accepted": 2, "deduplicated": 0}
    marks = {"invalid": 0, "suspected_nodes_marked": 0, "dead_nodes_marked": 0}
    terminal.answers(gossip_sync=GossipSyncOutcome(rounds_completed=1, member_count=2, ticks=(TICK,), **sums, **marks))

    ended = terminal.run("gossip-sync", "--rounds", "1")

    assert list(ended.document) == [
        *("nodeId", "bindPort", "roundsCompleted", "sent", "relayed", "received", "accepted", "deduplicated"),
        *("invalid", "suspectedNodesMarked", "deadNodesMarked", "memberCount", "ticks"),
    ]
    _, options = terminal.asked("gossip_sync")
    assert (options["rounds"], options["interval_ms"], options["window_ms"]) == (1, 250, 1_200)


def test_a_person_gets_a_table_of_the_ticks_of_a_sync_and_no_python(terminal: Any) -> None:
    sums = {name: getattr(TICK, name) for name in ("node_id", "bind_port", "sent", "relayed", "received", "accepted")}
    more = {name: getattr(TICK, name) for name in ("deduplicated", "invalid", "suspected_nodes_marked")}
    outcome = GossipSyncOutcome(
        rounds_completed=2, member_count=2, ticks=(TICK, TICK), dead_nodes_marked=0, **sums, **more
    )
    terminal.answers(gossip_sync=outcome)

    out = terminal.run("--output", "table", "gossip-sync").out

    assert "GossipTickOutcome" not in out
    (head,) = [line for line in out.splitlines() if "relayed" in line and "received" in line]
    assert head.split() == ["sent", "relayed", "received", "accepted", "deduplicated", "invalid"]


def test_a_person_whose_tick_heard_nobody_is_told_what_that_takes(
    terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymesh.cli.call.at_terminal", lambda _: True)
    terminal.answers(gossip=msgspec.structs.replace(TICK, sent=1, received=0))
    alone = terminal.run("gossip")
    terminal.answers(gossip=TICK)
    heard = terminal.run("gossip")

    assert alone.err.startswith("Nothing was heard. Ticks hear each other while both listen")
    assert heard.err == ""


def test_a_loop_prints_a_line_for_each_tick(terminal: Any) -> None:
    terminal.answers(gossip_ticks=[TICK, TICK])

    ended = terminal.run("gossip", "--once=false")

    assert [line["received"] for line in ended.lines] == [2, 2]


def test_what_is_wrong_with_a_seed_is_told_on_stderr(terminal: Any) -> None:
    def tick(**options: Any) -> GossipTickOutcome:
        options["say"]("a seed is left out")
        return TICK

    terminal.answers(gossip=tick)

    ended = terminal.run("gossip")

    assert ended.err == "a seed is left out\n"
    assert ended.document["nodeId"] == "a"


@pytest.mark.parametrize(
    "words", [("--bind-port", "0"), ("--bind-port", "65536"), ("--window-ms", "99"), ("--interval-ms", "-1")]
)
def test_a_number_out_of_range_is_wrong_usage(terminal: Any, words: tuple[str, ...]) -> None:
    assert terminal.run("gossip", *words).status == 2


def test_a_secret_is_made_into_a_new_file_that_only_its_owner_reads(terminal: Any, keys: Keys, tmp_path: Path) -> None:
    path = tmp_path / "mesh-key"

    ended = terminal.run("gossip-keys", "install", "--generate", str(path))

    secret = path.read_text().strip()
    assert ended.status == 0
    assert keys.asked == [("install", secret)] and len(secret) >= 40
    assert secret not in ended.out + ended.err
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600
    assert terminal.run("gossip-keys", "install", "--generate", str(path)).status == 2
    assert path.read_text().strip() == secret


def test_a_secret_that_could_not_be_installed_is_not_left_behind(
    terminal: Any, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(secret: str) -> GossipKeysOutcome:
        raise GossipKeyError("the ring is full")

    vars(keys)["install"] = refuse

    ended = terminal.run("gossip-keys", "install", "--generate", str(tmp_path / "mesh-key"))

    assert ended.status == 1 and "gossip_key" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_secret_comes_from_a_file_or_from_the_standard_input(
    terminal: Any, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    path = tmp_path / "mesh-key"
    path.write_text("the secret of the file\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("the secret that was piped\n"))

    terminal.run("gossip-keys", "install", "--from", str(path))
    terminal.run("gossip-keys", "install", "--from", "-")

    assert [asked[1].strip() for asked in keys.asked] == ["the secret of the file", "the secret that was piped"]


@pytest.mark.parametrize("words", [(), ("--from", "a", "--generate", "b"), ("a-secret-in-argv",)])
def test_a_secret_is_not_taken_from_the_command_line(terminal: Any, keys: Keys, words: tuple[str, ...]) -> None:
    assert terminal.run("gossip-keys", "install", *words).status == 2
    assert keys.asked == []


def test_force_is_handed_on(terminal: Any, keys: Keys) -> None:
    terminal.run("gossip-keys", "use", "0a1b2c3d", "--force")
    terminal.run("gossip-keys", "remove", "0a1b2c3d")
    ended = terminal.run("gossip-keys", "status")

    assert keys.asked == [("use", "0a1b2c3d", True), ("remove", "0a1b2c3d", False), ("status",)]
    assert ended.document["primaryKeyId"] == "0a1b2c3d"


@pytest.mark.parametrize(
    "words",
    [
        ("--window-ms", "3600001"),
        ("--window-ms", "1" + "0" * 30),
        ("--fanout", "10001"),
        ("--ttl", "10001"),
    ],
)
def test_a_number_that_a_tick_cannot_be_told_is_a_usage_error(terminal: Any, words: tuple[str, str]) -> None:
    ended = terminal.run("gossip", *words)

    assert ended.status == 2
    assert words[0] in ended.err and ("too large" in ended.err or "too small" in ended.err)


@pytest.mark.parametrize("words", [("--rounds", "10001"), ("--interval-ms", "86400001")])
def test_a_sync_that_would_never_end_is_a_usage_error(terminal: Any, words: tuple[str, str]) -> None:
    assert terminal.run("gossip-sync", *words).status == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"node_id": "a b"}, "is no node id"),
        ({"window_ms": 10**30}, "--window-ms"),
        ({"window_ms": 99}, "--window-ms"),
        ({"fanout": 10_001}, "--fanout"),
        ({"ttl": 10_001}, "--ttl"),
    ],
)
def test_a_program_is_refused_the_same(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with Client(tmp_path) as client, pytest.raises(RelayMeshError, match=said):
        client.gossip(**options)
