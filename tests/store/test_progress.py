"""Whether a root stands still, as its tables and locks tell."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from relaymesh.store.health import check
from relaymesh.store.node_row import Capabilities
from relaymesh.store.presence import Presence, host_name, take_presence
from relaymesh.store.progress import oldest_ready_ms, stalled_ms
from tests.store.bench import NOON, Bench

ABLE = Capabilities(
    pools={"echo": "inline", "other": "process"}, limits={"other": 1}, slots={"inline": 2, "process": 4}
)


@pytest.fixture
def presence(bench: Bench) -> Iterator[Presence]:
    """A node that lives, and started an hour before noon."""
    held = take_presence(bench.root / "run", "n1")
    lock = bench.root / "run" / "n1.lock"
    hour_ago_s = NOON / 1000 - 3_600
    os.utime(lock, (hour_ago_s, hour_ago_s))
    with bench.store.write():
        bench.store.register_node("n1", pid=1, host=host_name(), agents=ABLE.to_json(), now_ms=NOON - 3_600_000)
    yield held
    held.release()


def stalled(bench: Bench) -> int:
    return stalled_ms(bench.store.conn, bench.root / "run", now_ms=bench.now_ms)


def test_ready_work_beside_free_slots_is_a_standstill_from_when_it_was_ready(bench: Bench, presence: Presence) -> None:
    bench.one()
    bench.now_ms += 12_000

    assert stalled(bench) == 12_000


def test_an_empty_queue_is_none(bench: Bench, presence: Presence) -> None:
    bench.one()
    bench.run_all()
    bench.now_ms += 3_600_000

    assert stalled(bench) == 0


def test_a_claim_is_a_movement(bench: Bench, presence: Presence) -> None:
    bench.one(), bench.one()
    bench.now_ms += 12_000
    bench.claim(limit=1)
    bench.now_ms += 3_000

    assert stalled(bench) == 3_000


def test_the_end_of_a_step_is_a_movement_and_a_submit_is_none(bench: Bench, presence: Presence) -> None:
    bench.one(), bench.one()
    (lease,) = bench.claim(limit=1)
    bench.now_ms += 20_000
    bench.succeed(lease)
    bench.now_ms += 5_000
    bench.one()
    bench.now_ms += 5_000

    assert stalled(bench) == pytest.approx(10_000, abs=2)


def test_a_node_whose_slots_are_all_taken_is_busy(bench: Bench, presence: Presence) -> None:
    for _ in range(3):
        bench.one()
    bench.claim(limit=2)
    bench.now_ms += 60_000

    assert stalled(bench) == 0


def test_an_agent_at_its_limit_waits_for_its_turn(bench: Bench, presence: Presence) -> None:
    bench.one("other"), bench.one("other")
    bench.claim(limit=1)
    bench.now_ms += 60_000

    assert stalled(bench) == 0


def test_a_dead_node_has_no_slots(bench: Bench, presence: Presence) -> None:
    bench.one()
    bench.now_ms += 60_000
    presence.release()

    assert stalled(bench) == 0


def test_a_node_that_has_just_started_is_given_its_time(bench: Bench, presence: Presence) -> None:
    bench.one()
    bench.now_ms += 60_000
    os.utime(bench.root / "run" / "n1.lock", (bench.now_ms / 1000 - 1, bench.now_ms / 1000 - 1))

    assert stalled(bench) == pytest.approx(1_000, abs=2)


def test_delayed_steps_are_not_ready(bench: Bench, presence: Presence) -> None:
    bench.one(not_before_ms=NOON + 3_600_000)
    bench.now_ms += 60_000

    assert (oldest_ready_ms(bench.store.conn), stalled(bench)) == ({}, 0)


def test_a_row_that_somebody_wrote_by_hand_is_as_old_as_it_says(bench: Bench) -> None:
    bench.one()
    with bench.store.write():
        conn = bench.store.conn
        conn.execute("INSERT INTO tasks(task_id, status, created_at_ms, updated_at_ms) VALUES ('t', 'PENDING', 5, 5)")
        conn.execute(
            "INSERT INTO steps(step_id, task_id, agent_id, status, created_at_ms, updated_at_ms)"
            " VALUES ('s', 't', 'echo', 'PENDING', 5, 5)"
        )

    assert oldest_ready_ms(bench.store.conn) == {"echo": 5}


def test_health_is_red_for_a_standstill_of_ten_seconds_both_ways(bench: Bench, presence: Presence) -> None:
    bench.one()

    soon = check(bench.root, now_ms=NOON + 9_999)
    late = check(bench.root, now_ms=NOON + 10_000)

    assert (soon.ok, soon.live, soon.stalled, soon.stalled_ms) == (True, True, False, 9_999)
    assert (late.ok, late.ready, late.live, late.stalled) == (False, False, False, True)
    assert "nothing has moved for 10 s" in late.problems[0]


def test_a_short_disk_makes_a_root_not_ready_but_leaves_it_alive(bench: Bench) -> None:
    found = check(bench.root, now_ms=NOON, min_free_disk_bytes=1 << 60)

    assert (found.ok, found.ready, found.live, found.disk_pressure) == (False, False, True, True)
    assert "make room" in found.problems[0]


def test_settings_that_cannot_be_read_make_a_root_not_ready(bench: Bench) -> None:
    found = check(bench.root, now_ms=NOON, file_problems=["the settings are not valid"])

    assert (found.ok, found.live, found.problems) == (False, True, ("the settings are not valid",))


def test_a_root_that_is_not_there_is_neither_alive_nor_ready(tmp_path) -> None:
    found = check(tmp_path / "nowhere", now_ms=NOON)

    assert (found.ok, found.live, found.db_ok) == (False, False, False)
    assert any("relaymesh init" in problem for problem in found.problems)
