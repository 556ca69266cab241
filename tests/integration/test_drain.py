"""How a node ends: in order, at once, or killed; and what it leaves behind."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.integration.harness import NodeProcess, Site, eventually, marked, processes

GRACE_MS = 500


def _start_steps(site: Site, agent: str, ms: int, count: int) -> list[str]:
    with site.client() as client:
        ids = [client.submit(agent, {"ms": ms}, idempotency_key=str(n)).task_id for n in range(count)]
    return ids


def _wait_running(site: Site, count: int) -> None:
    eventually(lambda: len(site.ran()) >= count, what=f"{count} steps run")


def _nothing_is_left(site: Site, within_s: float) -> None:
    eventually(lambda: not marked(site.mark), within_s=within_s, what=f"no process is left of {marked(site.mark)}")


def test_at_sigterm_running_steps_end_and_the_others_wait_for_the_next_node(site: Site) -> None:
    node = site.node(concurrency=2).wait_up()
    _start_steps(site, "stamp", 1_500, 4)
    _wait_running(site, 2)

    status = node.terminate()

    assert status == 0, node.log
    assert len(site.ran()) == 2
    steps = site.rows("SELECT status, attempt FROM steps ORDER BY status, id")
    assert steps == [("PENDING", 0), ("PENDING", 0), ("SUCCESS", 1), ("SUCCESS", 1)]
    assert site.one("SELECT status FROM mesh_nodes") == "LEFT"
    _nothing_is_left(site, 2)


def test_a_node_that_waits_for_what_runs_is_shown_as_stopping_and_nobody_counts_on_it(site: Site) -> None:
    node = site.node(options=("--graceful-timeout-ms", "60000")).wait_up()
    _start_steps(site, "linger", 60_000, 1)
    _wait_running(site, 1)
    with site.client() as client:
        assert [(member.status, member.note) for member in client.members()] == [("ALIVE", "")]

        node.signal(signal.SIGTERM)
        eventually(lambda: client.members()[0].note == "stopping", what="it is shown as stopping")

        (member,) = client.status().members
        assert (member.status, member.stopping, member.drained, member.running) == ("ALIVE", True, False, 1)
        (why,) = client.explain(client.submit("stamp", {"ms": 1}).task_id)
        assert (why.reason, why.command) == ("no_node", "relaymesh up")
        screen = site.run("--output", "table", "status").stdout.decode()
        assert "STOPPING" in screen

    node.kill()


def test_what_cannot_end_within_the_grace_time_goes_back_and_counts_as_no_attempt(site: Site) -> None:
    node = site.node(options=("--graceful-timeout-ms", str(GRACE_MS))).wait_up()
    (task_id,) = _start_steps(site, "linger", 60_000, 1)
    _wait_running(site, 1)

    began = time.monotonic()
    status = node.terminate()

    assert status == 0, node.log
    assert time.monotonic() - began < 15
    assert site.rows("SELECT status, attempt, owner_deaths, worker_deaths, lease_owner FROM steps") == [
        ("PENDING", 0, 0, 0, None)
    ]
    assert site.one("SELECT status FROM tasks WHERE task_id=?", task_id) in ("PENDING", "RUNNING", "RETRYING")
    _nothing_is_left(site, 2)


@pytest.mark.parametrize(
    ("first", "second", "status"), [(signal.SIGINT, signal.SIGINT, 130), (signal.SIGINT, signal.SIGTERM, 143)]
)
def test_a_second_signal_ends_at_once_and_still_loses_nothing(site: Site, first: int, second: int, status: int) -> None:
    node = site.node().wait_up()
    _start_steps(site, "stamp", 4_000, 1)
    _wait_running(site, 1)

    node.signal(first)
    eventually(lambda: _draining(site), what="the node drains")
    began = time.monotonic()
    node.signal(second)

    assert node.wait() == status, node.log
    assert time.monotonic() - began < 3
    _nothing_is_left(site, 2)
    assert _stamps(site, "status, attempt") == [("RUNNING", 1)]
    site.node().wait_up()
    site.wait_done()
    assert _stamps(site, "status, attempt, lease_epoch") == [("SUCCESS", 1, 2)]


def _stamps(site: Site, columns: str) -> list[tuple[object, ...]]:
    return site.rows(f"SELECT {columns} FROM steps WHERE agent_id='stamp'")


def _draining(site: Site) -> bool:
    """A node that drains takes nothing new."""
    with site.client() as client:
        task_id = client.submit("say", str(time.monotonic_ns())).task_id
        time.sleep(0.2)
        try:
            return client.task(task_id).status == "PENDING"
        finally:
            client.cancel(task_id)


def test_a_killed_node_leaves_no_worker_and_no_script_behind(site: Site) -> None:
    node = site.node(concurrency=2).wait_up()
    with site.client() as client:
        client.submit("endless_script")
        client.submit("linger", {"ms": 60_000})
    _wait_running(site, 2)
    # RUNNING is said at the claim, a moment before the script is there: two workers, one script.
    eventually(lambda: len(_family(node)) >= 3, what="the script has started")
    family = _family(node)

    node.kill()

    eventually(lambda: not list(processes(family)), within_s=2 + 2, what="no worker or script is left")
    _nothing_is_left(site, 2)


def test_a_worker_that_is_frozen_when_its_node_is_killed_does_not_stay_for_ever(site: Site) -> None:
    """A node freezes a worker before it kills it, so that it starts nothing more; the node may be killed in between."""
    node = site.node(concurrency=1).wait_up()
    with site.client() as client:
        client.submit("endless_script")
    _wait_running(site, 1)
    (worker,) = node.workers()

    worker.suspend()
    node.kill()

    _nothing_is_left(site, 4)


def test_a_worker_that_is_killed_leaves_neither_its_script_nor_a_zombie(site: Site) -> None:
    node = site.node(concurrency=1).wait_up()
    with site.client() as client:
        client.submit("endless_script")
    _wait_running(site, 1)
    (worker,) = node.workers()
    eventually(lambda: bool(worker.children(recursive=True)), what="the script has started")
    below = [child.pid for child in worker.children(recursive=True)]

    worker.kill()

    eventually(lambda: not list(processes(below)), within_s=4, what="the script is gone")
    eventually(lambda: not _zombies(node), within_s=4, what="no zombie below the node")
    error = eventually(lambda: site.one("SELECT error FROM attempts WHERE outcome='worker_died'"))
    assert "signal 9" in error


def _family(node: NodeProcess) -> list[int]:
    return [child.pid for child in psutil.Process(node.pid).children(recursive=True)]


def _zombies(node: NodeProcess) -> list[psutil.Process]:
    return [
        child for child in psutil.Process(node.pid).children(recursive=True) if child.status() == psutil.STATUS_ZOMBIE
    ]
