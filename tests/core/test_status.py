"""The transition table: what may follow what, checked over every pair."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.status import (
    GIVES_BACK_ATTEMPT,
    STEP_TRANSITIONS,
    TASK_TRANSITIONS,
    TERMINAL_STEP,
    TERMINAL_TASK,
    StepEvent,
    StepStatus,
    TaskEvent,
    TaskStatus,
    step_allowed,
    step_sources,
    task_allowed,
    task_sources,
)

S, E = StepStatus, StepEvent


def test_the_step_table_is_the_documented_one() -> None:
    expected = {
        E.CLAIMED: {S.PENDING: S.RUNNING},
        E.SUCCEEDED: {S.RUNNING: S.SUCCESS},
        E.RETRY_SCHEDULED: {S.RUNNING: S.RETRYING, S.ABANDONED: S.RETRYING},
        E.DEAD_LETTERED: {S.RUNNING: S.DEAD_LETTER, S.ABANDONED: S.DEAD_LETTER},
        E.WORKER_DIED: {S.RUNNING: S.RETRYING},
        E.RECLAIMED: {S.RUNNING: S.ABANDONED},
        E.REQUEUED: {S.ABANDONED: S.PENDING},
        E.RELEASED: {S.RUNNING: S.PENDING},
        E.SNOOZED: {S.RUNNING: S.RETRYING},
        E.RETRY_DUE: {S.RETRYING: S.PENDING},
        E.JOINED: {S.PENDING: S.SUCCESS},
        E.INPUT_REFUSED: {S.PENDING: S.DEAD_LETTER},
        E.REPLAYED: {S.DEAD_LETTER: S.PENDING},
        E.RESTARTED: dict.fromkeys([S.SUCCESS, S.RUNNING, S.RETRYING], S.PENDING),
        E.DISCARDED: dict.fromkeys([S.DEAD_LETTER, S.PENDING, S.RETRYING], S.CANCELLED),
        E.EXPIRED: {S.PENDING: S.CANCELLED, S.RETRYING: S.CANCELLED},
        E.CANCELLED_SOFT: dict.fromkeys([S.PENDING, S.RETRYING, S.ABANDONED, S.FAILED], S.CANCELLED),
        E.CANCELLED_HARD: dict.fromkeys([S.PENDING, S.RETRYING, S.ABANDONED, S.FAILED, S.RUNNING], S.CANCELLED),
        E.CLOSED: {S.RUNNING: S.CANCELLED, S.ABANDONED: S.CANCELLED},
    }

    for status, event in itertools.product(S, E):
        assert step_allowed(status, event) == expected[event].get(status), (status, event)


def test_a_step_is_claimed_only_while_it_is_pending() -> None:
    assert step_sources(E.CLAIMED) == {S.PENDING}


def test_nothing_is_written_as_failed_or_timeout() -> None:
    assert not {S.FAILED, S.TIMEOUT} & set(STEP_TRANSITIONS.values())
    written = set(TASK_TRANSITIONS.values())
    assert not {TaskStatus.FAILED, TaskStatus.TIMEOUT, TaskStatus.ABANDONED} & written


def test_abandoned_always_has_a_way_out_within_the_same_transaction() -> None:
    ways_out = {event for (source, event) in STEP_TRANSITIONS if source is S.ABANDONED}

    assert {E.RETRY_SCHEDULED, E.DEAD_LETTERED, E.REQUEUED, E.CLOSED} <= ways_out
    assert step_sources(E.RECLAIMED) == {S.RUNNING}


@pytest.mark.parametrize("status", sorted(TERMINAL_STEP))
def test_a_terminal_step_moves_only_by_what_an_operator_does(status: StepStatus) -> None:
    events = {event for (source, event) in STEP_TRANSITIONS if source is status}

    moved_by = {S.DEAD_LETTER: {E.REPLAYED, E.DISCARDED}, S.SUCCESS: {E.RESTARTED}}
    assert events == moved_by.get(status, set())


@pytest.mark.parametrize("status", sorted(TERMINAL_TASK))
def test_a_terminal_task_is_sticky_but_for_a_replay_or_discard(status: TaskStatus) -> None:
    moved_by = {event for event in TaskEvent if task_allowed(status, event) is not None}

    assert moved_by == ({TaskEvent.REPLAYED, TaskEvent.DISCARDED} if status is TaskStatus.DEAD_LETTER else set())


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.RETRYING])
def test_an_open_task_follows_every_event_of_its_steps(status: TaskStatus) -> None:
    T, F = TaskStatus, TaskEvent

    assert {event: task_allowed(status, event) for event in F if event not in (F.REPLAYED, F.DISCARDED)} == {
        F.STEP_CLAIMED: T.RUNNING,
        F.STEP_SUCCEEDED: T.RUNNING,
        F.ALL_SUCCEEDED: T.SUCCESS,
        F.STEP_RETRYING: T.RETRYING,
        F.STEP_DEAD_LETTERED: T.DEAD_LETTER,
        F.CANCELLED: T.CANCELLED,
        F.EXPIRED: T.CANCELLED,
    }


def test_only_open_tasks_can_be_cancelled() -> None:
    assert task_sources(TaskEvent.CANCELLED) == {TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.RETRYING}
    assert task_sources(TaskEvent.REPLAYED) == {TaskStatus.DEAD_LETTER}


def test_the_tables_cannot_be_changed_at_run_time() -> None:
    with pytest.raises(TypeError):
        STEP_TRANSITIONS[S.SUCCESS, E.CLAIMED] = S.RUNNING  # type: ignore[index]


def test_an_attempt_is_given_back_only_after_it_was_counted() -> None:
    for event in GIVES_BACK_ATTEMPT:
        assert step_sources(event) == {S.RUNNING}, event


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(list(E)), max_size=30))
def test_the_attempt_count_never_falls_below_zero_and_never_counts_a_gift_twice(events: list[StepEvent]) -> None:
    status, claims, attempt = S.PENDING, 0, 0
    for event in events:
        target = step_allowed(status, event)
        if target is None:
            continue
        claims += event is E.CLAIMED
        attempt += (event is E.CLAIMED) - (event in GIVES_BACK_ATTEMPT)
        attempt = 0 if event in (E.REPLAYED, E.RESTARTED) else attempt
        status = target

        assert 0 <= attempt <= claims


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(TERMINAL_TASK)), st.lists(st.sampled_from(list(TaskEvent)), max_size=10))
def test_no_order_of_events_moves_a_cancelled_or_finished_task(start: TaskStatus, events: list[TaskEvent]) -> None:
    status = start
    for event in events:
        if event in (TaskEvent.REPLAYED, TaskEvent.DISCARDED):
            continue
        status = task_allowed(status, event) or status

    assert status is start


def test_every_open_step_can_reach_every_outcome() -> None:
    reached = {S.PENDING}
    while True:
        more = {target for (source, _), target in STEP_TRANSITIONS.items() if source in reached} - reached
        if not more:
            break
        reached |= more

    assert reached >= TERMINAL_STEP
