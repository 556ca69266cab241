"""Back to work after a crash, without waiting for a lease of 15 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.integration.harness import Site, eventually

LEASE_S = 30


def _crash_with_running_steps(site: Site, count: int) -> float:
    node = site.node("first", concurrency=count).wait_up()
    with site.client() as client:
        for number in range(count):
            client.submit("stamp", {"ms": 3_000}, idempotency_key=str(number))
    eventually(lambda: len(site.ran()) == count, what="the steps run")
    node.kill()
    return time.monotonic()


def test_a_restarted_node_runs_the_steps_of_its_former_self_at_once(make_site: Callable[..., Site]) -> None:
    site = make_site(settings={"leaseTimeoutMs": LEASE_S * 1000})
    killed = _crash_with_running_steps(site, 2)

    node = site.node("first", concurrency=2)

    eventually(lambda: len(site.ran()) == 4, within_s=LEASE_S / 2, what="the steps run again")
    assert time.monotonic() - killed < LEASE_S / 2
    site.wait_done()
    assert "took back 2 steps of its former self" in node.log
    # The end of a node is no attempt of the agent.
    assert site.rows("SELECT attempt, lease_epoch, owner_deaths FROM steps") == [(1, 2, 1), (1, 2, 1)]


def test_another_node_takes_the_steps_of_a_killed_one_as_soon_as_its_lock_is_gone(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(settings={"leaseTimeoutMs": LEASE_S * 1000})
    site.node("second", concurrency=2, options=()).wait_up()
    # The second is busy while the first gets its steps.
    with site.client() as client:
        for number in range(2):
            client.submit("stamp", {"ms": 12_000}, idempotency_key=f"busy-{number}")
    eventually(lambda: len(site.ran()) == 2)
    node = site.node("first", concurrency=2).wait_up()
    with site.client() as client:
        for number in range(2):
            client.submit("stamp", {"ms": 9_000}, idempotency_key=f"theirs-{number}")
    eventually(lambda: site.one("SELECT count(*) FROM steps WHERE lease_owner='first'") == 2 and len(site.ran()) == 4)

    node.kill()

    eventually(
        lambda: not site.one("SELECT count(*) FROM steps WHERE lease_owner='first'"),
        within_s=LEASE_S / 2,
        what="the steps are taken from the dead node",
    )
    site.wait_done()
    assert site.one("SELECT count(*) FROM steps WHERE status='SUCCESS'") == 4
    assert {row[0] for row in site.rows("SELECT outcome FROM attempts")} == {"owner_dead"}
