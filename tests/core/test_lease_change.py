"""A lease timeout that changes: no judge is ever less patient than an owner believes, whenever each of them notices."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core import lease_change
from relaymesh.core.lease import Claimed, Leases, Renew, Renewed, Tick, TimeoutChanged
from relaymesh.core.lease_change import HOLD_MS_MIN, LeaseTimeouts

MS = 1_000_000
RELOAD_MS = 10_000


def test_without_a_change_both_go_by_the_value() -> None:
    leases = LeaseTimeouts(15_000, reload_ms=RELOAD_MS)

    assert (leases.owner_ms(0), leases.judge_ms(0), leases.settles_at_ns(0)) == (15_000, 15_000, None)


def test_a_shorter_lease_holds_at_once_for_owners_and_after_the_hold_for_judges() -> None:
    leases = LeaseTimeouts(15_000, reload_ms=RELOAD_MS)

    leases.change(0, 4_000)

    end = HOLD_MS_MIN * MS
    assert (leases.owner_ms(0), leases.judge_ms(0)) == (4_000, 15_000)
    assert (leases.judge_ms(end - 1), leases.judge_ms(end)) == (15_000, 4_000)
    assert leases.settles_at_ns(0) == end


def test_a_longer_lease_holds_at_once_for_judges_and_after_the_hold_for_owners() -> None:
    leases = LeaseTimeouts(4_000, reload_ms=RELOAD_MS)

    leases.change(0, 15_000)

    end = HOLD_MS_MIN * MS
    assert (leases.owner_ms(0), leases.judge_ms(0)) == (4_000, 15_000)
    assert (leases.owner_ms(end - 1), leases.owner_ms(end)) == (4_000, 15_000)


def test_the_hold_is_never_shorter_than_the_lease_or_three_reload_periods() -> None:
    long_lease, slow_look = LeaseTimeouts(90_000, reload_ms=RELOAD_MS), LeaseTimeouts(4_000, reload_ms=60_000)

    long_lease.change(0, 4_000)
    slow_look.change(0, 9_000)

    assert long_lease.settles_at_ns(0) == 90_000 * MS
    assert slow_look.settles_at_ns(0) == 180_000 * MS


edits = st.lists(st.tuples(st.integers(0, 60_000), st.integers(100, 120_000)), min_size=1, max_size=120)


@settings(deadline=None)
@given(st.integers(100, 120_000), edits, st.integers(0, RELOAD_MS), st.integers(0, RELOAD_MS), st.data())
def test_no_judge_is_less_patient_than_an_owner_believes(
    first: int, changes: list[tuple[int, int]], late_owner: int, late_judge: int, data: st.DataObject
) -> None:
    owner, judge = LeaseTimeouts(first, reload_ms=RELOAD_MS), LeaseTimeouts(first, reload_ms=RELOAD_MS)
    steps: list[tuple[int, LeaseTimeouts, int]] = []
    at_ms = 0
    for pause_ms, value in changes:
        at_ms += pause_ms
        steps += [(at_ms + late_owner, owner, value), (at_ms + late_judge, judge, value)]
    looks = sorted(data.draw(st.lists(st.integers(0, at_ms + 200_000), max_size=10)))
    for when_ms in sorted({*looks, *(step[0] for step in steps)}):
        for step_ms, leases, value in steps:
            if step_ms == when_ms:
                leases.change(when_ms * MS, value)
        assert owner.owner_ms(when_ms * MS) <= judge.judge_ms(when_ms * MS)


def test_what_is_remembered_is_bounded_and_keeps_the_outermost() -> None:
    leases = LeaseTimeouts(50_000, reload_ms=RELOAD_MS)

    for number in range(500):
        leases.change(number, 1_000 + number)

    assert len(leases._recent) <= lease_change._RECENT_MAX
    assert (leases.owner_ms(500), leases.judge_ms(500)) == (1_000, 50_000)


# What the owner's machine makes of it.


def held(lease_timeout_ms: int) -> Leases:
    machine = Leases(lease_timeout_ms=lease_timeout_ms)
    machine.handle(0, Claimed(1, "lse", 1, 1, 0))
    return machine


def test_a_shorter_lease_is_renewed_sooner_and_takes_back_no_trust_that_was_given() -> None:
    machine = held(15_000)

    assert machine.handle(1_900 * MS, TimeoutChanged(1_000)) == []
    assert machine.handle(1_900 * MS, Tick()) == []
    assert machine.trusted(1_900 * MS, 1, 1)
    (renew,) = machine.handle(2_100 * MS, Tick())

    assert isinstance(renew, Renew)


def test_what_is_confirmed_after_the_change_is_trusted_for_the_new_time() -> None:
    machine = held(1_000)

    machine.handle(100 * MS, TimeoutChanged(15_000))
    machine.handle(300 * MS, Renewed((1,), 200 * MS))

    assert machine.trusted(13_000 * MS, 1, 1)
