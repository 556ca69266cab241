"""A real node that is watched from other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relaymesh.client import Client
from tests.integration.harness import PATIENCE_S, REPO, Site, eventually

pytestmark = pytest.mark.slow


def seconds_ahead(site: Site, seconds: int) -> Client:
    return Client(site.root, now_ms=lambda: time.time_ns() // 1_000_000 + seconds * 1000)


def test_a_node_that_hangs_beside_ready_work_is_unwell_and_well_again_when_it_goes_on(site: Site) -> None:
    if os.name != "posix":
        pytest.skip("stops a process by a signal")
    node = site.node().wait_up()
    with site.client() as client:
        client.wait(client.submit("echo", "before").task_id, timeout_ms=60_000)
        node.signal(signal.SIGSTOP)
        task = client.submit("echo", "while it hangs")
        assert client.health().ok  # not yet: it may only be slow

        with seconds_ahead(site, 11) as later:
            hung = later.health()

        node.signal(signal.SIGCONT)
        client.wait(task.task_id, timeout_ms=60_000)
        with seconds_ahead(site, 11) as later:
            well = later.health()

    assert (hung.ok, hung.live, hung.stalled) == (False, False, True)
    assert (well.ok, well.live, well.stalled_ms) == (True, True, 0)
    assert node.terminate() == 0


def test_metrics_are_served_beside_a_node_to_many_at_once_and_stop_cleanly_on_a_signal(site: Site) -> None:
    node = site.node().wait_up()
    with site.client() as client:
        client.wait(client.submit("echo", "x").task_id, timeout_ms=60_000)
        client.wait(client.submit("fail", "{}").task_id, timeout_ms=60_000)
    server = subprocess.Popen(
        [sys.executable, "-m", "relaymesh", "--root", str(site.root), "serve-metrics", "--port", "0"],
        stdout=subprocess.PIPE,
        cwd=REPO,
        env={**os.environ, **site.environment},
        start_new_session=True,
    )
    site.others.append(server)
    assert server.stdout is not None
    url = server.stdout.readline().decode().split()[3].rstrip(";")

    def page(_: int = 0) -> str:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode()
            return text

    text = eventually(lambda: found if 'outcome="succeeded"' in (found := page()) else "")
    with ThreadPoolExecutor(8) as pool:
        pages = list(pool.map(page, range(24)))

    assert url.startswith("http://127.0.0.1:")
    assert 'relaymesh_agent_attempts_total{node="a",agent="echo",outcome="succeeded"} 1\n' in text
    assert 'relaymesh_tasks_total{status="DEAD_LETTER"} 1\n' in text
    assert 'relaymesh_store_commit_seconds_count{node="a"} ' in text
    assert all(other.count("# TYPE ") == text.count("# TYPE ") for other in pages)
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE_S) == 0
    assert node.terminate() == 0
    assert 'node="a"' not in site.run("metrics").stdout.decode()


def test_an_auth_file_decides_who_reads_the_metrics_and_may_change_meanwhile(site: Site, tmp_path: Path) -> None:
    with site.client() as client:
        client.init()
    auth = tmp_path / "auth.json"

    def known(*tokens: str) -> None:
        content = {"principals": [{"id": "prometheus", "tokens": list(tokens), "namespaces": ["default"]}]}
        aside = tmp_path / "aside"
        aside.write_text(json.dumps(content), encoding="utf-8")
        aside.chmod(0o600)
        aside.replace(auth)

    known("first-token-of-ours")
    auth.chmod(0o644)
    refused = site.run("serve-metrics", "--port", "0", "--auth-file", str(auth))
    auth.chmod(0o600)
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "relaymesh",
            "--root",
            str(site.root),
            "serve-metrics",
            "--port=0",
            "--auth-file",
            str(auth),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPO,
        env={**os.environ, **site.environment},
        start_new_session=True,
    )
    site.others.append(server)
    assert server.stdout is not None
    url = server.stdout.readline().decode().split()[3].rstrip(";")

    def status(token: str | None, path: str = "/metrics") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        target = urllib.request.Request(url.removesuffix("/metrics") + path, headers=headers)
        try:
            with urllib.request.urlopen(target, timeout=PATIENCE_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    before = [status(token) for token in (None, "wrong-token-of-ours", "first-token-of-ours")]
    probes = [status(None, path) for path in ("/live", "/ready", "/health")]
    known("second-token-of-ours")
    after = [status(token) for token in ("first-token-of-ours", "second-token-of-ours")]
    auth.write_text("{", encoding="utf-8")
    with_a_bad_file = status("second-token-of-ours")
    health = site.run("health")
    known("second-token-of-ours")
    mended = site.run("health")
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=PATIENCE_S)

    assert (refused.returncode, b"chmod 600 it" in refused.stderr) == (1, True)
    assert (before, probes, after, with_a_bad_file) == ([401, 403, 200], [200, 200, 401], [403, 200], 200)
    assert (health.returncode, mended.returncode) == (1, 0)
    assert "not valid JSON at line 1" in json.loads(health.stdout)["problems"][0]
    audit = "".join(path.read_text("utf-8") for path in (site.root / "audit").glob("*.log"))
    assert audit.count('"access.refuse"') == 2  # the first of each kind in a minute
    assert b"-token-of-ours" not in out + err + audit.encode()


def test_counters_go_on_over_kill_9_and_a_new_start(site: Site) -> None:
    node = site.node().wait_up()
    with site.client() as client:
        client.wait(client.submit("fail", "{}").task_id, timeout_ms=60_000)
        before = client.stats()
        node.kill()
        assert 'node="a"' not in client.metrics()
        site.node().wait_up()

        after = client.stats()

    assert after.task_status == before.task_status == {"DEAD_LETTER": 1}
    assert after.dead_letter_growth_1h == 1


def test_a_log_in_json_names_task_step_and_trace_of_what_was_dead_lettered(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "node.log"
    node = site.node(options=["--log-format", "json", "--log-level", "info", "--log-file", str(file)]).wait_up()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with site.client() as client:
        task_id = client.submit("fail", '{"password": "hunter2"}', traceparent=parent).task_id
        client.wait(task_id, timeout_ms=60_000)
    assert node.terminate() == 0

    text = file.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    about = [line for line in lines if line.get("task_id") == task_id]
    assert [line["message"] for line in about] == ["an attempt failed"] * (len(about) - 1) + ["a step is dead-lettered"]
    assert {line["trace_id"] for line in about} == {"0af7651916cd43dd8448eb211c80319c"}
    assert [line["attempt"] for line in about] == list(range(1, len(about) + 1))
    assert "hunter2" not in text
