"""Dispatch order: the weights, the forced LOW, and what is passed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.fairness import CYCLE, Candidate, Fairness, Lane, Plan, plan

LIMIT = 10_000
PLENTY = {"p": 100_000}


def queue(count: int, *, agent: str = "echo", pool: str = "p", first: int = 0) -> list[Candidate]:
    return [Candidate(first + n, agent, pool, 0) for n in range(count)]


def letters(result: Plan, lanes: Mapping[Lane, Sequence[Candidate]]) -> str:
    lane_of = {id(candidate): lane for lane, candidates in lanes.items() for candidate in candidates}
    return "".join(lane_of[id(pick)][0] for pick in result.picks)


def naive_plan(
    state: Fairness,
    lanes: Mapping[Lane, Sequence[Candidate]],
    free: Mapping[str, int],
    agent_room: Mapping[str, int],
    limit: int,
    high_run_max: int,
) -> Plan:
    """The words of the reference, one poll at a time: up to 12 slots, the first lane that has something."""
    slots, room, left = dict(free), dict(agent_room), {lane: list(lanes.get(lane, ())) for lane in Lane}
    position, run, forced_low = state.position, state.high_run, 0
    picks: list[Candidate] = []

    def poll(lane: Lane) -> Candidate | None:
        for candidate in left[lane]:
            if slots.get(candidate.pool, 0) > 0 and room.get(candidate.agent_id, 1) > 0:
                return candidate
        return None

    while len(picks) < limit:
        tries = [(slot % 12, CYCLE[slot % 12]) for slot in range(position, position + 12)]
        if run >= high_run_max:
            tries.insert(0, (-1, Lane.LOW))
        hit = next(((slot, lane, c) for slot, lane in tries if (c := poll(lane)) is not None), None)
        if hit is None:
            break
        slot, lane, found = hit
        left[lane].remove(found)
        picks.append(found)
        slots[found.pool] -= 1
        if found.agent_id in room:
            room[found.agent_id] -= 1
        run = min(run + 1, high_run_max) if lane is Lane.HIGH else 0
        if slot == -1:
            forced_low += 1
        else:
            position = (slot + 1) % 12
    return Plan(Fairness(position, run), tuple(picks), forced_low)


def test_a_full_cycle_starts_eight_high_three_normal_and_one_low() -> None:
    lanes = {lane: queue(40) for lane in Lane}

    result = plan(Fairness(), lanes, PLENTY, {}, 24)

    assert letters(result, lanes) == "HHHHHHHHNNNL" * 2
    assert result.state == Fairness(position=0, high_run=0)


def test_the_cycle_goes_on_where_the_last_plan_stopped() -> None:
    lanes = {lane: queue(40) for lane in Lane}

    first = plan(Fairness(), lanes, PLENTY, {}, 5)
    second = plan(first.state, lanes, PLENTY, {}, 5)

    assert letters(first, lanes) + letters(second, lanes) == "HHHHHHHHNN"


def test_after_a_long_run_of_high_the_next_pick_is_low() -> None:
    lanes = {Lane.HIGH: queue(3), Lane.LOW: queue(1)}

    result = plan(Fairness(), lanes, PLENTY, {}, LIMIT, high_run_max=2)

    assert letters(result, lanes) == "HHLH"
    assert result.forced_low == 1


def test_the_run_of_high_is_remembered_between_plans() -> None:
    alone = {Lane.HIGH: queue(100)}
    lanes = {Lane.HIGH: queue(10), Lane.LOW: queue(10)}

    first = plan(Fairness(), alone, PLENTY, {}, LIMIT)
    second = plan(first.state, lanes, PLENTY, {}, 1)

    assert first.state.high_run == 100
    assert letters(second, lanes) == "L"
    assert second.forced_low == 1
    assert second.state.high_run == 0


def test_a_forced_low_keeps_the_position_in_the_cycle() -> None:
    lanes = {lane: queue(20) for lane in Lane}

    result = plan(Fairness(position=3, high_run=100), lanes, PLENTY, {}, 6)

    assert letters(result, lanes) == "LHHHHH"
    assert result.state.position == 8


def test_an_empty_lane_costs_no_slot() -> None:
    lanes = {Lane.NORMAL: queue(7)}

    result = plan(Fairness(), lanes, PLENTY, {}, LIMIT)

    assert letters(result, lanes) == "NNNNNNN"


def test_a_candidate_without_a_free_slot_does_not_block_the_ones_behind_it() -> None:
    lanes = {Lane.HIGH: [*queue(3, pool="busy"), *queue(2, pool="p", first=10)]}

    result = plan(Fairness(), lanes, {"p": 5, "busy": 0}, {}, LIMIT)

    assert [pick.row_id for pick in result.picks] == [10, 11]


def test_a_pool_that_nobody_named_has_no_slot() -> None:
    assert plan(Fairness(), {Lane.HIGH: queue(3)}, {"other": 3}, {}, LIMIT).picks == ()


def test_an_agent_without_room_does_not_block_the_others() -> None:
    lanes = {Lane.HIGH: [*queue(5, agent="narrow"), *queue(2, agent="wide", first=10)]}

    result = plan(Fairness(), lanes, PLENTY, {"narrow": 1}, LIMIT)

    assert [pick.row_id for pick in result.picks] == [0, 10, 11]


def test_room_is_shared_between_the_lanes() -> None:
    lanes = {lane: queue(5, first=10 * n) for n, lane in enumerate(Lane)}

    assert len(plan(Fairness(), lanes, PLENTY, {"echo": 4}, LIMIT).picks) == 4


def test_within_a_lane_the_oldest_comes_first() -> None:
    result = plan(Fairness(), {Lane.LOW: queue(50)}, PLENTY, {}, LIMIT)

    assert [pick.row_id for pick in result.picks] == list(range(50))


def test_an_empty_plan_changes_nothing() -> None:
    state = Fairness(position=5, high_run=70)

    assert plan(state, {}, PLENTY, {}, LIMIT) == Plan(state, (), 0)
    assert plan(state, {lane: queue(3) for lane in Lane}, PLENTY, {}, 0) == Plan(state, (), 0)
    assert plan(state, {lane: queue(3) for lane in Lane}, {"p": 0}, {}, LIMIT) == Plan(state, (), 0)


@pytest.mark.parametrize(("position", "run"), [(12, 0), (-1, 0), (0, -1)])
def test_a_state_outside_the_cycle_is_refused(position: int, run: int) -> None:
    with pytest.raises(ValueError, match="must"):
        Fairness(position, run)


def test_a_negative_limit_and_a_run_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        plan(Fairness(), {}, {}, {}, -1)
    with pytest.raises(ValueError, match="high_run_max"):
        plan(Fairness(), {}, {}, {}, 1, high_run_max=0)


candidates = st.builds(Candidate, st.integers(0, 10**6), st.sampled_from("abc"), st.sampled_from("pq"), st.just(0))
lanes_of = st.dictionaries(st.sampled_from(list(Lane)), st.lists(candidates, max_size=30))
counts = st.integers(-1, 20)


@settings(deadline=None, max_examples=120)
@given(
    st.builds(Fairness, st.integers(0, 11), st.integers(0, 12)),
    lanes_of,
    st.dictionaries(st.sampled_from("pqr"), counts),
    st.dictionaries(st.sampled_from("abc"), counts),
    st.integers(0, 40),
    st.integers(1, 10),
)
def test_a_batch_is_the_same_as_one_poll_after_the_other(
    state: Fairness,
    lanes: dict[Lane, list[Candidate]],
    free: dict[str, int],
    room: dict[str, int],
    limit: int,
    high_run_max: int,
) -> None:
    expected = naive_plan(state, lanes, free, room, limit, high_run_max)

    result = plan(state, lanes, free, room, limit, high_run_max)

    assert result == expected


@settings(deadline=None, max_examples=100)
@given(lanes_of, st.lists(st.integers(1, 7), min_size=1, max_size=8))
def test_cutting_a_plan_into_pieces_changes_nothing(lanes: dict[Lane, list[Candidate]], pieces: list[int]) -> None:
    numbered = {
        lane: [Candidate(n * 3 + k, c.agent_id, "p", 0) for n, c in enumerate(row)]
        for k, (lane, row) in enumerate(lanes.items())
    }
    whole = plan(Fairness(), numbered, PLENTY, {}, sum(pieces), 5)

    state, picks, forced_low = Fairness(), list[Candidate](), 0
    for piece in pieces:
        done = set(picks)
        rest = {lane: [c for c in row if c not in done] for lane, row in numbered.items()}
        part = plan(state, rest, PLENTY, {}, piece, 5)
        state, forced_low = part.state, forced_low + part.forced_low
        picks += part.picks

    assert (state, tuple(picks), forced_low) == (whole.state, whole.picks, whole.forced_low)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 30), st.integers(0, 400))
def test_a_waiting_low_never_sees_more_than_the_allowed_run_of_high(high_run_max: int, high: int) -> None:
    lanes = {Lane.HIGH: queue(high), Lane.LOW: queue(30)}

    order = letters(plan(Fairness(), lanes, PLENTY, {}, LIMIT, high_run_max), lanes)

    while_low_waits = order[: order.rindex("L")]
    assert max(map(len, while_low_waits.split("L")), default=0) <= min(high_run_max, 8)
