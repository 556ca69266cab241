"""Encryption at rest with real processes: what lies on the disk, and rotations while nodes work and are killed."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.view import Event
from relaymesh.watch import WaitTimeoutError
from tests.integration.harness import HERE, Site, eventually

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


def moved(site: Site, active: object) -> bool:
    """Whether a piece at least was brought under this key."""
    found = json.loads(site.one("SELECT state_value FROM cluster_state WHERE state_key='payload_reseal'") or "{}")
    return found.get("kid") == active and (found["table"] != "steps" or found["after"] != [0])


@pytest.mark.slow
def test_rotations_under_load_and_kills_lose_no_text_and_end_with_the_newest_key(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings={"payloadEncryption": True})
    given: dict[str, str] = {}
    with site.client() as client:
        for number in range(120):
            text = f"{SECRET} {number} " + ("x" * 70_000 if number % 12 == 0 else "")
            given[client.submit("echo", text).task_id] = text
        for turn in range(2):
            node = site.node().wait_up()
            assert site.run("payload-key-rotate").returncode == 0
            for number in range(50):
                text = f"{SECRET} of turn {turn}, {number}"
                given[client.submit("echo", text).task_id] = text
            # Under way, or even over: the first piece at least is committed.
            active = keys(site)["activeKid"]
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


@pytest.mark.slow
def test_a_root_without_its_keyring_says_so_in_one_sentence_and_waits_for_it(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"payloadEncryption": True})
    with site.client() as client:
        client.submit("echo", SECRET)
    keyring = site.root / "security" / "payload-keys.json"
    kept = keyring.rename(site.folder / "keys.json")

    def says(code: str, *commands: tuple[str, ...]) -> None:
        for words in (("submit", "--agent", "echo", "--input", "x"), *commands):
            done = site.run(*words)
            assert done.returncode == 1, words
            assert done.stderr.decode().startswith(f"error[{code}]: "), done.stderr
            assert done.stderr.count(b"\n") == 1
        health = site.run("--output", "json", "health")
        assert health.returncode == 1
        found = json.loads(health.stdout)
        assert not found["ok"] and any("keyring" in problem for problem in found["problems"]), found

    says("payload_keyring_missing", ("payload-key-status",), ("payload-key-rotate",))
    assert not keyring.exists()
    keyring.write_text("{")
    keyring.chmod(0o600)
    says("payload_keyring")
    another = {"k7": base64.b64encode(bytes(32)).decode()}
    ring = {"schema": "relaymesh.payload.keys.v1", "active_kid": "k7", "keys": another}
    keyring.write_text(json.dumps(ring))
    says("payload_keyring_wrong", ("payload-key-rotate",))
    assert json.loads(keyring.read_text()) == ring

    node = site.node().wait_up()
    eventually(lambda: "payload_key_unknown" in node.log)
    assert site.one("SELECT status FROM tasks") in ("PENDING", "RUNNING"), site.report()
    assert SECRET not in node.log
    kept.replace(keyring)
    eventually(lambda: site.one("SELECT status FROM tasks") == "SUCCESS")
    assert site.run("health").returncode == 0
    assert site.rows("SELECT attempt FROM steps") == [(1,)]
    node.terminate()


@pytest.mark.slow
def test_nothing_that_a_root_keeps_of_its_work_can_be_read_whichever_way_it_came(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(settings={"payloadEncryption": True, "busMode": "files"}, agents=HERE / "secretive_agents.py")
    node = site.node(concurrency=3, options=("--log-level", "debug")).wait_up()
    stop, edited, lane = tmp_path / "stop", tmp_path / "edited.txt", site.root / "inbox" / "high"
    edited.write_text(f"{SECRET} edited")
    with site.client() as client:
        # From the second submit of a client on, the node stores them: through its control socket.
        failing = [client.submit("fails", f"{SECRET} {number}").task_id for number in range(3)]
        running = client.submit("tells", {"text": SECRET, "stop": str(stop)}).task_id
        client.schedules.create("task", every_ms=1_000, agent="echo", input=SECRET)
        step = {"id": "a", "agent": "echo", "input": SECRET}
        client.schedules.create("flow", every_ms=1_000, workflow={"steps": [step]})
        (lane / ".a.tmp").write_text(json.dumps({"agent": "echo", "input": f"{SECRET} in a file"}))
        (lane / ".a.tmp").rename(lane / "a.json")
        for task_id in failing:
            eventually(lambda task_id=task_id: client.task(task_id).status == "DEAD_LETTER")
        assert site.run("replay", failing[0], "--edit", str(edited)).returncode == 0
        eventually(lambda: site.one("SELECT progress FROM steps WHERE task_id=?", running))
        eventually(lambda: site.one("SELECT min(made) FROM schedules"))
        (answer,) = eventually(lambda: list((site.root / "done").rglob("a.json.result.json")))
        eventually(lambda: site.one("SELECT status FROM tasks WHERE task_id=?", failing[0]) == "DEAD_LETTER")

        assert holding(site.root) == []
        assert SECRET not in node.log
        # And whoever has the keyring reads all of it.
        assert any(event.detail == f"half of {SECRET}" for event in events(client, running))
        stop.touch()
        assert SECRET in (client.wait(running, timeout_ms=60_000).result_payload or "")
        logs = site.run("logs", failing[0]).stdout.decode()
        assert f"was given {SECRET} edited" in logs and f"cannot do {SECRET} edited" in logs
        assert (client.task(failing[0]).last_error or "").startswith("agent_error: see `relaymesh logs")
        told = json.loads(answer.read_text())
        assert (told["status"], told["resultPayload"], told["resultEncrypted"]) == ("SUCCESS", None, True)
        assert answer.with_name("a.json").read_bytes() == b""
        assert f"{SECRET} in a file" in (client.output(told["taskId"]) or "")
        (row,) = client.audit_query(action="dead.replay")
        (change,) = json.loads(row)["details"]["edited"]
        assert change["old"]["bytes"] == len(f"{SECRET} 0") and "sha256" not in change["old"]
        assert change["new"]["keyed_hash"] != change["old"]["keyed_hash"]
        client.schedules.delete("task")
        client.schedules.delete("flow")
        site.wait_done()

        out = tmp_path / "out"
        assert site.run("snapshot-export", "--out", str(out)).returncode == 0
        assert holding(out) == []
        export = tmp_path / "task.json"
        assert site.run("task-export", running, "--out", str(export)).returncode == 0
        assert SECRET in export.read_text()
    node.terminate()
    assert holding(site.root) == []
    assert SECRET not in node.log


def events(client: Client, task_id: str) -> list[Event]:
    """Return what there is to see of a task that runs."""
    found = []
    with contextlib.suppress(WaitTimeoutError):
        for event in client.events(task_id, timeout_ms=0):
            found.append(event)
    return found
