"""Who owns a step: a live owner keeps it however long it runs, a paused one is fenced."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from tests.integration.harness import NodeProcess, Site, eventually

LEASE_MS = 1_000


def _submit(site: Site, agent: str, ms: int) -> str:
    with site.client() as client:
        return client.submit(agent, {"ms": ms}).task_id


def _pause_when_running(site: Site, node: NodeProcess) -> None:
    eventually(site.ran, what="the step runs")
    node.signal(signal.SIGSTOP)


def test_a_step_of_ten_leases_on_a_live_owner_starts_once(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"leaseTimeoutMs": LEASE_MS})
    site.node("owner").wait_up()
    task_id = _submit(site, "stamp", 10 * LEASE_MS)
    eventually(site.ran, what="the step runs")
    site.node("judge").wait_up()

    site.wait_done()

    assert site.one("SELECT status FROM tasks WHERE task_id=?", task_id) == "SUCCESS"
    assert len(site.ran()) == 1
    assert site.rows("SELECT attempt, lease_epoch FROM steps") == [(1, 1)]
    assert site.rows("SELECT * FROM lease_conflicts") == []


def test_a_paused_owner_is_fenced_and_its_late_result_is_refused_and_recorded(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"leaseTimeoutMs": LEASE_MS})
    paused = site.node("paused").wait_up()
    task_id = _submit(site, "stamp", LEASE_MS)
    _pause_when_running(site, paused)
    site.node("heir").wait_up()
    site.wait_done()

    paused.signal(signal.SIGCONT)

    conflict = eventually(
        lambda: site.rows(
            "SELECT event_type, expected_status, expected_lease_epoch, actual_status, actual_lease_epoch, task_id"
            " FROM lease_conflicts WHERE event_type='success_commit_conflict'"
        ),
        what="the late result is recorded",
    )
    assert conflict == [("success_commit_conflict", "RUNNING", 1, "SUCCESS", 2, task_id)]
    assert len(site.ran()) == 2
    first, second = (line.fence for line in site.ran())
    assert first < second
    (output,) = site.rows("SELECT result_payload FROM steps")[0]
    assert f'"fence":{second}' in output.replace(" ", "")
    assert site.one("SELECT count(*) FROM witness_commit") == 1
    # Whoever was fenced goes on as a member.
    assert paused.process.poll() is None
    assert _submit(site, "stamp", 0)
    site.wait_done()


def test_a_node_that_was_paused_past_its_leases_and_is_alone_still_brings_its_steps_to_an_end(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings={"leaseTimeoutMs": LEASE_MS})
    paused = site.node("paused").wait_up()
    task_id = _submit(site, "linger", 4 * LEASE_MS)
    _pause_when_running(site, paused)
    time.sleep(2 * LEASE_MS / 1000)  # what is tested is a time that passes

    paused.signal(signal.SIGCONT)

    site.wait_done(30)
    assert site.one("SELECT status FROM tasks WHERE task_id=?", task_id) == "SUCCESS"
    assert site.one("SELECT count(*) FROM witness_commit") == 1
