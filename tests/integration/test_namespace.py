"""Two namespaces of one root, worked by real nodes at once: nothing of one reaches into the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from relaymesh.cli import main
from relaymesh.client import Client
from tests.integration.harness import PATIENCE_S, REPO, Site, eventually

pytestmark = pytest.mark.slow

BOTH = ("blue", "red")


def start(site: Site, namespace: str, *words: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "relaymesh", "--root", str(site.root), "--namespace", namespace, *words],
        stdout=subprocess.PIPE if words[0] == "serve-metrics" else subprocess.DEVNULL,
        cwd=REPO,
        env={**os.environ, **site.environment},
        start_new_session=True,
    )
    site.others.append(process)
    return process


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode()


def client(site: Site, namespace: str) -> Client:
    return Client(site.root, namespace=namespace)


def drop(root: Path, name: str, text: str) -> None:
    aside = root / "inbox" / "normal" / f".{name}.tmp"
    aside.write_text(json.dumps({"agent": "echo", "input": text}), encoding="utf-8")
    aside.rename(root / "inbox" / "normal" / name)


def answer(site: Site, namespace: str, *words: str) -> Any:
    ran = site.run("--namespace", namespace, *words)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_two_namespaces_share_no_key_limit_pause_file_setting_or_record(site: Site) -> None:
    roots = {name: site.root / "namespaces" / name for name in BOTH}
    for name in BOTH:
        with client(site, name) as one:
            one.init()
    # The same node id and the same key in both; a limit and a pause and a setting in one.
    nodes = [start(site, name, "up", "--node-id", "a") for name in BOTH]
    with client(site, "blue") as blue, client(site, "red") as red:
        blue.set_limit("overall", max_concurrency=1)
        blue.set_setting("maxIngressQueueDepth", "100")
        tasks = {
            name: one.submit("echo", name, idempotency_key="same").task_id
            for name, one in (("blue", blue), ("red", red))
        }
        ended = {name: one.wait(tasks[name], timeout_ms=60_000) for name, one in (("blue", blue), ("red", red))}
        outputs = [blue.output(tasks["blue"]), red.output(tasks["red"])]
        blue.pause_queue(reason="only here")
        held = blue.submit("echo", "held").task_id
        passed = red.submit("echo", "passes").task_id
        passed_status = red.wait(passed, timeout_ms=60_000).status
        held_status = blue.task(held).status
        limits, pauses = (len(blue.limits()), len(red.limits())), (blue.queue_status(), red.queue_status())
        depths = [
            next(one.value for one in door.settings() if one.key == "maxIngressQueueDepth") for door in (blue, red)
        ]
        foreign = [
            door.query("SELECT count(*) FROM tasks WHERE namespace<>?", [door.namespace]) for door in (blue, red)
        ]
    # The same file name in both inboxes.
    for name in BOTH:
        drop(roots[name], "a.json", name)
    result = eventually(lambda: list((roots["red"] / "done").rglob("a.json.result.json")))
    in_blue = eventually(lambda: answer(site, "blue", "tasks") if len(answer(site, "blue", "tasks")) == 3 else None)

    assert tasks["blue"] != tasks["red"]
    assert {one.status for one in ended.values()} == {"SUCCESS"}
    assert [json.loads(text or "")["received"] for text in outputs] == ["blue", "red"]
    assert (held_status, passed_status) == ("PENDING", "SUCCESS")
    assert limits == (1, 0)
    assert (pauses[0].paused, pauses[1].paused) == (True, False)
    assert depths[0] == 100 and depths[1] != 100
    assert [rows[0][0] for rows in foreign] == [0, 0]
    assert "red" in result[0].read_text("utf-8") and "blue" not in result[0].read_text("utf-8")
    assert {task["status"] for task in in_blue} == {"SUCCESS", "PENDING"}
    assert not list(site.root.rglob("inbox/normal/a.json")) and not list((site.root / "done").iterdir())

    server = start(site, "blue", "serve-metrics", "--port", "0")
    with urllib.request.urlopen(first_line(server).split()[3].rstrip(";"), timeout=PATIENCE_S) as page:
        served = page.read().decode()
    in_red = site.run("--namespace", "red", "metrics").stdout.decode()
    assert 'relaymesh_tasks_total{namespace="blue",status="PENDING"} 2\n' in served
    assert 'namespace="red"' not in served
    assert 'relaymesh_tasks_total{namespace="red",status="PENDING"} 0\n' in in_red
    assert 'relaymesh_tasks_total{namespace="red",status="SUCCESS"} 3\n' in in_red

    for process in (server, *nodes):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(PATIENCE_S) for process in (server, *nodes)] == [0, 0, 0]
    for name in BOTH:
        rows = [json.loads(line) for line in (roots[name] / "audit" / "audit.log").read_text("utf-8").splitlines()]
        assert {row["namespace"] for row in rows} == {name}
        assert answer(site, name, "audit-verify")["ok"]
    assert not [row for row in rows if row["action"].startswith("queue.")], "the pause of blue is in the log of red"


def test_a_snapshot_of_one_namespace_goes_back_into_it_and_into_no_other(site: Site, tmp_path: Path) -> None:
    for name in BOTH:
        with client(site, name) as one:
            one.init()
            one.submit("echo", name, idempotency_key="same")
    with client(site, "blue") as blue:
        blue.snapshot_export(tmp_path / "blue")
        later = blue.submit("echo", "later").task_id

    into_red = site.run("--namespace", "red", "snapshot-import", "--in", str(tmp_path / "blue"))
    answer(site, "blue", "snapshot-import", "--in", str(tmp_path / "blue"))
    drill = site.run("--namespace", "red", "dr-automation")

    assert into_red.returncode == 1
    assert b"is of the namespace" in into_red.stderr
    with client(site, "blue") as blue, client(site, "red") as red:
        assert [len(blue.tasks()), len(red.tasks())] == [1, 1]
        assert later not in [task.task_id for task in blue.tasks()]
    assert drill.returncode == 0, drill.stderr
    assert (site.root / "dr" / "red" / "report-latest.json").exists()
    assert not (site.root / "dr" / "blue").exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [("..", "ns.."), ("a/b", "a-b"), ("../../etc", "ns..-..-etc"), (".hidden", "ns.hidden"), ("größe", "gr-e")],
)
def test_a_hostile_name_stays_below_the_root(site: Site, name: str, folder: str) -> None:
    task_id = answer(site, name, "submit", "--agent", "echo", "--input", "x")["taskId"]

    assert (site.root / "namespaces" / folder / "relaymesh.db").exists()
    assert [path.name for path in (site.root / "namespaces").iterdir()] == [folder]
    with client(site, name) as one:
        assert one.task(task_id).status == "PENDING"
    assert main(["--root", str(site.root), "task", task_id]) == 1


@pytest.mark.parametrize("name", ["x" * 300, "CON", "nul.json"])
@pytest.mark.parametrize("words", [("init",), ("tasks",), ("up",)])
def test_a_name_that_no_folder_can_have_everywhere_is_refused_and_nothing_is_made(
    site: Site, capsys: pytest.CaptureFixture[str], name: str, words: tuple[str, ...]
) -> None:
    status = main(["--root", str(site.root), "--namespace", name, *words])

    assert status == 2
    assert capsys.readouterr().err.startswith("error[bad_namespace]: the namespace ")
    assert not (site.root / "namespaces").exists()
