"""Backoff, dead letters and the poison counters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.outcome import Failed
from relaymesh.core.retry import (
    JITTER_MS_MAX,
    POISON_OWNER_DEATHS,
    POISON_WORKER_DEATHS,
    RETRY_AFTER_MS_MAX,
    DeadLetter,
    RetryAt,
    RetryPolicy,
    after_failure,
    after_owner_death,
    after_worker_death,
    delay_ms,
)

POLICY = RetryPolicy()
NOW_MS = 1_700_000_000_000


def policies() -> st.SearchStrategy[RetryPolicy]:
    numbers = st.integers(1, 10**7)
    return st.builds(lambda tries, a, b: RetryPolicy(tries, min(a, b), max(a, b)), st.integers(1, 50), numbers, numbers)


class NoJitter(random.Random):
    def randint(self, a: int, b: int) -> int:
        return a


@pytest.mark.parametrize(("attempt", "expected"), [(1, 1000), (2, 2000), (3, 4000), (6, 32_000), (7, 60_000)])
def test_the_backoff_doubles_up_to_the_cap(attempt: int, expected: int) -> None:
    assert delay_ms(POLICY, attempt, NoJitter()) == expected


@settings(deadline=None, max_examples=200)
@given(policies(), st.integers(-5, 80), st.integers(0, 2**32))
def test_the_delay_is_the_formula_of_the_reference(policy: RetryPolicy, attempt: int, seed: int) -> None:
    jitter = random.Random(seed).randint(0, JITTER_MS_MAX)
    base = min(policy.max_backoff_ms, policy.base_backoff_ms * 2 ** (max(attempt, 1) - 1))

    assert delay_ms(policy, attempt, random.Random(seed)) == min(policy.max_backoff_ms, base + jitter)


def test_a_huge_attempt_number_costs_nothing() -> None:
    assert delay_ms(RetryPolicy(max_backoff_ms=2**40), 10**15, NoJitter()) == 2**40


def test_the_jitter_reaches_both_of_its_ends() -> None:
    rng = random.Random(1)

    seen = {delay_ms(POLICY, 1, rng) - 1000 for _ in range(5000)}

    assert min(seen) == 0
    assert max(seen) == JITTER_MS_MAX


@pytest.mark.parametrize(
    ("numbers", "name"),
    [((0, 1, 1), "max_attempts"), ((1, 0, 1), "base_backoff_ms"), ((1, 1, 0), "max_backoff_ms"), ((1, 9, 8), "above")],
)
def test_a_policy_that_makes_no_sense_is_refused_at_construction(numbers: tuple[int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        RetryPolicy(*numbers)


@settings(deadline=None, max_examples=200)
@given(policies(), st.integers(1, 100), st.booleans(), st.integers(0, 2**32))
def test_a_failure_is_retried_while_attempts_are_left_and_it_is_retryable(
    policy: RetryPolicy, attempt: int, retryable: bool, seed: int
) -> None:
    decision = after_failure(policy, attempt, Failed("x", "x", retryable), NOW_MS, random.Random(seed))

    if not retryable:
        assert decision == DeadLetter("not_retryable")
    elif attempt >= policy.max_attempts:
        assert decision == DeadLetter("attempts_exhausted")
    else:
        assert decision == RetryAt(NOW_MS + delay_ms(policy, attempt, random.Random(seed)))


def test_an_agent_that_asks_for_a_longer_wait_gets_it() -> None:
    failed = Failed("http_503", "busy", retry_after_ms=120_000)

    assert after_failure(POLICY, 1, failed, NOW_MS, random.Random(1)) == RetryAt(NOW_MS + 120_000)


@pytest.mark.parametrize("asked_ms", [0, 1, -5_000])
def test_an_agent_cannot_shorten_the_backoff(asked_ms: int) -> None:
    failed = Failed("http_503", "busy", retry_after_ms=asked_ms)

    assert after_failure(POLICY, 1, failed, NOW_MS, NoJitter()) == RetryAt(NOW_MS + 1000)


def test_an_absurd_wish_to_wait_is_cut_to_a_day() -> None:
    failed = Failed("http_503", "busy", retry_after_ms=10**15)

    assert after_failure(POLICY, 1, failed, NOW_MS, random.Random(1)) == RetryAt(NOW_MS + RETRY_AFTER_MS_MAX)


def test_a_step_that_kills_its_worker_three_times_is_poison() -> None:
    decisions = [after_worker_death(POLICY, deaths, NOW_MS, NoJitter()) for deaths in (1, 2, 3)]

    assert decisions == [RetryAt(NOW_MS + 1000), RetryAt(NOW_MS + 2000), DeadLetter("poison_worker")]
    assert POISON_WORKER_DEATHS == 3


def test_deaths_are_judged_apart_from_attempts() -> None:
    only_one_attempt = RetryPolicy(max_attempts=1)

    assert isinstance(after_worker_death(only_one_attempt, 2, NOW_MS, random.Random(1)), RetryAt)
    assert isinstance(after_owner_death(only_one_attempt, 9, NOW_MS, random.Random(1)), RetryAt)


def test_the_first_death_of_an_owner_costs_no_wait_and_later_ones_do() -> None:
    waits = [after_owner_death(POLICY, deaths, NOW_MS, NoJitter()) for deaths in (1, 2, 3)]

    assert waits == [RetryAt(NOW_MS), RetryAt(NOW_MS + 1000), RetryAt(NOW_MS + 2000)]


def test_a_step_whose_owners_keep_dying_is_poison_at_the_tenth() -> None:
    assert isinstance(after_owner_death(POLICY, POISON_OWNER_DEATHS - 1, NOW_MS, random.Random(1)), RetryAt)
    assert after_owner_death(POLICY, POISON_OWNER_DEATHS, NOW_MS, random.Random(1)) == DeadLetter("poison_owner")
