"""The search for an order of instants, against a register of which all orders can be tried."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.linear import NEVER, Operation, linearizable


def apply(state: int, what: tuple[str, int]) -> Sequence[int]:
    do, value = what
    if do == "write":
        return [value]
    return [state] if state == value else []


def by_trying(operations: Sequence[Operation]) -> bool:
    answered = [one for one in operations if one.answered != NEVER]
    lost = [one for one in operations if one.answered == NEVER]
    for some in range(1 << len(lost)):
        chosen = answered + [one for at, one in enumerate(lost) if some >> at & 1]
        for order in permutations(chosen):
            if any(later.answered < sooner.asked for at, sooner in enumerate(order) for later in order[at + 1 :]):
                continue
            state: int | None = 0
            for one in order:
                state = next(iter(apply(state, one.what)), None)
                if state is None:
                    break
            if state is not None:
                return True
    return False


calls = st.tuples(
    st.integers(0, 12), st.integers(0, 6), st.booleans(), st.sampled_from(["read", "write"]), st.integers(0, 2)
)


@given(st.lists(calls, max_size=5))
@settings(max_examples=200, deadline=None)
def test_it_finds_an_order_exactly_when_there_is_one(found: list[tuple[int, int, bool, str, int]]) -> None:
    operations = [
        # No two things happen at one instant of a history.
        Operation(100 * asked + at, NEVER if lost and do == "write" else 100 * (asked + took) + 50 + at, (do, value))
        for at, (asked, took, lost, do, value) in enumerate(found)
    ]

    assert linearizable(operations, 0, apply) is by_trying(operations)


def test_a_search_that_takes_too_long_decides_nothing() -> None:
    together = [Operation(at, 1_000 + at, ("write", at)) for at in range(30)]
    wrong = [*together, Operation(50, 2_000, ("read", 99))]

    assert linearizable(wrong, 0, apply, looks_max=1_000) is None
    assert linearizable(together, 0, apply, looks_max=1_000) is True
