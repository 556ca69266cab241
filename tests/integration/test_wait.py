"""No ready step waits while a fitting slot is free."""

from __future__ import annotations

import statistics

from tests.integration.harness import Site, eventually


def _warm_up(site: Site, count: int) -> None:
    """Let the workers show that their steps are short, so that they are sent ahead."""
    with site.client() as client:
        ids = [client.submit("stamp", {}, idempotency_key=f"warm-{n}").task_id for n in range(count)]
        for task_id in ids:
            client.wait(task_id, timeout_ms=60_000)


def test_steps_that_were_sent_ahead_of_a_slow_one_are_run_by_another_worker_while_it_runs(site: Site) -> None:
    site.node(concurrency=2).wait_up()
    _warm_up(site, 200)

    with site.client() as client:
        # In one commit, so that they are claimed together and stand in one line.
        slow = client.submit_workflow(
            {
                "steps": [
                    {"id": "slow", "agent": "stamp", "input": {"ms": 4_000}, "priority": "high"},
                    *({"id": f"s{n}", "agent": "stamp", "input": {"ms": 1}} for n in range(60)),
                ]
            }
        )
        eventually(
            lambda: site.one("SELECT count(*) FROM steps WHERE task_id=? AND status='SUCCESS'", slow.task_id) == 60,
            within_s=20,
            what="all the short ones are done",
        )
        assert site.one("SELECT status FROM steps WHERE step_id LIKE '%_slow'") == "RUNNING"
        client.wait(slow.task_id, timeout_ms=20_000)
    assert site.one("SELECT max(attempt) FROM steps WHERE task_id=?", slow.task_id) == 1


def test_a_step_starts_at_once_when_a_slot_is_free(site: Site) -> None:
    site.node(concurrency=2).wait_up()
    _warm_up(site, 10)

    with site.client() as client:
        for number in range(40):
            task_id = client.submit("stamp", {"ms": 1}, idempotency_key=f"one-{number}").task_id
            client.wait(task_id, timeout_ms=20_000)

    waited = [
        row[0]
        for row in site.rows(
            "SELECT s.started_at_ms - s.created_at_ms FROM steps s JOIN tasks t USING(task_id)"
            " WHERE t.idempotency_key LIKE 'one-%'"
        )
    ]
    assert len(waited) == 40
    assert statistics.median(waited) <= 100, waited


def test_a_free_worker_takes_what_waits_behind_a_busy_one(site: Site) -> None:
    site.node(concurrency=2).wait_up()
    _warm_up(site, 10)
    with site.client() as client:
        slow = client.submit("stamp", {"ms": 3_000}).task_id
        eventually(lambda: site.one("SELECT status FROM steps WHERE task_id=?", slow) == "RUNNING")

        for number in range(10):
            client.wait(client.submit("stamp", {"ms": 20}, idempotency_key=f"q{number}").task_id, timeout_ms=20_000)

        assert client.task(slow).status == "RUNNING"
        client.wait(slow, timeout_ms=20_000)
