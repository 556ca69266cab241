"""Running nodes and the files that an operator edits under them."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relaymesh.settings import SETTINGS_FILE
from relaymesh.settings.record import read_alert
from tests.integration.harness import NodeProcess, Site, eventually

SECRET_TEXT = "correct-horse-battery-staple"


def worker(site: Site, node_id: str = "a", reload_ms: int = 1000, **options: Any) -> NodeProcess:
    """A worker that looks at the settings every second, or so often."""
    words = [sys.executable, "-m", "relaymesh", "--root", str(site.root), "worker", "--node-id", node_id]
    words += ["--settings-reload-ms", str(reload_ms), "--interval-ms", "200", "--concurrency", "2"]
    node = site.node(node_id, command=[*words, "--agents", str(site.agents)], **options)
    eventually(lambda: '"processed"' in node.log, what="the worker polls")
    return node


def documents(node: NodeProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in node.log.splitlines() if line.startswith("{") and line.endswith("}")]


def edit(site: Site, content: dict[str, object] | str) -> None:
    (site.root / SETTINGS_FILE).write_text(content if isinstance(content, str) else json.dumps(content))


def submit_failure(site: Site, *, delay_ms: int = 0) -> str:
    """Hand in a task that always fails."""
    with site.client() as client:
        return client.submit("fail", "x", idempotency_key=secrets.token_hex(8), delay_ms=delay_ms).task_id


def attempts_of(site: Site, task_id: str) -> int:
    """Wait for its end; return how often it was tried."""
    with site.client() as client:
        client.wait(task_id, timeout_ms=30_000)
        (step,) = client.workflow(task_id).steps
    return step.attempt


def attempts_of_a_failure(site: Site) -> int:
    return attempts_of(site, submit_failure(site))


def results(site: Site) -> list[str]:
    """The results of the loads in the audit log, oldest first."""
    lines = (site.root / "audit" / "audit.log").read_text().splitlines()
    return [row["result"] for row in map(json.loads, lines) if row["action"] == "runtime.settings.load"]


def test_a_running_worker_takes_an_edit_keeps_it_under_a_bad_file_and_takes_the_mended_one(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings={"maxAttempts": 3})
    node = worker(site)
    assert attempts_of_a_failure(site) == 3

    assert site.run("settings", "set", "maxAttempts", "1").returncode == 0
    eventually(lambda: '"changedFields":["maxAttempts"]' in node.log, what="the worker tells of the change")
    assert attempts_of_a_failure(site) == 1
    told = documents(node)
    at = next(number for number, document in enumerate(told) if "changedFields" in document)
    assert "leaseHeartbeats" in told[at + 1], "a MaintenanceOutcome follows"

    # Handed in before: with a bad file nobody can.
    delayed = submit_failure(site, delay_ms=4_000)
    edit(site, '{"maxAttempts": 2, "leaseTimeout": 1}')
    alert = eventually(lambda: read_alert(site.root), what="the alert is raised")
    assert attempts_of(site, delayed) == 1
    assert site.one("SELECT updated_at_ms FROM tasks WHERE task_id=?", delayed) > alert.since_ms
    shown = site.run("settings", "show")
    assert shown.returncode == 1 and b'did you mean "leaseTimeoutMs"' in shown.stderr

    edit(site, {"maxAttempts": 2, "baseBackoffMs": 1, "maxBackoffMs": 1})
    eventually(lambda: read_alert(site.root) is None, what="the alert ends")
    assert attempts_of_a_failure(site) == 2
    assert results(site) == ["reloaded", "reloaded", "error", "reloaded"]
    assert node.terminate() == 0


def test_retry_policies_reach_a_running_worker(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"maxAttempts": 2})
    worker(site)
    assert attempts_of_a_failure(site) == 2
    policy = {"id": "fail", "maxAttempts": 1, "baseBackoffMs": 1, "maxBackoffMs": 1}

    (site.root / "agents" / "retry-policies.json").write_text(json.dumps({"agents": [policy]}))
    log = site.root / "audit" / "audit.log"
    eventually(lambda: '"loaded":1' in log.read_text(), what="the policies are read again")

    assert attempts_of_a_failure(site) == 1


@pytest.mark.slow
def test_a_much_shorter_lease_takes_no_step_from_a_node_that_lives(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"leaseTimeoutMs": 15_000})
    # It notices seconds after the judge, and until then it renews every 2 s.
    owner = worker(site, "owner", reload_ms=5_000)
    with site.client() as client:
        task_id = client.submit("stamp", {"ms": 9_000}).task_id
    eventually(lambda: len(site.ran()) == 1, what="the step runs")
    judge = worker(site, "judge")

    assert site.run("settings", "set", "leaseTimeoutMs", "500").returncode == 0
    eventually(lambda: '"changedFields":["leaseTimeoutMs"]' in owner.log and "changedFields" in judge.log)
    site.wait_done()

    assert len(site.ran()) == 1
    with site.client() as client:
        assert client.task(task_id).status == "SUCCESS"


def test_the_secret_is_in_no_output_no_other_file_and_no_agents_environment(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(settings={"gossipSharedSecret": SECRET_TEXT})
    scripts = {"agents": [{"id": "environment", "command": ["/usr/bin/env"]}]}
    (site.root / "agents" / "scripts.json").write_text(json.dumps(scripts))
    variables = {"RELAYMESH_GOSSIP_SHARED_SECRET": SECRET_TEXT + "-2", "RELAYMESH_BUS_MODE": "files"}
    node = worker(site, environment=variables)
    with site.client() as client:
        task = client.submit("environment", "")
        client.wait(task.task_id, timeout_ms=30_000)
        output = client.output(task.task_id)
    edit(site, '{"gossipSharedSecret": "' + SECRET_TEXT + '", "maxAttempts": "x"}')
    eventually(lambda: read_alert(site.root))

    said = [site.run(*words) for words in (["settings", "show"], ["reload-settings"], ["settings-history"], ["health"])]

    assert "RELAYMESH_BUS_MODE=files" in output and "RELAYMESH_GOSSIP" not in output
    assert node.terminate() == 0
    heard = [node.log.encode(), *(ended.stdout + ended.stderr for ended in said)]
    heard += [path.read_bytes() for path in site.root.rglob("*") if path.is_file() and path.name != SETTINGS_FILE]
    assert [text for text in heard if SECRET_TEXT.encode() in text] == []


def test_the_fields_that_were_named_are_masked_in_the_rows_of_a_node(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"maxAttempts": 1, "auditMaskedFields": ["error"]})
    node = worker(site)
    attempts_of_a_failure(site)
    assert node.terminate() == 0

    lines = (site.root / "audit" / "audit.log").read_text().splitlines()
    (row,) = [row for row in map(json.loads, lines) if row["action"] == "step.execute"]
    assert row["details"]["error"] == "***"
