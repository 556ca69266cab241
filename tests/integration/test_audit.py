"""The audit log of real nodes and commands: what is in it, and that it is whole after any end."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from relaymesh import Workflow
from relaymesh.audit import AuditTrail
from relaymesh.audit.verify import verify
from tests.audit import chain
from tests.integration.harness import Site, eventually


def rows_of(site: Site, action: str) -> list[dict[str, Any]]:
    return [row for row in chain.rows(site.root) if row["action"] == action]


def test_a_node_records_every_step_that_it_ends(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"maxAttempts": 2, "baseBackoffMs": 10, "maxBackoffMs": 10})
    site.node("n1", options=("--worker-id", "w1")).wait_up()
    flow = Workflow()
    first, second = flow.step("a", "echo", "x"), flow.step("b", "echo", "y")
    flow.step("join", "echo", [first.output, second.output])
    with site.client() as client:
        single = client.submit("echo", "hello", traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01").task_id
        again = client.submit("echo", "hello").task_id
        failing = client.submit("fail", "x").task_id
        workflow = client.submit_workflow(flow).task_id
        for task_id in (single, failing, workflow):
            client.wait(task_id, timeout_ms=30_000)
        client.replay(failing)
    site.wait_done()
    eventually(lambda: len(rows_of(site, "step.execute")) == 8, what="every attempt is recorded")

    assert again == single
    submitted = [(row["task_id"], row["result"]) for row in rows_of(site, "task.submit")]
    assert submitted == [(single, "submitted"), (single, "deduplicated"), (failing, "submitted")]
    (flow_row,) = rows_of(site, "workflow.submit")
    assert (flow_row["task_id"], flow_row["details"]) == (workflow, {"step_count": 3, "ready_steps": 2})
    executed = rows_of(site, "step.execute")
    assert {row["actor"] for row in executed} == {"w1"}
    results = Counter((row["task_id"], row["result"]) for row in executed)
    assert results[single, "task_completed"] == 1
    assert results[failing, "retry_scheduled"] == results[failing, "dead_lettered"] == 2  # before and after the replay
    assert (results[workflow, "step_completed"], results[workflow, "task_completed"]) == (2, 1)
    assert sum(row["details"].get("ready_steps", 0) for row in executed if row["task_id"] == workflow) == 1
    (traced,) = [row for row in executed if row["task_id"] == single]
    assert (traced["trace_id"], len(traced["span_id"])) == ("ab" * 16, 16)
    (replayed,) = rows_of(site, "dead.replay")
    assert (replayed["actor"], replayed["result"], replayed["task_id"]) == ("cli", "replayed", failing)
    assert [row["action"] for row in chain.rows(site.root)].count("audit.gap") == 0


@pytest.mark.slow
def test_a_killed_node_leaves_a_whole_chain_and_its_next_start_says_so(make_site: Callable[..., Site]) -> None:
    site = make_site()
    chance = random.Random(3)
    for _ in range(2):
        node = site.node("n1").wait_up()
        with site.client() as client:
            for number in range(chance.randrange(20, 200)):
                client.submit("echo", f"{chance.random()} {number}")
        node.kill()
    site.node("n1").wait_up()
    site.wait_done()
    eventually(lambda: len(rows_of(site, "audit.gap")) == 2, what="each death is told of")

    assert verify(AuditTrail(site.root).place).reason == ""
    for gap in rows_of(site, "audit.gap"):
        assert (gap["result"], gap["details"]["cause"]) == ("possible", "node_died")
    looked = [(row["result"], row["details"]["reclaimed"] > 0) for row in rows_of(site, "ownership.recover")]
    assert len(looked) == 2
    assert set(looked) <= {("recovered", True), ("noop", False)}
    tasks = sorted(row[0] for row in site.rows("SELECT task_id FROM tasks"))
    eventually(
        lambda: sorted(row["task_id"] for row in rows_of(site, "task.submit")) == tasks,
        what="each task is recorded, once",
    )


@pytest.mark.slow
def test_steps_of_a_dead_node_are_recorded_as_taken_back(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"leaseTimeoutMs": 15_000})
    site.node("other", concurrency=1).wait_up()
    with site.client() as client:
        client.submit("stamp", {"ms": 8_000}, idempotency_key="busy")
    eventually(lambda: len(site.ran()) == 1)
    dying = site.node("dying", concurrency=1).wait_up()
    with site.client() as client:
        client.submit("stamp", {"ms": 3_000}, idempotency_key="theirs")
    eventually(lambda: site.one("SELECT count(*) FROM steps WHERE lease_owner='dying'") == 1 and len(site.ran()) == 2)

    dying.kill()

    eventually(lambda: bool(rows_of(site, "ownership.recover.dead_node")), what="the recovery is recorded")
    (recovered,) = rows_of(site, "ownership.recover.dead_node")
    assert recovered["details"] == {
        "dead_nodes": ["dying"],
        "reclaimed": 1,
        "retry_scheduled": 1,
        "dead_lettered": 0,
    }
    (tick,) = rows_of(site, "maintenance.tick")
    assert tick["details"]["dead_owner_reclaimed"] == 1
    site.wait_done()


def test_a_task_that_expires_is_recorded_as_cancelled_by_maintenance(make_site: Callable[..., Site]) -> None:
    site = make_site()
    with site.client() as client:
        task_id = client.submit("echo", "late", delay_ms=60_000, expires_in_ms=1).task_id
    site.node("n1").wait_up()

    eventually(lambda: bool(rows_of(site, "task.cancel")), what="the expiry is recorded")

    (row,) = rows_of(site, "task.cancel")
    assert (row["actor"], row["result"], row["task_id"]) == ("maintenance", "cancelled", task_id)
    assert row["details"]["reason"] == "expired"


def test_a_full_audit_disk_loses_no_work_and_is_told_of(make_site: Callable[..., Site]) -> None:
    site = make_site()
    log = site.root / "audit" / "audit.log"
    with site.client() as client:
        client.submit("echo", "before")
        log.rename(log.with_suffix(".aside"))
        log.mkdir()  # nobody can append to a folder, root included
        outcome = client.submit("echo", "meanwhile")
        log.rmdir()
        log.with_suffix(".aside").rename(log)
        client.submit("echo", "after")

        assert client.task(outcome.task_id).status == "PENDING"
    actions = [row["action"] for row in chain.rows(site.root)]
    assert actions == ["task.submit", "audit.gap", "task.submit"]


@pytest.mark.parametrize("tampering", ["changed", "removed", "cut"])
def test_the_command_names_the_first_record_that_was_tampered_with(
    make_site: Callable[..., Site], tampering: str
) -> None:
    site = make_site()
    with site.client() as client:
        for number in range(4):
            client.submit("echo", f"{number}")
    log = site.root / "audit" / "audit.log"
    lines = log.read_bytes().splitlines(keepends=True)
    match tampering:
        case "changed":
            lines[1] = lines[1].replace(b'"echo"', b'"evil"')
        case "removed":
            del lines[1]
        case _:
            del lines[2:]
    log.write_bytes(b"".join(lines))

    with site.client() as client:
        sentences: list[str] = []
        found = client.audit_verify(on_fault=sentences.append)

    first = 3 if tampering == "cut" else 2
    assert (found.ok, found.broken_line) == (False, first)
    assert f"record {first} is the first that is broken" in sentences[0]
    assert json.loads(chain.lines(site.root)[-1])["result"] == "failed"  # the check is recorded itself
