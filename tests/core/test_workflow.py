"""What a workflow file may say, what is refused, and where the error points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pytest

from relaymesh.core import workflow_error
from relaymesh.core.limit import LABELS_MAX, PAYLOAD_BYTES_MAX, STEPS_MAX, WORKFLOW_BYTES_MAX
from relaymesh.core.workflow import PlanStep, check_agents, derived_key, parse
from relaymesh.core.workflow_error import (
    Cycle,
    UnknownAgent,
    WorkflowError,
    WorkflowNotJson,
    WorkflowNotUtf8,
)


def step(step_id: str, **members: object) -> dict[str, object]:
    return {"id": step_id, "agent": "echo", "input": "x", **members}


def workflow(*steps: object, **members: object) -> dict[str, object]:
    return {"steps": list(steps), **members}


def refusal(data: bytes | str | Mapping[str, object], **options: object) -> WorkflowError:
    with pytest.raises(WorkflowError) as caught:
        parse(data, **options)  # type: ignore[arg-type]
    return caught.value


def only_step(**members: object) -> PlanStep:
    (found,) = parse(json.dumps(workflow(step("a", **members)))).steps
    return found


# The file -------------------------------------------------------------------------------------------------------------


def test_bytes_text_and_values_give_the_same_plan() -> None:
    values = workflow(step("a", input={"n": [1, 2.5, None, True, "é"]}), step("b", dependsOn=["a"]))
    text = json.dumps(values)

    assert parse(values) == parse(text) == parse(text.encode())


def test_a_byte_order_mark_is_ignored() -> None:
    text = json.dumps(workflow(step("a")))

    assert parse(text.encode("utf-8-sig")) == parse("\ufeff" + text) == parse(text)


def test_bytes_that_are_not_utf8_are_refused_with_their_offset() -> None:
    error = refusal(b'{"steps":\n"\xff"}')

    assert isinstance(error, WorkflowNotUtf8)
    assert (error.code, error.offset) == ("workflow_not_utf8", 11)
    assert "0xff at offset 11 (line 2)" in str(error)


def test_a_file_in_utf16_is_recognized() -> None:
    assert "looks like UTF-16" in str(refusal('{"steps": []}'.encode("utf-16")))


def test_a_text_with_half_a_surrogate_pair_is_refused() -> None:
    assert refusal('{"steps": "\ud800"}').code == "workflow_not_utf8"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{\n  "steps": [,]\n}', 2, 13),
        ("", 1, 1),
        ('{"steps": []} trailing', 1, 15),
        ('{"steps":\n [NaN]}', 2, 3),
        ('{"NaN": "Infinity \\" NaN", "steps": -Infinity}', 1, 37),
        ('{"a": "\t"}', 1, 8),
    ],
)
def test_what_is_not_json_is_refused_with_line_and_column(text: str, line: int, column: int) -> None:
    error = refusal(text)

    assert isinstance(error, WorkflowNotJson)
    assert (error.code, error.line, error.column) == ("workflow_not_json", line, column)
    assert f"line {line}, column {column}" in str(error)


def test_a_file_above_the_limit_is_refused_before_it_is_read() -> None:
    assert refusal(b" " * (WORKFLOW_BYTES_MAX + 1)).code == "workflow_too_large"
    assert refusal(" " * (WORKFLOW_BYTES_MAX + 1)).code == "workflow_too_large"


@pytest.mark.parametrize(
    "nested", ["[" * 100_000, '{"a":' * 100_000, '{"steps": ' + "[" * 5000 + "]" * 5000 + "}"], ids="abc"
)
def test_nesting_that_would_exhaust_the_stack_is_refused(nested: str) -> None:
    assert refusal(nested).code in ("too_deep", "bad_type")


def test_a_member_given_twice_is_refused_since_one_would_be_lost() -> None:
    error = refusal('{"steps": [{"id": "a", "agent": "echo", "input": {"deep": [{"x": 1, "y": 2, "x": 3}]}}]}')

    assert (error.code, error.path) == ("duplicate_member", "steps[0].input.deep[0]")
    assert '"x"' in str(error)


def test_an_integer_with_thousands_of_digits_is_refused() -> None:
    error = refusal('{"steps":\n[' + "1" * 5000 + "]}")

    assert error.code == "bad_number"
    assert "line 2" in str(error)


# Types and members ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"agent": 1}, "steps[0].agent"),
        ({"priority": 1}, "steps[0].priority"),
        ({"dependsOn": "b"}, "steps[0].dependsOn"),
        ({"dependsOn": ["a", None]}, "steps[0].dependsOn[1]"),
        ({"map": "b"}, "steps[0].map"),
        ({"map": {"a": []}}, "steps[0].map"),
        ({"map": {"$literal": "b"}}, "steps[0].map"),
    ],
)
def test_a_wrong_type_is_refused_with_step_and_path(members: dict[str, object], path: str) -> None:
    error = refusal(workflow(step("a", **members)))

    assert (error.code, error.step_id, error.path) == ("bad_type", "a", path)
    assert str(error).startswith(f'step "a", {path}: ')


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ([], ""),
        ({"steps": {}}, "steps"),
        ({"steps": ["a"]}, "steps[0]"),
        ({"steps": [{"id": 7}]}, "steps[0].id"),
        ({"steps": [], "priority": 1}, "priority"),
        ({"steps": [], "labels": []}, "labels"),
        ({"steps": [], "labels": {"a": 1}}, "labels"),
    ],
)
def test_a_wrong_type_outside_a_named_step_is_refused_with_its_path(values: object, path: str) -> None:
    error = refusal(json.dumps(values))

    assert (error.code, error.step_id, error.path) == ("bad_type", None, path)


@pytest.mark.parametrize("misspelt", ["depends_on", "DependsOn", "dependOn", "depends-on"])
def test_a_misspelt_member_is_refused_with_the_nearest_name(misspelt: str) -> None:
    error = refusal(workflow(step("a", **{misspelt: []})))

    assert (error.code, error.step_id, error.path) == ("unknown_member", "a", "steps[0]")
    assert 'did you mean "dependsOn"?' in str(error)


def test_an_unknown_member_without_a_near_one_lists_the_known() -> None:
    assert "known are budget, labels, priority, steps" in str(refusal({"zzz": 1}))


def test_null_counts_as_absent() -> None:
    values = workflow(step("a", priority=None, dependsOn=None, map=None), priority=None, labels=None)

    assert parse(values).steps == parse(workflow(step("a"))).steps


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1 << 20_000], ids=["nan", "inf", "long"])
def test_a_program_may_not_hand_in_numbers_that_json_cannot_spell(value: object) -> None:
    error = refusal(workflow(step("a", input=[value])))

    assert (error.code, error.path) == ("bad_number", "steps[0].input[0]")


def test_a_number_in_a_file_that_no_double_can_hold_is_refused() -> None:
    assert refusal('{"steps": [{"id": "a", "agent": "echo", "input": [1e999]}]}').code == "bad_number"


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1, 2}}, b"bytes", object()])
def test_a_program_may_not_hand_in_values_that_json_has_no_type_for(value: object) -> None:
    assert refusal(workflow(step("a", input=value))).code == "bad_type"


def test_a_value_that_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)

    assert refusal(workflow(step("a", input=endless))).code == "too_deep"


@pytest.mark.parametrize("member", ["input", "map"])
def test_an_input_may_nest_64_levels_and_no_more(member: str) -> None:
    nested: object = "x"
    for _ in range(64):
        nested = [nested]

    assert parse(json.dumps(workflow(step("a", **{member: nested}))))
    error = refusal(json.dumps(workflow(step("a", **{member: [nested]}))))
    assert (error.code, error.step_id, error.path) == ("too_deep", "a", f"steps[0].{member}")


@pytest.mark.parametrize("innermost", ["{{'x'}}", {"$from": "b"}])
def test_the_depth_of_an_input_with_references_is_limited_too(innermost: object) -> None:
    nested = innermost
    for _ in range(65):
        nested = [nested]

    assert refusal(json.dumps(workflow(step("a", input=nested), step("b")))).code == "too_deep"


# Steps and ids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {"steps": []}, {"steps": None}, {"labels": {"a": "b"}}])
def test_a_workflow_without_steps_is_refused(values: dict[str, object]) -> None:
    assert refusal(values).code == "missing_steps"


def test_one_step_too_many_is_refused() -> None:
    error = refusal(json.dumps(workflow(*[{}] * (STEPS_MAX + 1))))

    assert (error.code, error.path) == ("too_many_steps", "steps")
    assert "100,001" in str(error)


@pytest.mark.parametrize("items", [[0] * STEPS_MAX, {"$literal": [0] * STEPS_MAX}], ids=["plain", "literal"])
def test_items_of_a_literal_map_count_as_steps(items: object) -> None:
    error = refusal(json.dumps(workflow(step("a", map=items))))

    assert (error.code, error.step_id, error.path) == ("too_many_steps", "a", "steps[0].map")


@pytest.mark.parametrize("bad", ["", "  ", None, "a b", "ä", "a/b", "a\n", "x" * 129, "a[0]"])
def test_an_id_that_is_missing_blank_or_unusable_is_refused(bad: object) -> None:
    error = refusal(workflow(step("fine"), step("a") | {"id": bad}))

    assert (error.code, error.path) == ("bad_step_id", "steps[1].id")


def test_an_id_may_have_128_characters_of_the_allowed_kind() -> None:
    assert parse(workflow(step("Aa0_-." + "x" * 122))).steps[0].id.startswith("Aa0_-.")


def test_two_steps_with_one_id_are_refused() -> None:
    error = refusal(workflow(step("a"), step("b"), step("a")))

    assert (error.code, error.step_id, error.path) == ("duplicate_step", "a", "steps[2].id")
    assert "steps[0]" in str(error)


# Dependencies ---------------------------------------------------------------------------------------------------------


def test_a_dependency_that_names_no_step_is_refused_with_the_nearest_id() -> None:
    error = refusal(workflow(step("collect"), step("b", dependsOn=["collect", "colect"])))

    assert (error.code, error.step_id, error.path) == ("unknown_dependency", "b", "steps[1].dependsOn[1]")
    assert 'no step has the id "colect"; did you mean "collect"?' in str(error)


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"input": "{{steps.nowhere.output}}"}, "steps[0].input"),
        ({"input": {"$from": "nowhere"}}, "steps[0].input"),
        ({"input": {"list": [0, {"a b": {"$from": "nowhere"}}]}}, 'steps[0].input.list[1]["a b"]'),
        ({"map": {"$from": "nowhere"}}, "steps[0].map"),
        ({"map": [1, "{{steps.nowhere.output}}"]}, "steps[0].map[1]"),
    ],
)
def test_a_reference_that_names_no_step_is_refused_where_it_stands(members: dict[str, object], path: str) -> None:
    error = refusal(workflow(step("a", **members)))

    assert (error.code, error.step_id, error.path) == ("unknown_dependency", "a", path)


def test_references_become_dependencies_after_the_written_ones_and_each_once() -> None:
    plan = parse(
        workflow(
            *(step(step_id) for step_id in "abcd"),
            step("z", dependsOn=["b", "b"], map={"$from": "c"}, input="{{steps.a.output}} {{steps.b.output}}"),
        )
    )

    assert plan.steps[-1].depends_on == ("b", "c", "a")


@pytest.mark.parametrize(
    ("members", "path"),
    [({"dependsOn": ["a"]}, "steps[0].dependsOn[0]"), ({"input": ["{{steps.a.output}}"]}, "steps[0].input[0]")],
)
def test_a_step_that_waits_for_itself_is_refused(members: dict[str, object], path: str) -> None:
    error = refusal(workflow(step("a", **members)))

    assert (error.code, error.step_id, error.path) == ("self_dependency", "a", path)


def test_a_cycle_is_printed_from_its_first_step_in_the_file() -> None:
    error = refusal(
        workflow(step("x", dependsOn=["c"]), step("b", input={"$from": "c"}), step("a", dependsOn=["b"]))
        | {
            "steps": [
                step("x", dependsOn=["c"]),
                step("b", input={"$from": "c"}),
                step("c", dependsOn=["a", "b"]),
                step("a"),
            ]
        }
    )

    assert isinstance(error, Cycle)
    assert (error.code, error.step_id, error.path, error.steps) == ("cycle", "b", "steps[1].input", ("b", "c"))
    assert "b -> c -> b" in str(error)


@pytest.mark.uncounted
def test_a_long_cycle_is_found_and_shortened() -> None:
    steps = [step(f"s{number}", dependsOn=[f"s{(number - 1) % 20_000}"]) for number in range(20_000)]

    error = refusal(json.dumps(workflow(*steps)))

    assert isinstance(error, Cycle)
    assert len(error.steps) == 20_000
    assert "-> (19,980 more) -> s1 -> s0" in str(error)
    assert len(str(error)) < 1000


@pytest.mark.uncounted
def test_a_chain_of_100_000_steps_is_accepted() -> None:
    steps = [step(f"s{number}", dependsOn=[f"s{number - 1}"] if number else []) for number in range(STEPS_MAX)]

    plan = parse(json.dumps(workflow(*steps)))

    assert plan.steps[-1].depends_on == ("s99998",)


@pytest.mark.uncounted
def test_more_than_a_million_dependencies_are_refused() -> None:
    names = [f"s{number}" for number in range(2000)]
    steps = [step(name) for name in names] + [step(f"t{number}", dependsOn=names) for number in range(501)]

    error = refusal(json.dumps(workflow(*steps)))

    assert (error.code, error.step_id) == ("too_many_dependencies", "t500")


# What each step asks for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", [None, "", " "])
def test_a_step_without_an_agent_is_refused(agent: object) -> None:
    error = refusal(workflow(step("a", agent=agent)))

    assert (error.code, error.step_id, error.path) == ("missing_agent", "a", "steps[0].agent")


def test_an_unknown_agent_is_refused_with_the_nearest_known() -> None:
    plan = parse(workflow(step("a"), step("b", agent="ehco")))

    with pytest.raises(UnknownAgent) as caught:
        check_agents(plan, ["echo", "fail"])

    assert (caught.value.code, caught.value.step_id, caught.value.path) == ("unknown_agent", "b", "steps[1].agent")
    assert caught.value.agent == "ehco"
    assert 'did you mean "echo"?' in str(caught.value)
    check_agents(plan, {"echo", "ehco"})


def test_an_unknown_agent_with_no_near_name_lists_the_known() -> None:
    assert 'known are "echo", "fail"' in str(refusal(workflow(step("a", agent="zzz")), agents=["fail", "echo"]))


def test_with_the_agents_at_hand_an_unknown_one_comes_before_a_missing_input() -> None:
    values = workflow(step("a", agent="nobody", input=None))

    assert refusal(values, agents=["echo"]).code == "unknown_agent"
    assert refusal(values).code == "missing_input"


def test_an_empty_input_is_an_input_and_a_missing_one_is_not() -> None:
    assert only_step(input="").payload == ""
    error = refusal(workflow({"id": "a", "agent": "echo"}))
    assert (error.code, error.step_id, error.path) == ("missing_input", "a", "steps[0].input")


@pytest.mark.parametrize(
    "text",
    ["x" * (PAYLOAD_BYTES_MAX + 1), "é" * (PAYLOAD_BYTES_MAX // 2 + 1), "{{index}}" + "x" * PAYLOAD_BYTES_MAX],
    ids=["ascii", "wide", "template"],
)
def test_a_payload_above_the_limit_is_refused(text: str) -> None:
    error = refusal(workflow(step("a", input=text, map=[1])))

    assert (error.code, error.step_id, error.path) == ("payload_too_large", "a", "steps[0].input")


def test_a_payload_at_the_limit_is_accepted() -> None:
    assert only_step(input="é" * (PAYLOAD_BYTES_MAX // 2)).payload == "é" * (PAYLOAD_BYTES_MAX // 2)


@pytest.mark.parametrize("members", [{"input": "\ud800"}, {"input": {"\ud800": 1}}, {"agent": "\udfff"}])
def test_half_a_surrogate_pair_is_refused(members: dict[str, object]) -> None:
    assert refusal(json.dumps(workflow(step("a", **members)))).code == "bad_text"


@pytest.mark.parametrize(
    ("word", "priority"), [("high", "HIGH"), ("Low", "LOW"), (" ", "NORMAL"), (" NORMAL ", "NORMAL")]
)
def test_priorities_are_stored_in_capitals(word: str, priority: str) -> None:
    assert only_step(priority=word).priority == priority


def test_an_unknown_priority_is_refused() -> None:
    error = refusal(workflow(step("a", priority="urgent")))

    assert (error.code, error.step_id, error.path) == ("bad_priority", "a", "steps[0].priority")
    assert refusal(workflow(step("a"), priority="urgent")).path == "priority"


def test_the_priority_of_the_workflow_is_for_steps_that_name_none() -> None:
    values = workflow(step("a"), step("b", priority="low"), step("c", priority=" "), priority="high")

    assert [found.priority for found in parse(values).steps] == ["HIGH", "LOW", "HIGH"]
    assert [found.priority for found in parse(values, priority="normal").steps] == ["NORMAL", "LOW", "NORMAL"]


def test_labels_are_kept_in_order_of_their_names() -> None:
    assert list(parse(workflow(step("a"), labels={"team": "blue", "app": "é 1"})).labels.items()) == [
        ("app", "é 1"),
        ("team", "blue"),
    ]


@pytest.mark.parametrize(
    "labels",
    [
        {"a=b": "c"},
        {"": "c"},
        {"a" * 64: "c"},
        {"a": "x" * 257},
        {"a": "\n"},
        {f"l{n}": "" for n in range(LABELS_MAX + 1)},
    ],
)
def test_labels_that_could_not_be_searched_for_are_refused(labels: dict[str, str]) -> None:
    error = refusal(workflow(step("a"), labels=labels))

    assert (error.code, error.path) == ("bad_labels", "labels")


# What is stored -------------------------------------------------------------------------------------------------------


def test_a_step_without_references_has_its_final_payload() -> None:
    found = only_step(input={"a": ["{{'x'}}", 1.5], "b": {"$literal": {"$from": "y"}}})

    assert found.payload == '{"a":["x",1.5],"b":{"$from":"y"}}'
    assert (found.template, found.map_template, found.is_static) == (None, None, True)


def test_a_step_with_references_has_a_template_and_no_payload() -> None:
    found = parse(workflow(step("a", input="{{steps.b.output}}"), step("b"))).steps[0]

    assert (found.payload, found.template, found.is_static) == (None, '"{{steps.b.output}}"', False)


def test_a_map_step_without_input_gets_the_item() -> None:
    found = parse(workflow({"id": "a", "agent": "echo", "map": [1, 2]})).steps[0]

    assert (found.payload, found.template, found.map_template) == (None, '{"$item":""}', "[1,2]")
    assert not found.is_static


def test_a_map_step_with_a_fixed_input_keeps_its_payload() -> None:
    found = parse(workflow(step("a", map=[1, 2]))).steps[0]

    assert (found.payload, found.template, found.is_static) == ("x", None, False)


def test_later_changes_by_the_program_do_not_reach_the_plan() -> None:
    values = workflow(step("a", input={"n": [1]}))
    plan = parse(values)
    before = derived_key(plan)

    values["steps"][0]["input"]["n"].append(2)  # type: ignore[index]

    assert derived_key(plan) == before


# The order of validation ----------------------------------------------------------------------------------------------


def test_the_first_failure_in_the_documented_order_is_reported() -> None:
    stages: list[tuple[str, list[dict[str, object]]]] = [
        ("unknown_member", [step("m", zzz=1)]),
        ("bad_step_id", [step(" ")]),
        ("duplicate_step", [step("d"), step("d")]),
        ("unknown_dependency", [step("u", dependsOn=["nowhere"])]),
        ("self_dependency", [step("s", dependsOn=["s"])]),
        ("cycle", [step("c1", dependsOn=["c2"]), step("c2", dependsOn=["c1"])]),
        ("missing_agent", [step("g", agent="", input=None)]),
        ("missing_input", [step("i", input=None, priority="urgent")]),
    ]

    for position, (code, _) in enumerate(stages):
        faults = [fault for _, faults in reversed(stages[position:]) for fault in faults]
        if code == "missing_agent":
            faults.reverse()  # from here on it goes step by step

        assert refusal(workflow(*faults)).code == code


# The derived key ------------------------------------------------------------------------------------------------------


def test_the_derived_key_of_a_plain_workflow_is_that_of_its_normalized_steps() -> None:
    plan = parse(
        '{"steps": [{"dependsOn": [], "agent": "echo", "id": "s1", "input": "é / \\u00e9", "priority": "normal"},'
        ' {"id": "s2", "agent": "echo", "input": "second", "priority": "  ", "dependsOn": ["s1", "s1"]}]}'
    )
    normalized = (
        '[{"id":"s1","agent":"echo","input":"é / é","priority":"normal","dependsOn":[]},'
        '{"id":"s2","agent":"echo","input":"second","priority":"NORMAL","dependsOn":["s1","s1"]}]'
    )

    assert derived_key(plan) == hashlib.sha256(normalized.encode()).hexdigest()


def test_the_derived_key_covers_map_and_the_default_priority_and_not_the_labels() -> None:
    plain = derived_key(parse(workflow(step("a"))))

    assert derived_key(parse(workflow(step("a"), labels={"x": "y"}))) == plain
    assert derived_key(parse(workflow(step("a", map=[1])))) != plain
    assert derived_key(parse(workflow(step("a", map=[1])))) != derived_key(parse(workflow(step("a", map=[2]))))
    assert derived_key(parse(workflow(step("a"), priority="HIGH"))) == derived_key(
        parse(workflow(step("a", priority="HIGH")))
    )
    assert derived_key(parse(workflow(step("a")), priority="low")) != plain


def test_every_refusal_has_a_code_of_its_own() -> None:
    classes = [getattr(workflow_error, name) for name in workflow_error.__all__]
    codes = [found.code for found in classes]

    assert len(set(codes)) == len(codes)


def test_a_terminal_is_safe_from_what_a_file_holds() -> None:
    error = refusal(workflow(step("a", dependsOn=["\x1b[2J\u202e" + "x" * 10_000])))

    assert str(error).isprintable()
    assert len(str(error)) < 300
