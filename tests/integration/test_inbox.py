"""Files in the inbox of real processes: killed at every step, many at once, and whatever may lie there."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest

from relaymesh.store.root import DATABASE
from tests.integration.harness import MARK, REPO, Site, eventually, plain_environment
from tests.integration.inbox_server import FAILS

KILLED = -9
LONG_AGO = (1_000_000_000, 1_000_000_000)

FLOW = {"steps": [{"id": "a", "agent": "echo", "input": ""}, {"id": "b", "agent": "echo", "input": {"$from": "a"}}]}


def drop(root: Path, lane: str, name: str, data: bytes) -> None:
    """Hand in a file as a program should."""
    aside = root / "inbox" / lane / f".{name}.tmp"
    aside.write_bytes(data)
    os.utime(aside, LONG_AGO)  # what is wrong in it is wrong for good
    aside.rename(root / "inbox" / lane / name)


def task(agent: str = "echo", **more: object) -> bytes:
    return json.dumps({"agent": agent, "input": "x", **more}).encode()


class Server:
    """tests/integration/inbox_server.py."""

    def __init__(self, mark: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.inbox_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=REPO,
            env={**plain_environment(), MARK: mark},
            text=True,
        )

    def run(self, root: Path, at: int = 0) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{root} {at}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server(site: Site) -> Iterator[Server]:
    server = Server(site.mark)
    yield server
    server.close()


def fill(root: Path) -> None:
    """One of each: a task, a key given twice, a workflow, a failing task, a wrong file, a link, a bad name."""
    drop(root, "high", "a.json", task())
    drop(root, "normal", "b.json", task(idempotencyKey="k"))
    drop(root, "low", "c.json", task(idempotencyKey="k"))
    drop(root, "low", "a.json", task())
    drop(root, "normal", "w.msgpack", msgpack.packb(FLOW))
    drop(root, "normal", "f.json", task("other"))
    drop(root, "normal", "wrong.json", b'{"agent": "ec')
    os.symlink("/etc/passwd", root / "inbox" / "normal" / "link.json")
    drop(root, "normal", "bad name", task())


def check(root: Path) -> None:
    """Every file of ``fill`` came to its right end, once, with one task per key."""
    with contextlib.closing(sqlite3.connect(root / DATABASE)) as conn:
        tasks = dict(conn.execute("SELECT idempotency_key, task_id FROM tasks"))
        assert sorted(tasks) == ["a.json", "f.json", "k", "w.msgpack"]
        assert conn.execute("SELECT count(*) FROM tasks").fetchone() == (4,)
        assert conn.execute("SELECT count(*) FROM tasks WHERE finished_at_ms IS NULL").fetchone() == (0,)
    left = [path for folder in ("inbox", "processing") for path in (root / folder).rglob("*") if not path.is_dir()]
    assert left == []
    assert [path for path in root.rglob("*.tmp") if path.is_file()] == []

    done = [path for path in (root / "done").rglob("*") if path.is_file()]
    results = {path.name.removesuffix(".result.json"): path for path in done if path.name.endswith(".result.json")}
    assert sorted(results) == sorted(path.name for path in done if not path.name.endswith(".result.json"))
    came_to = Counter()
    for path in results.values():
        result = json.loads(path.read_bytes())
        assert result["status"] == "SUCCESS"
        key = "k" if result["file"] in ("b.json", "c.json") else result["file"]
        assert result["taskId"] == tasks[key]
        came_to[result["file"]] += 1
    assert came_to == {"a.json": 2, "b.json": 1, "c.json": 1, "w.msgpack": 1}

    dead = list((root / "dead").iterdir())
    reasons = {path.name.removesuffix(".reason.json"): path for path in dead if path.name.endswith(".reason.json")}
    assert sorted(reasons) == sorted(path.name for path in dead if not path.name.endswith(".reason.json"))
    told = {name: json.loads(path.read_bytes()) for name, path in reasons.items()}
    # After a crash only the safe name of a file with a bad one is known.
    assert {name.partition("-")[0]: reason["code"] for name, reason in told.items()} == {
        "f.json": "dead_letter",
        "wrong.json": "bad_file",
        "link.json": "not_a_file",
        "bad_name": "bad_name",
    }
    assert told["f.json"]["taskId"] == tasks["f.json"] and FAILS in told["f.json"]["lastError"]


@pytest.mark.slow
def test_a_kill_before_any_step_loses_no_file_and_repeats_none(
    make_site: Callable[..., Site], server: Server, tmp_path: Path
) -> None:
    template = make_site("template")
    killed = 0
    for at in range(1, 1_000):
        site = Site(tmp_path / f"at{at}", copy_of=template)
        fill(site.root)
        ended = server.run(site.root, at)
        if ended == KILLED:
            killed += 1
            assert server.run(site.root) == 0, f"after a kill before step {at}"
        try:
            check(site.root)
        except AssertionError as error:
            raise AssertionError(f"after a kill before step {at}: {error}") from error
        if ended == 0:
            break

    assert ended == 0 and killed > 40


def check_all(site: Site, names: set[str]) -> None:
    """Each of these files made one task, and lies beside its result, once."""
    assert {key for (key,) in site.rows("SELECT idempotency_key FROM tasks")} == names
    assert site.one("SELECT count(*) FROM tasks") == len(names)
    done = [path.name for path in (site.root / "done").rglob("*") if path.is_file()]
    assert sorted(done) == sorted([*names, *(f"{name}.result.json" for name in names)])
    assert not list((site.root / "dead").iterdir())


def lying(site: Site) -> list[str]:
    """What was not put away yet. Folders come and go meanwhile, which a walk does not mind."""
    return [name for at in ("inbox", "processing") for _, _, names in os.walk(site.root / at) for name in names]


@pytest.mark.slow
def test_eight_processes_take_from_one_inbox_and_each_file_is_taken_once(site: Site) -> None:
    names = {f"{number:03}.json" for number in range(400)}
    for name in names:
        drop(site.root, ("high", "normal", "low")[int(name[:3]) % 3], name, task())

    rounds = [site.start("-m", "relaymesh", "--root", str(site.root), "maintenance") for _ in range(8)]

    assert [one.wait(60) for one in rounds] == [0] * 8
    assert site.one("SELECT count(*) FROM tasks") == len(names)
    node = site.node("a", concurrency=1).wait_up()
    eventually(lambda: not lying(site), what="every file is put away")
    node.terminate()
    check_all(site, names)


@pytest.mark.slow
def test_nodes_that_are_killed_again_and_again_lose_no_file_and_repeat_none(site: Site) -> None:
    names = {f"{number:04}.json" for number in range(600)}
    for name in names:
        drop(site.root, "normal", name, task())

    for _ in range(2):
        before = len(lying(site))
        nodes = [site.node(node_id, concurrency=1, measured=False) for node_id in ("a", "b")]
        eventually(lambda before=before: len(lying(site)) < before, what="a file is put away")
        for node in nodes:
            node.kill()
    last = site.node("c", concurrency=1).wait_up()  # finds what the others held
    eventually(lambda: not lying(site), what="every file is put away")
    last.terminate()

    check_all(site, names)


def test_a_node_takes_files_of_every_kind_and_refuses_what_is_wrong(site: Site) -> None:
    node = site.node("a", concurrency=1).wait_up()
    lane = site.root / "inbox" / "normal"
    os.mkfifo(lane / "fifo")
    os.symlink(site.root / "relaymesh.db", lane / "link")
    (lane / "folder").mkdir()
    (lane / ".hidden").write_bytes(b"being written")
    os.link(_old(site.root / "secret"), lane / "second-name.json")
    drop(site.root, "normal", "cut.json", task()[:-1])
    drop(site.root, "high", "urgent.json", task(priority="low"))
    drop(site.root, "normal", "who.json", task("nobody"))
    drop(site.root, "normal", "late.json", task(delayMs=-1))
    drop(
        site.root, "normal", "flow.json", json.dumps({"steps": [{"id": "a", "agent": "nobody", "input": ""}]}).encode()
    )
    drop(site.root, "normal", "good.json", task(labels={"from": "a test"}))
    drop(site.root, "low", "good.msgpack", msgpack.packb({"workflow": FLOW, "idempotencyKey": "flow-1"}))

    done = site.root / "done"
    eventually(lambda: len([*done.rglob("*.result.json")]) == 2 and len([*done.rglob("good.*")]) == 4)
    eventually(lambda: len([*(site.root / "dead").glob("*.reason.json")]) == 8)
    node.terminate()

    codes = {
        path.name.removesuffix(".reason.json"): json.loads(path.read_bytes())["code"]
        for path in (site.root / "dead").glob("*.reason.json")
    }
    assert codes == {
        "fifo": "not_a_file",
        "link": "not_a_file",
        "second-name.json": "hard_link",
        "cut.json": "bad_file",
        "urgent.json": "priority_conflict",
        "who.json": "unknown_agent",
        "late.json": "bad_time",
        "flow.json": "unknown_agent",
    }
    assert sorted(path.name for path in lane.iterdir()) == [".hidden", "folder"]
    rows = [json.loads(line) for line in (site.root / "audit" / "audit.log").read_text().splitlines()]
    assert Counter((row["action"], row["actor"]) for row in rows if row["actor"] == "inbox") == {
        ("inbox.refuse", "inbox"): 8,
        ("task.submit", "inbox"): 1,
        ("workflow.submit", "inbox"): 1,
    }
    assert sorted(site.rows("SELECT idempotency_key FROM tasks")) == [("flow-1",), ("good.json",)]
    assert site.one("SELECT labels FROM tasks WHERE idempotency_key='good.json'") == '{"from": "a test"}'


def _old(path: Path) -> Path:
    path.write_bytes(b"secret")
    os.utime(path, LONG_AGO)
    return path


def test_a_file_that_is_written_in_place_is_taken_once_it_is_whole(site: Site) -> None:
    node = site.node("a", concurrency=1).wait_up()

    with open(site.root / "inbox" / "normal" / "slow.json", "wb") as file:
        file.write(task()[:10])
        file.flush()
        eventually(lambda: list((site.root / "processing" / "a").glob("*~slow.json")), what="it is taken")
        file.write(task()[10:])

    eventually(lambda: list((site.root / "done").rglob("slow.json.result.json")))
    node.terminate()


def test_the_maintenance_command_takes_files_in_and_puts_them_away(site: Site) -> None:
    drop(site.root, "low", "a.json", task())

    assert site.run("maintenance").returncode == 0
    assert site.rows("SELECT s.priority, t.status FROM tasks t JOIN steps s USING(task_id)") == [("LOW", "PENDING")]
    assert site.run("worker", "--once").returncode == 0
    assert site.run("maintenance").returncode == 0

    rows = [json.loads(line) for line in (site.root / "audit" / "audit.log").read_text().splitlines()]
    submits = [(row["actor"], row["result"], row["task_id"]) for row in rows if row["action"] == "task.submit"]
    assert submits == [("inbox", "submitted", site.one("SELECT task_id FROM tasks"))]
    (result,) = (site.root / "done").rglob("a.json.result.json")
    assert json.loads(result.read_bytes())["status"] == "SUCCESS"
    assert lying(site) == []


def message_files(root: Path) -> dict[str, str]:
    """Folder of each message file outside ``meta``."""
    return {
        name.partition("_")[2].removesuffix(".meta.json"): os.path.relpath(folder, root)
        for folder, _, names in os.walk(root)
        for name in names
        if name.endswith(".meta.json") and os.path.basename(folder) != "meta"
    }


def said_by_the_database(site: Site) -> dict[str, str]:
    today = time.strftime("%Y-%m-%d")
    folders = {"DONE": f"done/{today}", "FAILED": "retry", "DEAD": "dead"}
    return {
        message_id: folders.get(state) or f"inbox/{priority.lower()}"
        for message_id, state, priority in site.rows("SELECT msg_id, state, priority FROM messages")
    }


def test_a_node_keeps_a_file_for_each_message_and_maintenance_mends_them(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"busMode": "files", "maxAttempts": 2})
    node = site.node("a", concurrency=1).wait_up()
    with site.client() as client:
        tasks = [client.submit("echo", str(number)).task_id for number in range(20)]
        tasks.append(client.submit("fail", "x").task_id)
        tasks.append(client.submit_workflow(FLOW).task_id)
        waiting = [client.submit("echo", f"later {number}", delay_ms=3_600_000).task_id for number in range(3)]
        for task_id in tasks:
            client.wait(task_id, timeout_ms=60_000)
        eventually(lambda: message_files(site.root) == said_by_the_database(site), what="the files say what is so")
        node.terminate()
        # By hand, as an operator might: the delayed ones are ready, and one finished file is back in a lane.
        with contextlib.closing(sqlite3.connect(site.root / DATABASE)) as conn, conn:
            conn.execute("UPDATE steps SET delayed=0 WHERE task_id IN (?, ?, ?)", waiting)
        done = next((site.root / "done").rglob("*.meta.json"))
        done.rename(site.root / "inbox" / "low" / done.name)

        assert site.run("maintenance").returncode == 0

        assert message_files(site.root) == said_by_the_database(site)
        stats = client.stats()
    assert (stats.inbox_normal, stats.processing_meta_files, stats.dead_meta_files) == (3, 0, 1)
    envelopes = [json.loads(path.read_bytes()) for path in (site.root / "inbox" / "normal").iterdir()]
    assert sorted(envelope["taskId"] for envelope in envelopes) == sorted(waiting)
    assert {(e["fromAgent"], e["toAgent"], e["priority"], e["attempt"]) for e in envelopes} == {
        ("system", "echo", "NORMAL", 1)
    }


@pytest.mark.slow
def test_files_wait_while_the_gate_is_shut_and_are_taken_when_it_opens_also_over_a_kill(
    make_site: Callable[..., Site],
) -> None:
    site = make_site("gate", settings={"maxIngressQueueDepth": 2})
    with site.client() as client:
        client.init()
        client.pause_queue(reason="so that what is taken in stays")
    for number in range(5):
        drop(site.root, "normal", f"f{number}.json", task())

    def waiting() -> list[str]:
        return sorted(path.name for path in (site.root / "inbox" / "normal").iterdir())

    node = site.node().wait_up()
    eventually(lambda: len(waiting()) == 3)
    health = json.loads(site.run("health").stdout)
    metrics = site.run("metrics").stdout.decode()
    why = json.loads(site.run("explain", "f4.json").stdout)
    node.kill()
    node = site.node().wait_up()
    with site.client() as client:
        client.set_setting("maxIngressQueueDepth", "1000")
        client.resume_queue()
    eventually(lambda: len(list((site.root / "done").rglob("f?.json.result.json"))) == 5)

    assert (health["ok"], health["inboxFiles"], health["inboxGate"]) == (True, 3, "queue_depth_limit")
    assert "3 files wait in the inbox: the queue would be deeper than 2 steps" in health["notes"][0]
    assert 'relaymesh_inbox_files{priority="normal"} 3\n' in metrics
    assert 'relaymesh_inbox_gate_shut{reason="queue_depth_limit"} 1\n' in metrics
    assert why[0]["reason"] == "queue_depth_limit"
    assert list((site.root / "dead").iterdir()) == []
    assert node.terminate() == 0
