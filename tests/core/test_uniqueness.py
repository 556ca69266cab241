"""Whether a task is one too many, and what becomes of it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.status import TaskStatus
from relaymesh.core.uniqueness import (
    DEBOUNCE_FACTOR,
    Debounce,
    Holder,
    OnDuplicate,
    Replace,
    Return,
    Store,
    Unique,
    UniqueMode,
    judge,
)

NOON = 1_700_000_000_000
S = TaskStatus
OPEN = {S.PENDING, S.RUNNING, S.RETRYING}


def unique(mode: UniqueMode, action: OnDuplicate = OnDuplicate.RETURN, delay_ms: int = 500) -> Unique:
    return Unique("k", mode, action, period_ms=1_000, delay_ms=delay_ms)


def test_the_first_task_of_a_key_is_always_stored() -> None:
    for mode, action in itertools.product(UniqueMode, OnDuplicate):
        assert judge(unique(mode, action), None, NOON) == Store()


@pytest.mark.parametrize("status", [*OPEN, S.SUCCESS, S.DEAD_LETTER, S.CANCELLED])
def test_each_mode_ends_when_it_says(status: TaskStatus) -> None:
    holder = Holder("tsk_1", status, NOON - 999)

    in_the_way = {mode for mode in UniqueMode if judge(unique(mode), holder, NOON) == Return("tsk_1")}

    assert (UniqueMode.WAITING in in_the_way) == (status is S.PENDING)
    assert (UniqueMode.RUNNING in in_the_way) == (status in OPEN)
    assert UniqueMode.PERIOD in in_the_way
    assert judge(unique(UniqueMode.PERIOD), holder, NOON + 1) == Store()


@pytest.mark.parametrize("status", [S.RUNNING, S.RETRYING])
@pytest.mark.parametrize("action", [OnDuplicate.REPLACE, OnDuplicate.DEBOUNCE])
def test_what_has_started_is_never_replaced(status: TaskStatus, action: OnDuplicate) -> None:
    assert judge(unique(UniqueMode.RUNNING, action), Holder("tsk_1", status, NOON), NOON) == Return("tsk_1")


def test_what_waits_is_replaced() -> None:
    holder = Holder("tsk_1", S.PENDING, NOON - 5)

    assert judge(unique(UniqueMode.WAITING, OnDuplicate.REPLACE), holder, NOON) == Replace("tsk_1")


@given(st.lists(st.integers(0, 600), min_size=1, max_size=80), st.integers(1, 500))
def test_a_stream_of_debounced_submits_waits_for_a_pause_but_not_for_ever(pauses: list[int], delay_ms: int) -> None:
    asked = unique(UniqueMode.WAITING, OnDuplicate.DEBOUNCE, delay_ms)
    now, holder, due = NOON, Holder("tsk_0", S.PENDING, NOON), NOON + delay_ms
    for number, pause in enumerate(pauses, 1):
        now += pause
        if now >= due:
            break  # it has started
        outcome = judge(asked, holder, now)
        assert isinstance(outcome, Debounce) and outcome.since_ms == NOON
        assert due <= outcome.not_before_ms <= min(now + delay_ms, NOON + DEBOUNCE_FACTOR * delay_ms)
        due = outcome.not_before_ms
        holder = Holder(f"tsk_{number}", S.PENDING, now, outcome.since_ms)


def test_a_clock_that_was_set_back_does_not_put_a_debounced_task_off_for_longer() -> None:
    holder = Holder("tsk_1", S.PENDING, NOON, NOON)

    outcome = judge(unique(UniqueMode.WAITING, OnDuplicate.DEBOUNCE, 500), holder, NOON - 3_600_000)

    assert outcome == Debounce("tsk_1", NOON - 3_600_000 + 500, NOON - 3_600_000)
