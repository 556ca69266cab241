"""How long a disk that refuses is left alone."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymesh.core.rest import RETRY_NS, Rest

# A machine with much else to do is no reason to fail.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@patient
@given(st.integers(0, 10**15), st.integers(1, 30))
def test_each_rest_is_at_least_as_long_as_the_one_before_and_none_longer_than_the_last(now_ns: int, times: int) -> None:
    rest = Rest()

    delays = [rest.refused(now_ns) for _ in range(times)]

    assert delays == sorted(delays)
    assert set(delays) <= set(RETRY_NS)
    assert rest.begun
    assert rest.lasts(now_ns + delays[-1] - 1)
    assert not rest.lasts(now_ns + delays[-1])


def test_a_commit_ends_the_rest_and_the_next_one_is_short_again() -> None:
    rest = Rest()
    rest.refused(0)
    rest.refused(0)

    rest.over()

    assert not rest.begun and not rest.lasts(0)
    assert rest.refused(0) == RETRY_NS[0]


def test_a_rest_that_is_broken_off_goes_on_as_long_as_before_should_it_be_refused_again() -> None:
    rest = Rest()
    rest.refused(0)

    rest.break_off()

    assert not rest.lasts(0)
    assert rest.refused(0) == RETRY_NS[1]


def test_of_many_refusals_in_a_row_ever_fewer_are_worth_a_line() -> None:
    rest = Rest()
    said = []
    for number in range(1, 40):
        rest.refused(0)
        if rest.worth_saying:
            said.append(number)

    assert said == [1, 2, 3, 5, 9, 17, 33]
