"""What may be spent: sums, windows, decisions, over any clock and any order of reports."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.budget import (
    MICROS,
    SPENT_MAX,
    Budget,
    BudgetScope,
    Purse,
    charged,
    exhausted,
    is_crossed,
    is_used_up,
    left,
    settled,
    turns_in_ms,
    unseen,
    window_of,
)
from relaymesh.core.budget_text import (
    BudgetTextError,
    amount_text,
    budgets_of,
    kind_of,
    micros_of,
    owner_of,
    period_of,
    period_text,
    spent_of,
    units_of,
)
from relaymesh.core.limit import BUDGET_MICROS_MAX, UNITS_PER_ATTEMPT_MAX

NOON = 1_700_000_000_000
DAY = 86_400_000
periods = st.none() | st.integers(1_000, 31_622_400_000)
budgets = st.builds(Budget, st.integers(0, BUDGET_MICROS_MAX), periods)
amounts = st.integers(0, BUDGET_MICROS_MAX)
instants = st.integers(0, 4 * NOON)


def test_a_budget_is_used_up_by_its_last_micro_and_crossed_by_the_next() -> None:
    budget = Budget(10)
    spent = charged(budget, Purse(), NOON, 10)

    assert not is_used_up(budget, Purse(9), NOON)
    assert is_used_up(budget, spent, NOON) and not is_crossed(budget, spent, NOON)
    assert is_crossed(budget, charged(budget, spent, NOON, 1), NOON)


def test_a_day_is_a_day_of_utc_and_begins_with_nothing_spent() -> None:
    budget = Budget(10, DAY)
    midnight = NOON - NOON % DAY + DAY
    spent = charged(budget, Purse(), midnight - 1, 12)

    assert left(budget, spent, midnight - 1) == -2
    assert turns_in_ms(budget, midnight - 1) == 1
    assert left(budget, spent, midnight) == 10
    assert turns_in_ms(Budget(10), NOON) is None


@given(budgets, amounts, instants, instants)
def test_a_clock_that_is_set_back_gives_nothing_back(budget: Budget, micros: int, now_ms: int, other_ms: int) -> None:
    purse = charged(budget, Purse(0, window_of(budget, now_ms)), now_ms, micros)

    earlier = min(now_ms, other_ms)

    assert settled(budget, purse, earlier).spent == purse.spent
    # And the window is the one of that clock, so that nobody waits for the old time to come again.
    assert settled(budget, purse, earlier).window_ms == window_of(budget, earlier)


@given(budgets, st.lists(amounts, max_size=8), instants)
def test_nothing_is_lost_or_doubled_within_a_window(budget: Budget, spent: list[int], now_ms: int) -> None:
    purse = Purse(0, window_of(budget, now_ms))
    for micros in spent:
        purse = charged(budget, purse, now_ms, micros)

    assert purse.spent == min(sum(spent), SPENT_MAX)
    assert left(budget, purse, now_ms) == budget.amount - purse.spent


def test_a_sum_stays_where_the_database_can_hold_it() -> None:
    full = charged(Budget(1), Purse(SPENT_MAX - 1), NOON, BUDGET_MICROS_MAX)

    assert full.spent == SPENT_MAX < 2**63 - BUDGET_MICROS_MAX


@given(st.lists(amounts, min_size=1, max_size=8), st.randoms())
def test_reports_of_an_attempt_may_come_late_twice_and_in_any_order(sums: list[int], rng: object) -> None:
    told = [*sums, *sums]
    rng.shuffle(told)  # type: ignore[attr-defined]
    total = new = 0
    for word in told:
        new += unseen(total, word)
        total = max(total, word)

    assert new == total == max(sums)


@given(st.integers(0, 31_622_400_000 * 3), st.integers(1_000, 31_622_400_000))
def test_windows_follow_each_other_without_a_gap(now_ms: int, period_ms: int) -> None:
    budget = Budget(1, period_ms)
    turns = turns_in_ms(budget, now_ms)

    assert turns is not None and 0 < turns <= period_ms
    assert window_of(budget, now_ms) <= now_ms < window_of(budget, now_ms) + period_ms == now_ms + turns


@pytest.mark.parametrize("period_ms", [0, 999, 31_622_400_001])
def test_a_period_has_bounds(period_ms: int) -> None:
    with pytest.raises(ValueError, match="period"):
        Budget(1, period_ms)


@pytest.mark.parametrize("amount", [-1, BUDGET_MICROS_MAX + 1])
def test_an_amount_has_bounds(amount: int) -> None:
    with pytest.raises(ValueError, match="amount"):
        Budget(amount)
    with pytest.raises(ValueError, match="cannot be spent"):
        charged(Budget(1), Purse(), NOON, -1)


def test_what_a_task_has_spent_is_gone_for_good_and_what_an_agent_has_comes_back() -> None:
    task, agent = (exhausted(scope, "x", "units:tokens") for scope in (BudgetScope.TASK, BudgetScope.AGENT))

    assert (task.code, task.retryable) == ("budget_exhausted", False)
    assert (agent.code, agent.retryable) == ("budget_exhausted", True)
    assert agent.error == "the budget of agent x for units:tokens is used up"


@given(amounts)
def test_an_amount_is_read_back_as_it_was_written(micros: int) -> None:
    assert micros_of(amount_text(micros)) == micros
    assert micros_of(Decimal(micros) / MICROS) == micros


@given(st.floats(0, 1e9, allow_nan=False))
def test_a_float_is_counted_to_the_nearest_millionth_and_never_for_nothing(value: float) -> None:
    micros = micros_of(value)

    assert abs(Decimal(micros) - Decimal(repr(value)) * MICROS) <= (1 if value < 1e-6 else Decimal("0.5"))
    assert (micros > 0) == (value > 0)


def test_ten_cents_and_twenty_are_thirty() -> None:
    assert micros_of(0.1) + micros_of(0.2) == micros_of(0.1 + 0.2) == micros_of("0.30") == 300_000
    assert amount_text(-1_500_000) == "-1.5"


@pytest.mark.parametrize("value", [-1, True, None, "", "1e5", "1,5", "-2", float("nan"), float("inf"), 10**13, [1]])
def test_what_is_no_amount_is_refused_in_a_sentence(value: object) -> None:
    with pytest.raises(BudgetTextError, match="write a number"):
        micros_of(value)


@given(st.integers(1, 31_622_400).map(lambda seconds: seconds * 1_000))
def test_a_period_is_read_back_as_it_was_written(period_ms: int) -> None:
    assert period_of(period_text(period_ms)) == period_ms


@pytest.mark.parametrize("text", ["", "1", "0s", "367d", "1w", "-1h", "1.5h"])
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(BudgetTextError, match="no period"):
        period_of(text)


@pytest.mark.parametrize("text", ["tokens", "units:", "units:Größe", "units:1st", "wall", "units:" + "a" * 33])
def test_what_cannot_be_spent_is_refused(text: str) -> None:
    with pytest.raises(BudgetTextError, match="write wall_seconds, cpu_seconds or units:NAME"):
        kind_of(text)


def test_kinds_and_owners_are_words() -> None:
    assert [kind_of(word) for word in (" Wall_Seconds", "units:usd")] == ["wall_seconds", "units:usd"]
    assert owner_of("Agent", "a") == (BudgetScope.AGENT, "a")
    for scope, name in (("node", "a"), ("agent", " "), ("key", "k" * 257)):
        with pytest.raises(BudgetTextError):
            owner_of(scope, name)


def test_the_budget_of_a_task_is_a_mapping() -> None:
    assert budgets_of({"wall_seconds": 2, "units:usd": "0.5"}) == (("units:usd", 500_000), ("wall_seconds", 2_000_000))
    for wrong in (["tokens"], {"tokens": 1}, {"units:a": -1}, {"units:a": 1, "UNITS:A": 2}):
        with pytest.raises(BudgetTextError):
            budgets_of(wrong)
    with pytest.raises(BudgetTextError, match="more than the 16"):
        budgets_of({f"units:u{number}": 1 for number in range(17)})


@pytest.mark.parametrize("text", ["tokens=1200 usd=0.02", "tokens=1200,usd=0.02", " usd=0.02 ,  tokens=1200 "])
def test_what_was_spent_is_read_from_words(text: str) -> None:
    assert spent_of(text) == {"units:tokens": 1_200 * MICROS, "units:usd": 20_000}


@pytest.mark.parametrize("text", ["", "tokens", "tokens=", "tokens=-1", "a=1 a=2", "A B=1"])
def test_words_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(BudgetTextError):
        spent_of(text)


def test_an_attempt_cannot_invent_units_without_end() -> None:
    with pytest.raises(BudgetTextError, match="more than the 16"):
        units_of({f"u{number}": 1 for number in range(UNITS_PER_ATTEMPT_MAX + 1)})
