"""Clients that hand their tasks to a node, and the node is killed or stopped under them."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable

from relaymesh.store.root import DATABASE
from tests.integration.harness import NodeProcess, Site, eventually


def test_a_task_handed_to_a_node_runs_and_is_there_once(site: Site) -> None:
    site.node().wait_up()
    with site.client() as client:
        first = client.submit("stamp", {"ms": 0, "n": -1})  # the first of a client is committed by itself

        tasks = [first, *(client.submit("stamp", {"ms": 0, "n": n}) for n in range(20))]

        assert not any(task.deduplicated for task in tasks)
        assert all(client.wait(task.task_id).status == "SUCCESS" for task in tasks)
    assert len({run.step_id for run in site.ran()}) == len(site.ran()) == 21


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
            client.wait(client.submit("stamp", {"ms": 0, "n": n}).task_id)
        eventually(lambda: _stopped_outside_a_transaction(site, node), what="a stop that keeps nobody from writing")

        during = client.submit("stamp", {"ms": 0, "n": 2})

        assert not during.deduplicated
        assert site.one("SELECT count(*) FROM tasks") == 3
        node.signal(signal.SIGCONT)
        assert client.wait(during.task_id).status == "SUCCESS"
        assert client.submit("stamp", {"ms": 0, "n": 2}).task_id == during.task_id
    assert site.one("SELECT count(*) FROM tasks") == 3


def _stopped_outside_a_transaction(site: Site, node: NodeProcess) -> bool:
    """Stop a node; let it go on, and say so, when it was just writing."""
    node.signal(signal.SIGSTOP)
    conn = sqlite3.connect(site.root / DATABASE, timeout=0.2, isolation_level=None)
    try:
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("ROLLBACK")
    except sqlite3.OperationalError:
        node.signal(signal.SIGCONT)
        return False
    finally:
        conn.close()
    return True
