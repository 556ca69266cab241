"""Eight processes on one root at full speed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import pytest

from relaymesh.client import Client
from tests.integration.harness import Site, history, read_acknowledged

PROCESSES = 8
NEW_ROOTS = 20
SECONDS = float(os.environ.get("RELAYMESH_TEST_HAMMER_S", "12"))


@pytest.mark.slow
def test_eight_processes_submit_and_work_on_one_root_and_none_is_told_that_it_is_locked(
    make_site: Callable[..., Site],
) -> None:
    # As by default: SQLite does not queue those who wait for the writer, so on a busy machine one of eight may wait
    # longer than the 2 s that the other tests give a lease, and then has lost it.
    site = make_site(settings={"leaseTimeoutMs": 15_000})
    acknowledged = [site.folder / f"acknowledged.{n}" for n in range(PROCESSES)]
    nodes = [
        site.node(
            f"n{number}",
            command=[
                sys.executable,
                "-m",
                "tests.integration.hammer",
                str(site.root),
                f"n{number}",
                str(SECONDS),
                str(acknowledged[number]),
            ],
            measured=False,
        )
        for number in range(PROCESSES)
    ]

    statuses = [node.wait(SECONDS + 90) for node in nodes]

    logs = "\n".join(node.log for node in nodes)
    print(logs)
    assert statuses == [0] * PROCESSES, logs[-4000:]
    assert "locked" not in logs and "busy" not in logs and "Traceback" not in logs, logs[-4000:]
    ids = read_acknowledged(acknowledged)
    assert len(ids) > 1_000
    assert len(set(ids)) == len(ids)
    assert history(site, ids) == {"SUCCESS": len(ids)}
    assert site.rows("SELECT * FROM lease_conflicts") == []
    # All of them took part.
    assert site.one("SELECT count(DISTINCT worker_id) FROM steps") == PROCESSES


def test_eight_processes_make_one_new_root_at_the_same_moment(site: Site) -> None:
    """The first of them makes the tables, under a lock that SQLite does not wait for by itself."""
    begin = time.time() + 3.0  # all of them have been started by then
    words = ("-m", "tests.integration.fresh", str(site.folder / "fresh"), str(NEW_ROOTS), str(begin))
    started = [site.start(*words) for _ in range(PROCESSES)]

    assert [process.wait(60) for process in started] == [0] * PROCESSES

    for number in range(NEW_ROOTS):
        with Client(site.folder / "fresh" / str(number)) as client:
            assert client.query("SELECT count(*) FROM tasks") == [(1,)]
