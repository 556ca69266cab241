"""The one first reason why a step is not finished."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.explain import Dependency, Reason, StepFacts, explain
from relaymesh.core.status import StepStatus, TaskStatus

S, R = StepStatus, Reason
NOW_MS = 1_000_000

READY = StepFacts(
    step_id="stp_1",
    task_id="tsk_1",
    agent_id="echo",
    status=S.PENDING,
    task_status=TaskStatus.PENDING,
    now_ms=NOW_MS,
    status_since_ms=NOW_MS - 5_000,
    live_nodes=1,
    agent_nodes=("node-a",),
    free_slots=2,
)
RUNNING = replace(READY, status=S.RUNNING, owner="node-a", attempt=2)


def test_a_step_with_nothing_in_its_way_is_ready() -> None:
    why = explain(READY)

    assert (why.reason, why.since_ms, why.command) == (R.READY, NOW_MS - 5_000, None)


@pytest.mark.parametrize(
    ("status", "reason", "command"),
    [
        (S.SUCCESS, R.DONE, None),
        (S.CANCELLED, R.CANCELLED, None),
        (S.DEAD_LETTER, R.DEAD_LETTER, "relaymesh replay tsk_1"),
    ],
)
def test_a_step_that_ended_says_how(status: StepStatus, reason: Reason, command: str | None) -> None:
    why = explain(replace(READY, status=status, attempt=3))

    assert (why.reason, why.since_ms, why.command) == (reason, NOW_MS - 5_000, command)


def test_a_running_step_names_its_owner_and_attempt() -> None:
    why = explain(RUNNING)

    assert why.reason is R.RUNNING
    assert "attempt 2 is running on node-a" in why.sentence


@pytest.mark.parametrize(
    "facts",
    [
        replace(RUNNING, lease_age_ms=15_000),
        replace(RUNNING, lease_age_ms=3_000, owner_alive=False),
        replace(RUNNING, lease_age_ms=60_000, owner=None),
    ],
)
def test_a_running_step_without_a_living_owner_says_since_when(facts: StepFacts) -> None:
    why = explain(facts)

    assert (why.reason, why.since_ms) == (R.OWNER_LOST, NOW_MS - facts.lease_age_ms)
    assert why.command == "relaymesh maintenance"


def test_a_dependency_that_is_not_done_is_named() -> None:
    waits = (Dependency("stp_b", S.RUNNING, 7), Dependency("stp_a", S.PENDING, 8), Dependency("stp_c", S.SUCCESS, 9))

    why = explain(replace(READY, dependencies=waits))

    assert why.reason is R.WAITING_DEPENDENCY
    assert why.sentence == "stp_a is PENDING and must succeed first (and 1 more)"
    assert why.command is None


def test_a_dead_dependency_comes_before_one_that_only_takes_time() -> None:
    waits = (Dependency("stp_a", S.RUNNING, 7), Dependency("stp_b", S.DEAD_LETTER, 8))

    why = explain(replace(READY, dependencies=waits, task_status=TaskStatus.DEAD_LETTER))

    assert (why.reason, why.since_ms) == (R.BLOCKED_BY_DEAD_DEPENDENCY, 8)
    assert why.command == "relaymesh replay tsk_1"


def test_no_replay_is_offered_where_it_would_be_refused() -> None:
    waits = (Dependency("stp_b", S.CANCELLED, 8),)

    why = explain(replace(READY, dependencies=waits, task_status=TaskStatus.CANCELLED))

    assert (why.reason, why.command) == (R.BLOCKED_BY_DEAD_DEPENDENCY, None)


def test_dependencies_that_all_succeeded_are_no_reason() -> None:
    assert explain(replace(READY, dependencies=(Dependency("stp_a", S.SUCCESS, 7),))).reason is R.READY


def test_a_delay_and_a_backoff_are_told_apart_and_say_how_long() -> None:
    delayed = explain(replace(READY, not_before_ms=NOW_MS + 1_500))
    backoff = explain(replace(READY, not_before_ms=NOW_MS + 300, status=S.RETRYING, attempt=1))

    assert delayed.reason is R.DELAYED
    assert delayed.sentence == "it may not start before 1.5 s from now"
    assert backoff.reason is R.RETRY_BACKOFF
    assert backoff.sentence == "it runs again after 1 attempt 300 ms from now"


def test_a_time_that_has_come_is_no_reason_and_starts_the_wait() -> None:
    why = explain(replace(READY, status=S.RETRYING, not_before_ms=NOW_MS - 10))

    assert (why.reason, why.since_ms) == (R.READY, NOW_MS - 10)


def test_without_a_node_the_command_is_to_start_one() -> None:
    why = explain(replace(READY, live_nodes=0, agent_nodes=(), free_slots=0))

    assert (why.reason, why.command) == (R.NO_NODE, "relaymesh up")


def test_nodes_that_are_all_paused_count_as_none() -> None:
    why = explain(replace(READY, live_nodes=2, paused_nodes=2, agent_nodes=(), free_slots=0))

    assert why.reason is R.NO_NODE
    assert "2 nodes alive, but paused" in why.sentence


def test_of_nodes_that_are_all_paused_the_standing_of_one_is_the_reason() -> None:
    why = explain(replace(READY, live_nodes=2, paused_nodes=2, node_pause="n is SUSPECT"))

    assert (why.reason, why.command) == (R.NODE_PAUSED, "relaymesh members")
    assert "n is SUSPECT" in why.sentence
    assert explain(replace(READY, live_nodes=2, paused_nodes=1, node_pause="n is SUSPECT")).reason is R.READY


def test_an_agent_that_nobody_has_is_named() -> None:
    why = explain(replace(READY, agent_nodes=(), free_slots=0))

    assert why.reason is R.AGENT_NOT_REGISTERED
    assert "echo" in why.sentence
    assert why.command is not None
    assert why.command.startswith("relaymesh up --agents")


def test_the_limit_of_an_agent_comes_before_the_slots() -> None:
    why = explain(replace(READY, agent_running=3, agent_limit=3, free_slots=0, room_since_ms=NOW_MS - 100))

    assert (why.reason, why.since_ms) == (R.AGENT_CONCURRENCY, NOW_MS - 100)
    assert "3 of at most 3" in why.sentence


def test_full_slots_are_the_last_reason_before_ready() -> None:
    assert explain(replace(READY, free_slots=0)).reason is R.NO_FREE_SLOT


ORDER = [
    ({"dependencies": (Dependency("d", S.DEAD_LETTER, 1),)}, R.BLOCKED_BY_DEAD_DEPENDENCY),
    ({"dependencies": (Dependency("d", S.PENDING, 1),)}, R.WAITING_DEPENDENCY),
    ({"not_before_ms": NOW_MS + 1}, R.DELAYED),
    ({"live_nodes": 0}, R.NO_NODE),
    ({"agent_nodes": ()}, R.AGENT_NOT_REGISTERED),
    ({"agent_limit": 0}, R.AGENT_CONCURRENCY),
    ({"free_slots": 0}, R.NO_FREE_SLOT),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_of_several_reasons_the_first_in_order_is_told(first: int) -> None:
    facts = READY
    for change, _ in reversed(ORDER[first:]):
        facts = replace(facts, **change)  # type: ignore[arg-type]

    assert explain(facts).reason is ORDER[first][1]


dependencies = st.builds(Dependency, st.sampled_from("abc"), st.sampled_from(S), st.integers(0, NOW_MS))


@settings(deadline=None, max_examples=200)
@given(
    st.builds(
        StepFacts,
        step_id=st.just("stp_1"),
        task_id=st.just("tsk_1"),
        agent_id=st.just("echo"),
        status=st.sampled_from(S),
        task_status=st.sampled_from(TaskStatus),
        now_ms=st.just(NOW_MS),
        status_since_ms=st.integers(0, NOW_MS),
        attempt=st.integers(0, 4),
        dependencies=st.lists(dependencies, max_size=3).map(tuple),
        not_before_ms=st.none() | st.integers(0, 2 * NOW_MS),
        owner=st.none() | st.just("node-a"),
        owner_alive=st.booleans(),
        lease_age_ms=st.integers(0, 60_000),
        live_nodes=st.integers(0, 3),
        paused_nodes=st.integers(0, 3),
        agent_nodes=st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
        agent_running=st.integers(0, 3),
        agent_limit=st.none() | st.integers(0, 3),
        free_slots=st.integers(0, 3),
        room_since_ms=st.none() | st.integers(0, NOW_MS),
    )
)
def test_any_facts_have_one_reason_that_began_in_the_past_and_a_sentence(facts: StepFacts) -> None:
    why = explain(facts)

    assert why.reason in Reason
    assert why.since_ms <= facts.now_ms
    assert why.sentence
    assert "\n" not in why.sentence
    if facts.status is S.RUNNING:
        assert why.reason in (R.RUNNING, R.OWNER_LOST)
    if facts.status in (S.PENDING, S.RETRYING):
        assert why.reason not in (R.DONE, R.CANCELLED, R.DEAD_LETTER, R.RUNNING, R.OWNER_LOST)


def test_the_table_in_the_docs_lists_every_reason_once_and_no_other() -> None:
    page = Path(__file__).parents[2] / "docs" / "explain.md"

    listed = re.findall(r"^\| `(\w+)` \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert listed == [reason.value for reason in Reason]
