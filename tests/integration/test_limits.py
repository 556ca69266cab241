"""Limits and pauses with real nodes: never exceeded, nothing leaked by a kill, and heard while the node runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import Site, eventually
from tests.integration.limit_storm import LimitStorm


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, settings={"leaseTimeoutMs": 2_000})
    yield site
    site.close()


@pytest.mark.slow
def test_eight_processes_together_exceed_no_limit(site: Site) -> None:
    storm = LimitStorm(site)
    storm.submit(400)

    storm.start()
    storm.run(3)

    assert storm.check()["starts"] >= 400


def test_a_node_that_is_killed_under_a_limit_leaks_no_place(site: Site) -> None:
    with site.client() as client:
        client.set_limit("agent", "sleep", max_concurrency=2)
        held = [client.submit("sleep", "60000", concurrency_key=f"k{n}", idempotency_key=f"a{n}") for n in range(2)]
        first = site.node("a", concurrency=1, measured=False).wait_up()
        eventually(lambda: site.one("SELECT count(*) FROM steps WHERE status='RUNNING'") == 2, what="both run")
        waiting = client.submit("sleep", "1", concurrency_key="k0")
        (why,) = client.explain(waiting.task_id)
        assert why.reason == "agent_concurrency"

        first.kill()
        site.node("b", concurrency=1, measured=False).wait_up()
        eventually(
            lambda: site.one("SELECT count(*) FROM steps WHERE status='RUNNING' AND lease_owner='b'") == 2,
            what="the other node has taken both over",
        )
        for task in held:
            client.cancel(task.task_id)

        assert client.wait(waiting.task_id, timeout_ms=30_000).status == "SUCCESS"


def test_a_running_node_hears_of_a_pause_and_of_its_end_and_both_survive_restarts(site: Site) -> None:
    node = site.node("a", concurrency=1, measured=False).wait_up()
    with site.client() as client:
        assert client.result(client.submit("echo", "before").task_id)

        client.pause_queue(agent="echo", reason="the model is down")
        paused = client.submit("echo", "while paused")
        other = client.submit("sleep", "1")
        assert client.wait(other.task_id, timeout_ms=30_000).status == "SUCCESS"
        (why,) = client.explain(paused.task_id)
        assert (why.reason, why.command) == ("queue_paused", "relaymesh queue resume --agent echo")
        node.terminate()
        site.node("a", concurrency=1, measured=False).wait_up()
        again = client.submit("sleep", "2")
        client.wait(again.task_id, timeout_ms=30_000)
        assert client.task(paused.task_id).status == "PENDING"

        client.resume_queue(agent="echo")
        assert client.wait(paused.task_id, timeout_ms=30_000).status == "SUCCESS"


def test_a_drained_node_ends_what_it_runs_and_takes_no_more_until_it_is_taken_back(site: Site) -> None:
    site.node("a", concurrency=1, measured=False).wait_up()
    with site.client() as client:
        running = client.submit("sleep", "1500")
        eventually(lambda: client.task(running.task_id).status == "RUNNING", what="it runs")

        client.drain_node("a")
        later = client.submit("sleep", "1")

        assert client.wait(running.task_id, timeout_ms=30_000).status == "SUCCESS"
        assert eventually(lambda: client.queue_status().drained) == ("a",)
        (why,) = client.explain(later.task_id)
        assert why.reason == "no_node"
        client.resume_queue(node="a")
        assert client.wait(later.task_id, timeout_ms=30_000).status == "SUCCESS"


def test_a_rate_gives_the_next_start_by_itself_when_nothing_else_happens(site: Site) -> None:
    with site.client() as client:
        client.set_limit("agent", "echo", rate="1/300ms")
        site.node("a", concurrency=1, measured=False).wait_up()
        tasks = [client.submit("echo", str(number)) for number in range(4)]

        for task in tasks:
            client.wait(task.task_id, timeout_ms=30_000)

    starts = [at_ms for (at_ms,) in site.rows("SELECT started_at_ms FROM steps ORDER BY started_at_ms")]
    assert all(later - earlier >= 300 for earlier, later in itertools.pairwise(starts))


def test_a_limit_that_is_raised_lets_a_running_node_take_more(site: Site) -> None:
    with site.client() as client:
        client.set_limit("overall", max_concurrency=1)
        site.node("a", concurrency=1, measured=False).wait_up()
        for number in range(3):
            client.submit("sleep", "60000", idempotency_key=str(number))
        eventually(lambda: site.one("SELECT count(*) FROM steps WHERE status='RUNNING'") == 1, what="one runs")

        client.set_limit("overall", max_concurrency=3)

        eventually(lambda: site.one("SELECT count(*) FROM steps WHERE status='RUNNING'") == 3, what="all run")
