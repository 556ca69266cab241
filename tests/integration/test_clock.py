"""The wall clock jumps an hour, either way: no lease is lost, nothing is taken from anybody, no backoff grows."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.system import build
from relaymesh.core.clock_guard import Reading
from relaymesh.node import NodeOptions
from tests.integration.harness import Site, eventually, history

HOUR_S = 3_600
LEASE_MS = 2_000
JUMPS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["an hour ahead", "an hour back"])


class Clock:
    """A wall clock for processes that are started under the shim."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if sys.platform != "linux" or compiler is None:
            pytest.skip("no C compiler for the clock shim, or no LD_PRELOAD here")
        library = folder / "clock_shim.so"
        source = Path(__file__).with_name("clock_shim.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        self._offset = folder / "offset"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "RELAYMESH_TEST_CLOCK": str(self._offset)}

    def set(self, offset_s: int) -> None:
        """Written in place: the processes have the file mapped."""
        with open(self._offset, "r+b" if self._offset.exists() else "w+b") as file:
            file.write(struct.pack("<q", offset_s))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


def _submit_long(site: Site, count: int, ms: int) -> list[str]:
    with site.client() as client:
        ids = [client.submit("stamp", {"ms": ms}, idempotency_key=str(n)).task_id for n in range(count)]
    eventually(lambda: len(site.ran()) == count, what="the steps run")
    return ids


def _each_ran_once(site: Site, ids: list[str]) -> None:
    site.wait_done()
    assert history(site, ids) == {"SUCCESS": len(ids)}
    assert len(site.ran()) == len(ids), "a step was started again"
    assert site.rows("SELECT DISTINCT attempt, lease_epoch FROM steps") == [(1, 1)]
    assert site.rows("SELECT * FROM lease_conflicts") == []


@JUMPS
def test_a_jump_of_all_clocks_of_a_machine_costs_no_lease_even_for_a_node_that_starts_just_then(
    make_site: Callable[..., Site], clock: Clock, jump_s: int
) -> None:
    site = make_site(settings={"leaseTimeoutMs": 12_000})
    owners = [site.node(node_id, environment=clock.environment).wait_up() for node_id in ("a", "b")]
    ids = _submit_long(site, 4, 9_000)
    eventually(lambda: site.one("SELECT count(*) FROM cluster_state WHERE state_key='clock'"), what="a heartbeat")

    # The owners stand still for a moment, so that all that the newcomer sees is from before the jump.
    for owner in owners:
        owner.signal(signal.SIGSTOP)
    clock.set(jump_s)
    late = site.node("c", environment=clock.environment).wait_up()
    time.sleep(2.5)  # it looks at the leases of others once a second
    for owner in owners:
        owner.signal(signal.SIGCONT)

    _each_ran_once(site, ids)
    (now_ms,) = {row[0] for row in site.rows("SELECT max(last_heartbeat_ms) FROM mesh_nodes")}
    assert abs(now_ms / 1000 - time.time() - max(0, jump_s)) < 60, "the shim did not move the clock"
    assert late.process.poll() is None


@JUMPS
def test_a_jump_of_one_nodes_clock_takes_nothing_from_it_or_from_others(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    site = make_site(settings={"leaseTimeoutMs": LEASE_MS})
    for name, value in site.environment.items():
        monkeypatch.setenv(name, value)
    site.node("other", concurrency=2).wait_up()
    node = build(NodeOptions(root=site.root, node_id="jumps", concurrency=2, agents=(str(site.agents),)))
    try:
        ids = _submit_long(site, 4, 3 * LEASE_MS)
        assert site.one("SELECT count(DISTINCT lease_owner) FROM steps") == 2
        reading = node.reading

        node.now_ms = lambda: time.time_ns() // 1_000_000 + jump_s * 1000  # type: ignore[method-assign]
        node.reading = lambda: Reading(node.now_ms(), reading().mono_ns, reading().boot_id)  # type: ignore[method-assign]

        _each_ran_once(site, ids)
    finally:
        node.stop(0)


def test_a_backoff_does_not_grow_by_the_hour_that_the_clock_is_set_back(
    make_site: Callable[..., Site], clock: Clock
) -> None:
    backoff = {"maxAttempts": 2, "baseBackoffMs": 3_000, "maxBackoffMs": 3_000}
    site = make_site(settings={"leaseTimeoutMs": LEASE_MS, **backoff})
    site.node(environment=clock.environment).wait_up()
    with site.client() as client:
        task_id = client.submit("fail", "x").task_id
        eventually(lambda: site.one("SELECT status FROM steps") == "RETRYING", what="the first attempt has failed")

        clock.set(-HOUR_S)

        assert client.wait(task_id, timeout_ms=20_000).status == "DEAD_LETTER"
        assert site.one("SELECT attempt FROM steps") == 2


@JUMPS
def test_a_schedule_goes_on_after_a_jump_and_makes_no_tick_twice(
    make_site: Callable[..., Site], clock: Clock, jump_s: int
) -> None:
    site = make_site(settings={"leaseTimeoutMs": LEASE_MS})
    site.node(environment=clock.environment).wait_up()
    with site.client() as client:
        client.schedules.create("often", every_ms=1_000, agent="echo")
    eventually(lambda: site.one("SELECT made FROM schedules") >= 2, what="ticks are made")

    clock.set(jump_s)
    made = site.one("SELECT made FROM schedules")

    eventually(lambda: site.one("SELECT made FROM schedules") >= made + 3, within_s=20, what="it goes on")
    ticks = [tick for (tick,) in site.rows("SELECT tick_ms FROM schedule_ticks")]
    assert len(ticks) == len(set(ticks)) == site.one("SELECT count(*) FROM tasks")
    assert len(ticks) < 20, "one run makes up for all that a jump seems to have missed"
    after_the_jump = max(ticks) if jump_s > 0 else min(ticks)
    assert abs(after_the_jump / 1000 - time.time() - jump_s) < 60, "the shim did not move the clock"
