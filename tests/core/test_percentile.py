"""Nearest-rank percentiles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.percentile import percentiles


def test_the_textbook_example_comes_out() -> None:
    values = [15, 20, 35, 40, 50]

    assert percentiles(values, (5, 30, 40, 50, 100)) == (15, 20, 20, 35, 50)


def test_of_a_thousand_values_each_percent_is_ten_ranks() -> None:
    assert percentiles(range(1, 1001), range(1, 101)) == tuple(range(10, 1001, 10))


def test_no_values_give_zero() -> None:
    assert percentiles([], (50, 99)) == (0, 0)


def test_one_value_is_every_percentile() -> None:
    assert percentiles([7], (1, 50, 95, 100)) == (7, 7, 7, 7)


def test_the_order_of_the_values_does_not_matter() -> None:
    assert percentiles([9, 1, 5, 3, 7], (50,))[0] == 5


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_a_percent_outside_of_1_to_100_is_refused(percent: int) -> None:
    with pytest.raises(ValueError, match="must be within 1"):
        percentiles([1], (percent,))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.integers(1, 100))
def test_it_is_the_value_at_the_rounded_up_rank(values: list[int], percent: int) -> None:
    rank = math.ceil(percent * len(values) / 100)

    assert percentiles(values, (percent,))[0] == sorted(values)[rank - 1]
