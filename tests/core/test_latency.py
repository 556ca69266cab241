"""Percentiles out of buckets are those of the values, but for the width of one bucket."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.latency import (
    LATENCY_MS_MAX,
    WINDOW_STEPS,
    bucket_of,
    bucket_percentiles,
    bucket_upper_ms,
    latest,
)
from relaymesh.core.percentile import percentiles

LATENCIES = st.integers(0, LATENCY_MS_MAX)


@given(LATENCIES)
def test_a_latency_lies_in_its_bucket_which_is_narrow(latency_ms: int) -> None:
    bucket = bucket_of(latency_ms)

    below = bucket_upper_ms(bucket - 1) if bucket else -1
    assert below < latency_ms <= bucket_upper_ms(bucket)
    assert bucket_upper_ms(bucket) - below <= max(1, latency_ms // 128)


@pytest.mark.parametrize("latency_ms", [0, 1, 127, 128, 254, 255])
def test_short_latencies_are_exact(latency_ms: int) -> None:
    assert bucket_upper_ms(bucket_of(latency_ms)) == latency_ms


@pytest.mark.parametrize(("latency_ms", "counts_as"), [(-1, 0), (-(10**20), 0), (10**30, LATENCY_MS_MAX)])
def test_what_no_clock_can_mean_counts_as_the_nearest_that_it_can(latency_ms: int, counts_as: int) -> None:
    assert bucket_of(latency_ms) == bucket_of(counts_as)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.sampled_from((1, 50, 95, 99, 100)))
def test_a_percentile_is_the_bound_of_the_bucket_of_the_exact_one(values: list[int], percent: int) -> None:
    (exact,) = percentiles(values, (percent,))

    (found,) = bucket_percentiles(Counter(map(bucket_of, values)), (percent,))

    assert found == bucket_upper_ms(bucket_of(exact))


def test_of_nothing_each_percentile_is_nought() -> None:
    assert bucket_percentiles({}, (95, 99)) == (0, 0)


@pytest.mark.parametrize("percent", [0, 101, -5])
def test_a_percent_outside_of_1_to_100_is_refused(percent: int) -> None:
    with pytest.raises(ValueError, match="within 1"):
        bucket_percentiles({1: 1}, (percent,))


def test_the_window_is_the_newest_spans_that_have_enough_steps() -> None:
    rows = [(9, 3, 10), (9, 1, WINDOW_STEPS - 11), (8, 3, 1), (8, 2, 5), (7, 4, 100)]

    counts, oldest = latest(iter(rows))

    assert (counts, oldest) == ({3: 11, 1: WINDOW_STEPS - 11, 2: 5}, 8)


def test_a_window_without_steps_has_no_oldest_span() -> None:
    assert latest([]) == ({}, None)
