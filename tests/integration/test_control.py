"""Clients that hand their tasks to a node, and the node is killed or stopped under them."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.integration.harness import Site


def test_a_task_handed_to_a_node_runs_and_is_there_once(site: Site) -> None:
    site.node().wait_up()
    with site.client() as client:
        client.submit("stamp", {"ms": 0, "n": -1})

        tasks = [client.submit("stamp", {"ms": 0, "n": n}) for n in range(20)]

        assert not any(task.deduplicated for task in tasks)
        assert all(client.wait(task.task_id).status == "SUCCESS" for task in tasks)
    # Stored with the lease taken, which only the node itself does.
    assert site.one("SELECT count(*) FROM steps WHERE lease_epoch=1 AND attempt=1") == 21


def test_a_client_goes_on_when_its_node_is_killed_and_when_another_comes(site: Site) -> None:
    node = site.node().wait_up()
    with site.client() as client:
        ids = [client.submit("stamp", {"ms": 0, "n": n}).task_id for n in range(5)]
        node.kill()

        ids += [client.submit("stamp", {"ms": 0, "n": n}).task_id for n in range(5, 10)]
        site.node().wait_up()
        ids += [client.submit("stamp", {"ms": 0, "n": n}).task_id for n in range(10, 15)]

        assert all(client.wait(task_id).status == "SUCCESS" for task_id in ids)
    assert site.one("SELECT count(*) FROM tasks") == len(set(ids)) == 15


def test_a_stopped_node_keeps_no_client_and_stores_nothing_twice_when_it_goes_on(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings={"leaseTimeoutMs": 60_000})
    node = site.node().wait_up()
    with site.client() as client:
        for n in range(2):
            # Ended, so that the node is not stopped while it holds the write lock.
            client.wait(client.submit("stamp", {"ms": 0, "n": n}).task_id)
        node.signal(signal.SIGSTOP)

        during = client.submit("stamp", {"ms": 0, "n": 2})

        assert not during.deduplicated
        assert site.one("SELECT count(*) FROM tasks") == 3
        node.signal(signal.SIGCONT)
        assert client.wait(during.task_id).status == "SUCCESS"
        assert client.submit("stamp", {"ms": 0, "n": 2}).task_id == during.task_id
    assert site.one("SELECT count(*) FROM tasks") == 3
