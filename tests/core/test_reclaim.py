"""The judge: what expires, when, and that no jump of a clock makes it so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core import clock_guard
from relaymesh.core.mesh.placement import ranked
from relaymesh.core.reclaim import TURN_MS, Cause, Expire, Reclaim, RunningRow, Scanned

LEASE_MS = 10_000
PATIENCE_MS = 10_300
HOUR_MS = 3_600_000
WALL_MS = 1_700_000_000_000
ROW = RunningRow(1, "lease_a", WALL_MS, "node-a", 7)


def ns(ms: int) -> int:
    return ms * 1_000_000


def judge(**options: int) -> Reclaim:
    return Reclaim(lease_timeout_ms=LEASE_MS, **options)


def scan(
    machine: Reclaim, at_ms: int, *rows: RunningRow, wall_ms: int | None = None, dead: str = "", took_ms: int = 0
) -> list[Expire]:
    event = Scanned(rows, ns(at_ms), wall_ms, frozenset(dead.split()))
    return machine.handle(ns(at_ms + took_ms), event)


def test_a_row_that_stays_the_same_for_a_lease_and_a_bit_expires() -> None:
    machine = judge()

    assert scan(machine, 0, ROW) == []
    assert scan(machine, PATIENCE_MS - 1, ROW) == []
    assert scan(machine, PATIENCE_MS, ROW) == [Expire(ROW, Cause.SILENT)]


def test_a_renewal_starts_the_watch_anew() -> None:
    machine, renewed = judge(), replace(ROW, updated_at_ms=WALL_MS + 1)

    scan(machine, 0, ROW)
    scan(machine, 10_000, renewed)

    assert scan(machine, 10_000 + PATIENCE_MS - 1, renewed) == []
    assert scan(machine, 10_000 + PATIENCE_MS, renewed) == [Expire(renewed, Cause.SILENT)]


def test_a_new_owner_starts_the_watch_anew_even_at_the_same_wall_time() -> None:
    machine, taken = judge(), replace(ROW, token="lease_b", owner="node-b", lease_epoch=8)

    scan(machine, 0, ROW)

    assert scan(machine, PATIENCE_MS, taken) == []


def test_the_watch_starts_at_the_receipt_of_a_row_and_ends_where_the_scan_was_asked_for() -> None:
    machine = judge()

    scan(machine, 0, ROW, took_ms=500)

    assert scan(machine, PATIENCE_MS + 499, ROW, took_ms=5_000) == []
    assert scan(machine, PATIENCE_MS + 500, ROW) == [Expire(ROW, Cause.SILENT)]


def test_what_could_not_be_taken_is_asked_for_again() -> None:
    machine = judge()
    scan(machine, 0, ROW)

    assert scan(machine, PATIENCE_MS, ROW) == scan(machine, PATIENCE_MS + 1, ROW) == [Expire(ROW, Cause.SILENT)]


def test_the_steps_of_a_dead_owner_expire_at_once() -> None:
    other = replace(ROW, row_id=2, owner="node-b")

    assert scan(judge(), 0, ROW, other, dead="node-b node-c") == [Expire(other, Cause.DEAD_OWNER)]


def test_a_process_that_just_started_judges_by_the_wall_clock() -> None:
    old, fresh = replace(ROW, row_id=2, updated_at_ms=WALL_MS - LEASE_MS), replace(ROW, updated_at_ms=WALL_MS - 9_999)

    assert scan(judge(), 0, fresh, old, wall_ms=WALL_MS) == [Expire(old, Cause.WALL)]


def test_a_doubted_wall_clock_expires_nothing_and_the_row_is_watched_instead() -> None:
    machine, old = judge(), replace(ROW, updated_at_ms=WALL_MS - HOUR_MS)

    assert scan(machine, 0, old, wall_ms=None) == []
    assert scan(machine, PATIENCE_MS, old, wall_ms=None) == [Expire(old, Cause.SILENT)]


def test_after_the_first_scan_the_wall_clock_has_no_say() -> None:
    machine = judge()
    scan(machine, 0, wall_ms=WALL_MS)

    assert scan(machine, 1_000, replace(ROW, updated_at_ms=WALL_MS - HOUR_MS), wall_ms=WALL_MS + 1_000) == []


def test_no_more_than_the_limit_expires_per_scan_oldest_first_and_the_rest_follows() -> None:
    machine = judge(expire_max=2)
    rows = [replace(ROW, row_id=n, updated_at_ms=WALL_MS - HOUR_MS - n) for n in range(5)]

    first = scan(machine, 0, *rows, wall_ms=WALL_MS)
    rest = scan(machine, 1, *rows[:3], wall_ms=WALL_MS)

    assert [expire.row.row_id for expire in first] == [4, 3]
    assert [(expire.row.row_id, expire.cause) for expire in rest] == [(2, Cause.WALL), (1, Cause.WALL)]


def test_dead_owners_and_silent_ones_have_a_limit_each() -> None:
    machine = judge(expire_max=1)
    rows = [replace(ROW, row_id=n, owner=owner) for n, owner in enumerate(["a", "a", "b", "b"])]
    scan(machine, 0, *rows)

    expired = scan(machine, PATIENCE_MS, *rows, dead="b")

    assert [(e.row.row_id, e.cause) for e in expired] == [(2, Cause.DEAD_OWNER), (0, Cause.SILENT)]


def test_only_so_many_rows_are_watched_and_the_oldest_come_first() -> None:
    machine = judge(rows_max=3)
    rows = [replace(ROW, row_id=n, updated_at_ms=WALL_MS - n) for n in range(10)]

    scan(machine, 0, *rows)

    assert {expire.row.row_id for expire in scan(machine, PATIENCE_MS, *rows)} == {7, 8, 9}


def test_rows_that_ended_are_forgotten() -> None:
    machine = judge()
    scan(machine, 0, ROW)

    scan(machine, 1_000)

    assert scan(machine, PATIENCE_MS, ROW) == []


@pytest.mark.parametrize("options", [{"expire_max": 0}, {"rows_max": 0}])
def test_limits_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        judge(**options)


# One world for the properties: an owner that renews every third of a lease, at most, on a wall clock that jumps.
jumps = st.integers(-HOUR_MS, HOUR_MS) | st.sampled_from([0, 0, HOUR_MS, -HOUR_MS, 4_000, -4_000])


def is_seen_by_the_guard(jump_ms: int) -> bool:
    return jump_ms == 0 or abs(jump_ms) > clock_guard.jump_threshold_ms(LEASE_MS)


moves = st.lists(st.tuples(st.integers(1, LEASE_MS // 3), jumps, st.booleans(), st.booleans()), max_size=60)


@settings(deadline=None, max_examples=80)
@given(moves)
def test_no_jumps_of_the_wall_clock_expire_a_row_that_is_renewed_every_period(
    moves: list[tuple[int, int, bool, bool]],
) -> None:
    machine, now_ms, offset_ms, last_renewal_ms = judge(), 0, 0, 0
    rows = [ROW]
    guard = clock_guard.tick(None, clock_guard.Reading(WALL_MS, 0, "boot"), LEASE_MS).state
    assert scan(machine, 0, *rows, wall_ms=WALL_MS) == []
    for advance_ms, jump_ms, claims, scans in moves:
        now_ms += advance_ms
        wall_ms = WALL_MS + now_ms + offset_ms
        if now_ms - last_renewal_ms >= LEASE_MS // 3:
            rows = [replace(row, updated_at_ms=max(wall_ms, row.updated_at_ms + 1)) for row in rows]
            last_renewal_ms = now_ms
        if claims:
            rows.append(replace(ROW, row_id=len(rows) + 1, updated_at_ms=wall_ms))
        offset_ms += jump_ms
        if scans:
            reading = clock_guard.Reading(wall_ms + jump_ms, ns(now_ms), "boot")
            verdict = clock_guard.tick(guard, reading, LEASE_MS)
            guard = verdict.state

            assert scan(machine, now_ms, *rows, wall_ms=reading.wall_ms if verdict.believed else None) == []


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(1, LEASE_MS // 3), jumps.filter(is_seen_by_the_guard)), max_size=60))
def test_one_shot_commands_that_share_the_guard_expire_no_renewed_row_at_any_jump_between_them(
    moves: list[tuple[int, int]],
) -> None:
    now_ms, offset_ms, last_renewal_ms, row = 0, 0, 0, ROW
    guard = clock_guard.tick(None, clock_guard.Reading(WALL_MS, 0, "boot"), LEASE_MS).state
    for advance_ms, jump_ms in moves:
        now_ms += advance_ms
        wall_ms = WALL_MS + now_ms + offset_ms
        if now_ms - last_renewal_ms >= LEASE_MS // 3:
            row = replace(row, updated_at_ms=max(wall_ms, row.updated_at_ms + 1))
            last_renewal_ms = now_ms
        offset_ms += jump_ms
        verdict = clock_guard.tick(guard, clock_guard.Reading(wall_ms + jump_ms, ns(now_ms), "boot"), LEASE_MS)
        guard = verdict.state

        assert scan(judge(), now_ms, row, wall_ms=wall_ms + jump_ms if verdict.believed else None) == []


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=60), st.integers(0, HOUR_MS))
def test_a_silent_row_expires_with_the_first_scan_after_its_time_and_never_before(
    gaps: list[int], jump_ms: int
) -> None:
    machine, now_ms = judge(), 0
    scan(machine, 0, ROW)
    for gap_ms in gaps:
        now_ms += gap_ms

        expired = scan(machine, now_ms, ROW, wall_ms=WALL_MS + now_ms + jump_ms)

        assert bool(expired) == (now_ms >= PATIENCE_MS)


def test_it_says_when_a_scan_without_news_would_let_the_next_row_expire() -> None:
    machine = judge()
    assert machine.due_ns is None

    scan(machine, 1_000, ROW)
    assert machine.due_ns == ns(1_000 + PATIENCE_MS)

    scan(machine, 2_000, replace(ROW, row_id=2), ROW)
    assert machine.due_ns == ns(1_000 + PATIENCE_MS)
    assert scan(machine, 1_000 + PATIENCE_MS, replace(ROW, row_id=2), ROW) != []
    assert machine.due_ns == ns(2_000 + PATIENCE_MS)

    scan(machine, 20_000)
    assert machine.due_ns is None


def test_it_says_when_its_turn_comes() -> None:
    row = replace(ROW, step_id="stp_1")
    _, second = order_of("stp_1", "node-b", "node-c")
    machine = judge_of(second)

    placed(second, 500, machine, row, "node-b", "node-c")

    assert machine.due_ns == ns(500 + TURN_MS)


def order_of(step_id: str, *nodes: str) -> list[str]:
    return ranked(step_id, nodes)


def placed(node_id: str, at_ms: int, machine: Reclaim, row: RunningRow, *reclaimers: str) -> list[Expire]:
    event = Scanned((row,), ns(at_ms), None, frozenset({row.owner}), frozenset(reclaimers))
    return machine.handle(ns(at_ms), event)


def test_of_several_nodes_one_takes_a_step_and_the_next_only_when_that_one_does_not_act() -> None:
    nodes = ("node-b", "node-c", "node-d")
    row = replace(ROW, step_id="stp_1")
    first, second, third = order_of("stp_1", *nodes)
    machines = {node: judge_of(node) for node in nodes}

    def acts(at_ms: int) -> set[str]:
        return {node for node, machine in machines.items() if placed(node, at_ms, machine, row, *nodes)}

    assert acts(0) == {first}
    assert acts(TURN_MS - 1) == {first}
    assert acts(TURN_MS) == {first, second}
    assert acts(2 * TURN_MS) == {first, second, third}


def test_the_owner_itself_has_no_turn_at_its_own_step() -> None:
    row = replace(ROW, step_id="stp_1")

    assert placed("node-b", 0, judge_of("node-b"), row, "node-a", "node-b") == [Expire(row, Cause.DEAD_OWNER)]


def test_a_node_that_is_not_held_alive_acts_last_and_one_that_is_alone_at_once() -> None:
    row, machine = replace(ROW, step_id="stp_1"), judge_of("node-x")

    assert placed("node-x", 0, machine, row, "node-b", "node-c") == []
    assert placed("node-x", 2 * TURN_MS - 1, machine, row, "node-b", "node-c") == []
    assert placed("node-x", 2 * TURN_MS, machine, row, "node-b", "node-c") == [Expire(row, Cause.DEAD_OWNER)]
    assert placed("node-x", 0, judge_of("node-x"), row, "node-a") == [Expire(row, Cause.DEAD_OWNER)]
    assert placed("node-x", 0, judge_of("node-x"), row) == [Expire(row, Cause.DEAD_OWNER)]


def test_when_the_first_in_the_order_dies_the_others_move_up_and_keep_what_they_have_waited() -> None:
    nodes = ("node-b", "node-c", "node-d")
    row = replace(ROW, step_id="stp_1")
    _, second, third = order_of("stp_1", *nodes)
    machine = judge_of(third)

    assert placed(third, 0, machine, row, *nodes) == []
    assert placed(third, TURN_MS, machine, row, second, third) == [Expire(row, Cause.DEAD_OWNER)]


@given(st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(0, 10_000), st.integers(0, 9))
def test_exactly_one_live_node_acts_at_once_whatever_the_step(names: set[str], number: int, turns: int) -> None:
    row = replace(ROW, step_id=f"stp_{number}", owner="gone")
    machines = {name: judge_of(name) for name in names}
    for name, machine in machines.items():
        placed(name, 0, machine, row, *names)

    acting = [name for name, machine in machines.items() if placed(name, turns * TURN_MS, machine, row, *names)]

    assert len(acting) == min(len(names), turns + 1)


def judge_of(node_id: str) -> Reclaim:
    return Reclaim(lease_timeout_ms=LEASE_MS, node_id=node_id)
