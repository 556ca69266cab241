"""Limits and pauses of a root, and the room they leave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.budget import Budgeted
from relaymesh.core.fairness import Candidate, Fairness, Lane, plan
from relaymesh.core.throttle import (
    DEFAULT_KEY_LIMIT,
    UNLIMITED,
    Held,
    Hold,
    Limit,
    LimitScope,
    PauseScope,
    Room,
    Rules,
    room_of,
)
from relaymesh.core.token_bucket import Bucket, Rate

NOON = 1_700_000_000_000
RATE = Rate(count=10, period_ms=1_000, burst=4)


def test_room_is_the_least_of_what_concurrency_and_rate_leave() -> None:
    assert room_of(None, 99, None, NOON) == Room(UNLIMITED)
    assert room_of(Limit(5), 3, None, NOON) == Room(2)
    assert room_of(Limit(5), 7, None, NOON) == Room(0, Hold(Held.CONCURRENCY))
    assert room_of(Limit(rate=RATE), 99, None, NOON) == Room(4)
    assert room_of(Limit(5, RATE), 4, None, NOON) == Room(1)
    assert room_of(Limit(50, RATE), 4, Bucket(0, NOON), NOON) == Room(0, Hold(Held.RATE, 100))
    assert room_of(Limit(4, RATE), 4, Bucket(0, NOON), NOON) == Room(0, Hold(Held.CONCURRENCY))


def test_a_key_goes_by_its_own_limit_or_by_that_of_each_key_or_by_one_at_a_time() -> None:
    each, own = Limit(3), Limit(7)
    rules = Rules({(LimitScope.EACH_KEY, ""): each, (LimitScope.KEY, "big"): own})

    assert (rules.of_key("big"), rules.of_key("other")) == (own, each)
    assert Rules().of_key("any") == DEFAULT_KEY_LIMIT == Limit(1)
    assert rules.keyed and not Rules({(LimitScope.KEY, "big"): own}).keyed


def test_the_widest_pause_is_named_first() -> None:
    wide = Rules(pauses={(PauseScope.OVERALL, ""): 1, (PauseScope.AGENT, "echo"): 2, (PauseScope.PRIORITY, "LOW"): 3})
    narrow = Rules(pauses={(PauseScope.AGENT, "echo"): 2, (PauseScope.PRIORITY, "LOW"): 3})

    assert wide.pause_of("echo", "LOW") == (PauseScope.OVERALL, "")
    assert narrow.pause_of("echo", "LOW") == (PauseScope.AGENT, "echo")
    assert narrow.pause_of("fail", "LOW") == (PauseScope.PRIORITY, "LOW")
    assert narrow.pause_of("fail", "HIGH") is None
    assert wide.stops("any") and not narrow.stops("any")


def test_a_drained_node_takes_nothing_and_the_others_do() -> None:
    rules = Rules(pauses={(PauseScope.NODE, "n1"): 1})

    assert rules.stops("n1") and not rules.stops("n2")
    assert rules.pause_of("echo", "LOW") is None


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "k1", "k2", "k3"])), max_size=40),
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)),
    st.dictionaries(st.sampled_from(["k1", "k2", "k3"]), st.integers(0, 5)),
    st.integers(0, 30),
)
def test_a_plan_keeps_to_the_room_of_agents_and_keys_and_passes_over_nobody_who_fits(
    waiting: list[tuple[str, str]], agent_room: dict[str, int], key_room: dict[str, int], slots: int
) -> None:
    candidates = [Candidate(number, agent, "pool", number, key) for number, (agent, key) in enumerate(waiting)]

    planned = plan(Fairness(), {Lane.NORMAL: candidates}, {"pool": slots}, agent_room, limit=50, key_room=key_room)

    # The model: first come, first served, each taken when all of its limits have room.
    agents, keys, expected = dict(agent_room), dict(key_room), []
    for candidate in candidates:
        if len(expected) < slots and agents.get(candidate.agent_id, 1) > 0 and keys.get(candidate.key, 1) > 0:
            expected.append(candidate)
            if candidate.agent_id in agents:
                agents[candidate.agent_id] -= 1
            if candidate.key in keys:
                keys[candidate.key] -= 1
    assert list(planned.picks) == expected


def test_steps_of_an_agent_with_a_budget_may_wait_on_purpose() -> None:
    rules = Rules(budgets=Budgeted(frozenset({"a"}), frozenset(), tasks=True))

    assert rules and rules.restrains("a") and not rules.restrains("b")
