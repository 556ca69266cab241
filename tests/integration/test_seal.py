"""Encryption at rest with real processes: what lies on the disk, and rotations while nodes work and are killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.harness import Site, eventually

SECRET = "the-secret-of-the-house"
LONG = f"{SECRET} " * 8_000


def holding(root: Path) -> list[str]:
    """Return the files below the root, database and log included, in which the secret can be read."""
    needle = SECRET.encode()
    return sorted(
        path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and needle in path.read_bytes()
    )


@pytest.mark.parametrize("encrypted", [True, False])
def test_no_text_of_a_workflow_can_be_read_from_the_root_of_a_working_node(
    make_site: Callable[..., Site], encrypted: bool
) -> None:
    site = make_site(settings={"payloadEncryption": encrypted})
    node = site.node().wait_up()
    with site.client() as client:
        short = [client.submit("echo", f"{SECRET} {number}").task_id for number in range(20)]
        long = client.submit("echo", LONG).task_id
        flow = client.submit_workflow(
            {
                "steps": [
                    {"id": "each", "agent": "echo", "map": [SECRET, LONG], "input": {"$item": ""}},
                    {"id": "end", "agent": "echo", "input": {"all": {"$from": "each"}, "and": SECRET}},
                ]
            }
        ).task_id
        for task_id in (*short, long, flow):
            ended = client.wait(task_id, timeout_ms=60_000)
            assert ended.status == "SUCCESS", ended.last_error

        found = holding(site.root)  # the node works: the write-ahead log is there too
        assert (found == []) is encrypted, found
        assert f"{SECRET} 3" in (client.output(short[3]) or "")
        assert LONG in (client.output(long) or "")
        assert (client.output(flow, "end") or "").count(SECRET) == 8_002
    node.terminate()
    assert (holding(site.root) == []) is encrypted


def keys(site: Site, *options: str) -> dict[str, object]:
    done = site.run("--output", "json", "payload-key-status", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def moved(site: Site, active: str) -> bool:
    state = "SELECT count(*) FROM cluster_state WHERE state_key='payload_reseal' AND state_value LIKE ?"
    return bool(site.one(f"{state} AND state_value NOT LIKE '% 0'", active))


@pytest.mark.slow
def test_rotations_under_load_and_kills_lose_no_text_and_end_with_the_newest_key(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings={"payloadEncryption": True})
    given: dict[str, str] = {}
    with site.client() as client:
        for number in range(300):
            text = f"{SECRET} {number} " + ("x" * 70_000 if number % 30 == 0 else "")
            given[client.submit("echo", text).task_id] = text
        for turn in range(2):
            node = site.node().wait_up()
            assert site.run("payload-key-rotate").returncode == 0
            for number in range(50):
                text = f"{SECRET} of turn {turn}, {number}"
                given[client.submit("echo", text).task_id] = text
            # Under way, or even over: the first piece at least is committed.
            active = f"{keys(site)['activeKid']} %"
            eventually(lambda active=active: moved(site, active))
            node.kill()
        node = site.node().wait_up()
        site.wait_done()
        eventually(lambda: keys(site, "--count")["underOldKeys"] == 0)
        for task_id, text in given.items():
            assert text in (client.output(task_id) or "")
    node.terminate()

    status = keys(site)
    assert list(status) == ["activeKid", "totalKeys", "keyFile"]
    assert status["totalKeys"] == 3
    assert holding(site.root) == []
    trail = site.run("--output", "json", "audit-query", "--action", "payload.key.rotate")
    assert trail.stdout.count(b"payload.key.rotate") == 2


def test_a_root_without_its_keyring_says_so_in_one_sentence_and_writes_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"payloadEncryption": True})
    with site.client() as client:
        task_id = client.submit("echo", SECRET).task_id
    keyring = site.root / "security" / "payload-keys.json"
    kept = keyring.rename(site.folder / "keys.json")

    for words in (("submit", "--agent", "echo", "--input", "x"), ("payload-key-status",), ("payload-key-rotate",)):
        done = site.run(*words)
        assert done.returncode == 1, words
        assert done.stderr.decode().startswith("error[payload_keyring_missing]: "), done.stderr
        assert done.stderr.count(b"\n") == 1
    node = site.node().wait_up()
    site.wait_done()
    assert site.rows("SELECT status, attempt FROM steps") == [("DEAD_LETTER", 1)]
    assert site.one("SELECT code FROM attempts") == "payload_keyring_missing"
    assert not keyring.exists()

    kept.rename(keyring)
    assert site.run("replay", task_id).returncode == 0
    eventually(lambda: site.one("SELECT status FROM tasks") == "SUCCESS")
    node.terminate()
