"""``Workflow``: what is built in Python is the workflow file that one would have written."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh import ITEM, InputError, Workflow, WorkflowError, literal
from relaymesh.core.workflow import parse
from relaymesh.testing import InlineRelay

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["{{", "}}", "{{item}}", "$from"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text | st.just("$from"), inner, max_size=3),
    max_leaves=8,
)


@dataclass
class Letter:
    to: str
    pages: int


def test_every_member_stands_where_the_file_has_it() -> None:
    flow = Workflow(labels={"team": "blue"}, priority="low")
    first = flow.step("first", "echo", "plain text")
    second = flow.step("second", "echo", {"whole": first.output, "piece": first.at("/a/0")}, after=[first, "zero"])
    flow.step("third", "echo", {"item": ITEM}, over=second.output, priority="high")

    assert json.loads(flow.to_json()) == {
        "steps": [
            {"id": "first", "agent": "echo", "input": "plain text"},
            {
                "id": "second",
                "agent": "echo",
                "input": {"whole": {"$from": "first"}, "piece": {"$from": "first", "path": "/a/0"}},
                "dependsOn": ["first", "zero"],
            },
            {
                "id": "third",
                "agent": "echo",
                "input": {"item": {"$item": ""}},
                "map": {"$from": "second"},
                "priority": "high",
            },
        ],
        "labels": {"team": "blue"},
        "priority": "low",
    }
    assert flow.to_dict() == json.loads(flow.to_json())


def test_values_become_json_as_submit_makes_them() -> None:
    flow = Workflow()
    flow.step("a", "echo", Letter("Ada", 2))

    assert parse(flow.to_json()).steps[0].payload == '{"to":"Ada","pages":2}'


@settings(deadline=None, max_examples=150)
@given(text)
def test_text_from_outside_arrives_as_it_was_when_it_is_a_literal(outside: str) -> None:
    flow = Workflow()
    flow.step("a", "echo", literal(outside))

    assert parse(flow.to_json()).steps[0].payload == outside


@settings(deadline=None, max_examples=150)
@given(values)
def test_any_value_arrives_as_it_was_when_it_is_a_literal(outside: object) -> None:
    flow = Workflow()
    flow.step("a", "echo", {"it": literal(outside)})

    payload = parse(flow.to_json()).steps[0].payload

    assert payload is not None and json.loads(payload) == {"it": outside}


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.integers(0, 5), max_size=3), min_size=1, max_size=6))
def test_steps_that_name_only_earlier_ones_are_always_a_workflow(needs: list[list[int]]) -> None:
    flow = Workflow()
    made = []
    for number, earlier in enumerate(needs):
        used = [made[index] for index in earlier if index < number]
        made.append(flow.step(f"s{number}", "echo", [step.output for step in used]))

    plan = parse(flow.to_json(), agents=["echo"])

    for number, step in enumerate(plan.steps):
        assert set(step.depends_on) == {f"s{index}" for index in needs[number] if index < number}


def test_a_mistake_is_found_when_it_is_submitted_and_names_the_place(relay: InlineRelay) -> None:
    flow = Workflow()
    flow.step("a", "shout", "x", after=["nobody"])

    with pytest.raises(WorkflowError, match="nobody") as caught:
        relay.submit_workflow(flow)

    assert caught.value.path == "steps[0].dependsOn[0]"
    assert relay.tasks() == []


def test_the_same_workflow_twice_is_one_task_unless_the_key_says_otherwise(relay: InlineRelay) -> None:
    flow = Workflow()
    flow.step("a", "shout", "x")

    first = relay.submit_workflow(flow)

    assert relay.submit_workflow(flow).task_id == first.task_id
    assert relay.submit_workflow(flow.to_json()).task_id == first.task_id
    assert relay.submit_workflow(flow.to_dict()).task_id == first.task_id
    assert relay.submit_workflow(flow, idempotency_key="another").task_id != first.task_id


@pytest.mark.parametrize("wrap", [lambda step: step, lambda step: {"a": [step]}, lambda step: ("x", {"b": step})])
@pytest.mark.parametrize("place", ["input", "over"])
def test_a_step_where_its_output_is_meant_is_refused(wrap, place: str) -> None:
    flow = Workflow()
    first = flow.step("first", "echo", "x")

    with pytest.raises(InputError, match=r"the input of step second holds the step first itself: write its \.output"):
        flow.step("second", "echo", **{place: wrap(first)})

    assert [step["id"] for step in flow.to_dict()["steps"]] == ["first"]


def test_one_step_to_wait_for_needs_no_list() -> None:
    flow = Workflow()
    first = flow.step("first", "echo", "x")
    flow.step("second", "echo", "x", after=first)
    flow.step("third", "echo", "x", after="second")

    assert [step.get("dependsOn") for step in flow.to_dict()["steps"]] == [None, ["first"], ["second"]]
