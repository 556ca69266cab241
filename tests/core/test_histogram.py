"""Values in fixed buckets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.histogram import SECOND_BOUNDS, Histogram


def test_a_value_that_equals_a_bound_is_in_the_bucket_below_it() -> None:
    seen = Histogram((1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        seen.add(value)

    assert seen.counts == [2, 2, 1]
    assert seen.total == 7.5


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0)])
def test_bounds_that_do_not_rise_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bounds must rise"):
        Histogram(bounds)


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_no_value_is_lost_and_each_is_at_most_the_bound_of_its_bucket(values: list[float]) -> None:
    seen = Histogram(SECOND_BOUNDS)
    for value in values:
        seen.add(value)

    assert sum(seen.counts) == len(values)
    for at, bound in enumerate(SECOND_BOUNDS):
        assert sum(seen.counts[: at + 1]) == sum(value <= bound for value in values)


def test_a_value_that_came_several_times_counts_as_often() -> None:
    once, together = Histogram((1.0, 2.0)), Histogram((1.0, 2.0))

    for _ in range(3):
        once.add(1.5)
    together.add(1.5, 3)

    assert (together.counts, together.total) == (once.counts, once.total)
