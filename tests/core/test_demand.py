"""The standing demand of a node: what a stale count, a claim, an end and a withdrawal do to it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relaymesh.core.demand import Standing
from relaymesh.core.fairness import Fairness

POOLS = ["inline", "process"]

counts = st.dictionaries(st.sampled_from(POOLS), st.integers(1, 4))
pools = st.lists(st.sampled_from(POOLS), max_size=5)
states = st.builds(Fairness, st.integers(0, 11), st.integers(0, 12))


def standing(free: dict[str, int], *, once: bool = False) -> Standing:
    demand = Standing()
    demand.take(free, after=0, limit=9, state=Fairness(), once=once)
    return demand


def seen(demand: Standing) -> tuple[object, ...]:
    return demand.number, dict(demand.free), demand.stands, demand.limit, demand.once, demand.state


@given(counts, counts, pools, states, st.booleans())
def test_a_count_from_before_the_last_word_changes_nothing(
    free: dict[str, int], stale: dict[str, int], ended: list[str], state: Fairness, once: bool
) -> None:
    demand = standing(free)
    demand.committed(demand.with_ended(ended))
    before = seen(demand)

    assert demand.take(stale, after=demand.number - 1, limit=2, state=state, once=once) is False
    assert demand.take(stale, after=demand.number + 1, limit=2, state=state, once=once) is False

    assert seen(demand) == before


@given(counts, counts, states, st.booleans())
def test_a_count_after_the_last_word_replaces_ours(
    free: dict[str, int], newer: dict[str, int], state: Fairness, once: bool
) -> None:
    demand = standing(free)

    demand.take(newer, after=0, limit=2, state=state, once=once)

    assert seen(demand) == (0, newer, True, 2, once, state)


@given(counts, counts)
def test_a_count_brings_news_when_a_pool_has_more_slots_than_we_knew_of(
    free: dict[str, int], newer: dict[str, int]
) -> None:
    demand = standing(free)

    news = demand.take(newer, after=0, limit=9, state=Fairness())

    assert news == bool(Counter(newer) - Counter(free))


@given(counts, pools, pools)
def test_what_ends_is_counted_once_it_is_on_disk_and_not_before(
    free: dict[str, int], ended: list[str], refused: list[str]
) -> None:
    demand = standing(free)

    demand.with_ended(refused)  # this transaction was rolled back
    assert dict(demand.free) == free

    demand.committed(demand.with_ended(ended))
    assert dict(demand.free) == Counter(free) + Counter(ended)


@given(counts, pools)
def test_what_ends_after_a_withdrawal_leaves_no_slot_to_claim_for(free: dict[str, int], ended: list[str]) -> None:
    demand = standing(free)

    demand.withdraw()
    demand.committed(demand.with_ended(ended))

    assert not demand.stands
    assert dict(demand.free) == {}


@given(counts, states)
def test_a_demand_that_wants_one_answer_ends_with_it_whatever_it_brought(free: dict[str, int], state: Fairness) -> None:
    for claimed in ([], [next(iter(free))] if free else []):
        demand = standing(free, once=True)

        assert demand.claimed(claimed, state) == 1

        assert not demand.stands
        assert dict(demand.free) == {}
        assert demand.state == state


def test_a_demand_for_no_slot_stands() -> None:
    demand = standing({})

    assert demand.stands
    assert demand.with_ended(["inline"]) == {"inline": 1}


class StandingMachine(RuleBasedStateMachine):
    """Any order of words and demands, beside a plain count of the slots."""

    def __init__(self) -> None:
        super().__init__()
        self.demand = Standing()
        self.slots: Counter[str] = Counter()
        self.stands = self.once = False
        self.words = 0

    @rule(free=counts, behind=st.integers(0, 2), once=st.booleans())
    def a_demand_comes(self, free: dict[str, int], behind: int, once: bool) -> None:
        self.demand.take(free, after=self.words - behind, limit=9, state=Fairness(), once=once)
        if behind == 0:
            self.slots, self.stands, self.once = Counter(free), True, once

    @rule(ended=pools)
    def steps_end(self, ended: list[str]) -> None:
        number = self.demand.committed(self.demand.with_ended(ended))
        self.words += 1
        self.slots += Counter(ended if self.stands else [])
        assert number == self.words

    @precondition(lambda self: self.stands)
    @rule(data=st.data())
    def steps_are_claimed(self, data: st.DataObject) -> None:
        claimed = [pool for pool, count in self.slots.items() for _ in range(data.draw(st.integers(0, count)))]
        number = self.demand.claimed(claimed, Fairness())
        self.words += 1
        self.slots -= Counter(claimed)
        if self.once:
            self.slots, self.stands = Counter(), False
        assert number == self.words

    @rule()
    def the_demand_is_withdrawn(self) -> None:
        self.demand.withdraw()
        self.slots, self.stands = Counter(), False

    @invariant()
    def both_count_the_same_slots_and_never_less_than_none(self) -> None:
        assert dict(self.demand.free) == dict(self.slots)
        assert all(count > 0 for count in self.demand.free.values())
        assert self.demand.stands == self.stands
        assert self.demand.number == self.words


TestStandingMachine = StandingMachine.TestCase
TestStandingMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_only_a_pool_that_was_full_may_have_kept_something_waiting() -> None:
    standing = Standing()
    standing.take({"inline": 2}, after=0, limit=9, state=Fairness())

    assert not standing.makes_room(["inline"])
    assert standing.makes_room(["inline", "process"])
    assert not standing.makes_room([])
