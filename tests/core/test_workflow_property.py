"""Rules that hold for any workflow, any bytes and any JSON."""

from __future__ import annotations

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.limit import DEPTH_MAX
from relaymesh.core.workflow import WorkflowPlan, check_agents, derived_key, parse
from relaymesh.core.workflow_error import UnknownAgent, WorkflowError
from relaymesh.core.workflow_graph import find_cycle, topological_order

quick = settings(deadline=None, max_examples=100)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.text(max_size=4) | st.sampled_from(["$from", "$item", "$literal", "path", "a", "id", "steps"])
values = st.recursive(
    scalars | st.sampled_from(["{{", "{{item}}", "{{oops}}", "{{steps.a.output}}", "high", "a"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def workflows(draw: st.DrawFn) -> dict[str, object]:
    """Workflows in which most is right: a step names steps before it, and seldom any other; seldom there is junk."""

    def one_in(chance: int) -> bool:
        return draw(st.integers(1, chance)) == chance

    count = draw(st.integers(1, 5))
    steps: list[object] = []
    for number in range(count):
        others = [f"s{n}" for n in range(count if one_in(15) else number)] or ["s9" if one_in(30) else "s0"]
        earlier = st.sampled_from(others)
        leaf = st.sampled_from(["plain", "", "{{'x'}}", 7, {"$literal": {"$from": "z"}}])
        if number:
            leaf |= earlier.map(lambda name: {"$from": name, "path": "/x/0"})
            leaf |= earlier.map(lambda name: f"<{{{{ steps.{name}.output.x }}}}>")
        step: dict[str, object] = {
            "id": f"s{number}",
            "agent": "echo",
            "input": draw(leaf | st.lists(leaf, max_size=3) | st.fixed_dictionaries({"k": leaf})),
        }
        if number and one_in(2):
            step["dependsOn"] = draw(st.lists(earlier, max_size=3))
        if one_in(3):
            step["map"] = draw(st.lists(leaf, max_size=3))
            step["input"] = draw(st.sampled_from([None, "{{item}}", {"$item": "/a"}, {"n": "{{index}}"}, "fixed"]))
        if one_in(3):
            step["priority"] = draw(st.sampled_from(["high", "Low", "", None]))
        if one_in(20):
            step[draw(names | st.sampled_from([*step]))] = draw(values)
        steps.append(draw(values) if one_in(60) else step)
    workflow: dict[str, object] = {"steps": steps}
    if one_in(3):
        workflow |= {"labels": draw(st.dictionaries(st.text("xyz", min_size=1), st.text("xyz "))), "priority": "low"}
    if one_in(20):
        workflow[draw(names | st.sampled_from(["steps", "labels", "priority"]))] = draw(values)
    return workflow


def plan_or_refusal(data: object) -> WorkflowPlan | WorkflowError:
    try:
        return parse(data)  # type: ignore[arg-type]
    except WorkflowError as error:
        assert error.code != WorkflowError.code
        assert str(error).isprintable()
        return error


def assert_sound(plan: WorkflowPlan) -> None:
    before: set[str] = {step.id for step in plan.steps}
    assert len(before) == len(plan.steps)
    for step in plan.steps:
        assert (step.payload is None) != (step.template is None)
        assert step.is_static == (step.template is None and step.map_template is None)
        assert step.id not in step.depends_on
        assert set(step.depends_on) <= before
        assert len(set(step.depends_on)) == len(step.depends_on)
        assert step.priority in ("HIGH", "NORMAL", "LOW")
        for text in (step.payload, step.template, step.map_template, step.agent):
            (text or "").encode()
    numbers = {step.id: number for number, step in enumerate(plan.steps)}
    depends = [[numbers[name] for name in step.depends_on] for step in plan.steps]
    assert len(topological_order(depends)) == len(plan.steps)
    assert len(derived_key(plan)) == 64


@quick
@given(st.binary(max_size=64) | st.text(max_size=64))
def test_any_bytes_or_text_give_a_plan_or_a_workflow_error(data: bytes | str) -> None:
    plan_or_refusal(data)


@quick
@given(workflows(), st.data())
def test_any_damage_to_a_file_gives_a_plan_or_a_workflow_error(workflow: object, data: st.DataObject) -> None:
    text = bytearray(json.dumps(workflow, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))

    plan_or_refusal(bytes(text))


@quick
@given(values)
def test_any_json_gives_a_plan_or_a_workflow_error(value: object) -> None:
    plan_or_refusal(json.dumps(value))
    plan_or_refusal(json.dumps({"steps": value}))
    plan_or_refusal(json.dumps({"steps": [value]}))
    if isinstance(value, dict):
        plan_or_refusal(value)


@quick
@given(workflows())
def test_what_nearly_is_a_workflow_gives_a_sound_plan_or_a_workflow_error(workflow: dict[str, object]) -> None:
    outcome = plan_or_refusal(workflow)

    if isinstance(outcome, WorkflowPlan):
        assert_sound(outcome)
        again = parse(json.dumps(workflow))
        assert again == outcome
        assert derived_key(again) == derived_key(outcome)


@quick
@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=5))
def test_any_agent_is_known_or_refused_by_name(agent: str, known: list[str]) -> None:
    outcome = plan_or_refusal({"steps": [{"id": "a", "agent": agent, "input": ""}]})

    if isinstance(outcome, WorkflowPlan):
        try:
            check_agents(outcome, known)
        except UnknownAgent as error:
            assert agent not in known
            assert str(error).isprintable()
        else:
            assert agent in known


@quick
@given(st.integers(0, 2 * DEPTH_MAX), st.booleans())
def test_depth_is_refused_exactly_above_the_limit(depth: int, objects: bool) -> None:
    value: object = "x"
    for _ in range(depth):
        value = {"k": value} if objects else [value]

    outcome = plan_or_refusal(json.dumps({"steps": [{"id": "a", "agent": "echo", "input": value}]}))

    assert isinstance(outcome, WorkflowPlan) == (depth <= DEPTH_MAX)


graphs = st.integers(1, 12).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, size - 1), max_size=3, unique=True), min_size=size, max_size=size)
)


@quick
@given(graphs)
def test_an_order_puts_every_step_after_all_that_it_waits_for(depends: list[list[int]]) -> None:
    order = topological_order(depends)

    place = {step: number for number, step in enumerate(order)}
    assert len(place) == len(order)
    for step in order:
        assert all(place[dependency] < place[step] for dependency in depends[step])


@quick
@given(graphs)
def test_either_all_steps_have_an_order_or_there_is_a_real_cycle(depends: list[list[int]]) -> None:
    cycle = find_cycle(depends)

    assert (len(topological_order(depends)) == len(depends)) == (not cycle)
    assert len(set(cycle)) == len(cycle)
    for step, waits_for in zip(cycle, cycle[1:] + cycle[:1], strict=True):
        assert waits_for in depends[step]
    assert not cycle or cycle[0] == min(cycle)


@quick
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_a_graph_without_cycles_is_accepted_in_any_order_of_its_steps(size: int, seed: int) -> None:
    rng = random.Random(seed)
    steps = [
        {"id": f"s{n}", "agent": "echo", "input": "x", "dependsOn": [f"s{rng.randrange(n)}"] if n else []}
        for n in range(size)
    ]
    rng.shuffle(steps)

    assert_sound(parse({"steps": steps}))
