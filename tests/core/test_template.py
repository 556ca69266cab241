"""How inputs that name outputs are rendered, spread over lists and joined again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from relaymesh.core.limit import PAYLOAD_BYTES_MAX
from relaymesh.core.outcome import Failed
from relaymesh.core.template import (
    TemplateError,
    child_id,
    compile_input,
    compile_stored,
    expand_map,
    join_outputs,
    render_stored,
)
from relaymesh.core.workflow_error import (
    InputTooLarge,
    InputUnresolvable,
    JsonTooDeep,
    MapNotAList,
    MapTooMany,
    OutputTooLarge,
    StepInputError,
)


def references(value: object) -> frozenset[str]:
    return compile_input(value, mapped=True).references


def render(value: object, outputs: Mapping[str, str], item_json: str | None = None, index: int | None = None) -> str:
    return compile_input(value, mapped=True).render(outputs, item_json, index)


DEEP = "[" * 65 + "]" * 65


@pytest.mark.parametrize("output", ["", " \n text ", '{"a": 1}', "{{steps.s1.output}}", "é😀\0", DEEP])
def test_an_output_as_the_whole_input_passes_unchanged(output: str) -> None:
    assert render({"$from": "s1"}, {"s1": output}) == output
    assert render({"$from": "s1", "path": ""}, {"s1": output}) == output
    assert render("{{steps.s1.output}}", {"s1": output}) == output


@pytest.mark.parametrize(
    ("output", "inserted"),
    [
        ("text", '"text"'),
        (' {"b" : 1.500,\n "a":1e999} ', '{"b" : 1.500,\n "a":1e999}'),
        ("42", "42"),
        ("1" * 5000, "1" * 5000),
        ("", '""'),
        ("NaN", '"NaN"'),
        ('"quoted"', '"quoted"'),
        ('a "b" \\ \n', '"a \\"b\\" \\\\ \\n"'),
        ("[1,2] trailing", '"[1,2] trailing"'),
        ("\u00a0 1", '"\u00a0 1"'),
    ],
)
def test_inside_a_value_json_is_inserted_as_it_stands_and_text_as_a_string(output: str, inserted: str) -> None:
    assert render([{"$from": "s1"}], {"s1": output}) == f"[{inserted}]"


@pytest.mark.parametrize(
    ("path", "as_input", "inside"),
    [
        ("/a", "1.50", "1.50"),
        ("/b/0", "text", '"text"'),
        ("/b/1", '{"c": null}', '{"c": null}'),
        ("/b/1/c", "null", "null"),
        ("/", "empty name", '"empty name"'),
        ("/x~1y~0z", "escaped", '"escaped"'),
        ("/twice", "2", "2"),
        ("/ünï", "é", '"\\u00e9"'),
    ],
)
def test_a_path_cuts_a_piece_out_of_the_output(path: str, as_input: str, inside: str) -> None:
    output = (
        ' { "a" : 1.50 , "b":["text" , {"c": null} ], "": "empty name", "x/y~z": "escaped", "twice": 1, "twice": 2,'
        ' "\\u00fcn\\u00ef": "\\u00e9"} '
    )
    reference = {"$from": "s1", "path": path}

    assert render(reference, {"s1": output}) == as_input
    assert render({"k": reference}, {"s1": output}) == f'{{"k":{inside}}}'


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ('{"a": 1}', "/b"),
        ('{"a": 1}', "/a/b"),
        ("[1, 2]", "/2"),
        ("[1, 2]", "/-"),
        ("[1, 2]", "/01"),
        ("[1, 2]", "/" + "9" * 5000),
        ("[]", "/0"),
        ("{}", "/"),
        ("not JSON", "/a"),
        ("", "/a"),
        ('{"a": "\\ud800"}', "/a"),
    ],
)
def test_a_path_to_nothing_fails_for_good(output: str, path: str) -> None:
    with pytest.raises(InputUnresolvable) as caught:
        render({"$from": "s1", "path": path}, {"s1": output})

    failed = caught.value.failed()
    assert failed == Failed("input_unresolvable", str(caught.value), retryable=False)
    assert len(failed.error) < 300


def test_a_step_without_an_output_cannot_be_resolved() -> None:
    with pytest.raises(InputUnresolvable):
        render("{{steps.s1.output}}", {})


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("{{steps.s1.output.n}}", "Ada"),
        ("{{ steps.s1.output.l.0 }}", "1.50"),
        ("{{\tsteps.s1.output.l\n}}", "[1.50]"),
        ("{{steps.s1.output.two words}}", "yes"),
        ("<{{steps.s1.output.n}}{{steps.s1.output.n}}>", "<AdaAda>"),
        ("{{{steps.s1.output.n}}}", "{Ada}"),
        ("}} { } {{'{{'}} {{ 'a}}b' }} {{''}}.", "}} { } {{ a}}b ."),
        ("{{steps.a.b.output}}", "dotted"),
        ("{{steps.a.output.output}}", "first wins"),
        ("{{steps.a.outputs.output}}", "outputs"),
    ],
)
def test_references_inside_text_are_replaced(text: str, payload: str) -> None:
    outputs = {
        "s1": '{"n": "Ada", "l": [1.50], "two words": "yes"}',
        "a.b": "dotted",
        "a": '{"output": "first wins"}',
        "a.outputs": "outputs",
    }

    assert render(text, outputs) == payload


def test_replaced_text_is_not_read_again() -> None:
    assert render("{{steps.a.output}}", {"a": "{{steps.b.output}}", "b": "secret"}) == "{{steps.b.output}}"


def test_text_inside_json_is_escaped_after_it_is_replaced() -> None:
    payload = render({"k": 'say "{{steps.a.output}}"'}, {"a": 'a "b"\n'})

    assert json.loads(payload) == {"k": 'say "a "b"\n"'}


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{}}",
        "{{ }}",
        "{{name}}",
        "{{steps.s1}}",
        "{{steps.s1.result}}",
        "{{steps.s1.output.}}",
        "{{steps.s1.output..a}}",
        "{{steps.s 1.output}}",
        "{{steps..output}}x{{",
        "{{Item}}",
        "{{item.}}",
        "{{index.a}}",
        "{{'unclosed}}",
        "{{'two'quotes'}}",
        "{{{}}}",
        "{{ {item} }}",
        "{{steps.s1.output." + "a" * 1000 + "}}",
        "{{steps." + "s" * 129 + ".output}}",
    ],
)
def test_braces_that_are_no_reference_are_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        references({"k": [text]})


def test_the_error_for_braces_does_not_repeat_what_may_be_secret() -> None:
    with pytest.raises(TemplateError) as caught:
        references("{{ password: hunter2 }}")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        {"$from": ""},
        {"$from": None},
        {"$from": "a", "path": 1},
        {"$from": "a", "path": "b"},
        {"$from": "a", "path": "/~2"},
        {"$from": "a", "other": 1},
        {"$from": "a", "$item": ""},
        {"$item": 0},
        {"$item": "", "path": ""},
        {"$literal": 1, "other": 1},
    ],
)
def test_an_object_with_a_member_of_ours_must_be_well_formed(value: object) -> None:
    with pytest.raises(TemplateError) as caught:
        references({"k": [value]})

    assert caught.value.path.startswith(".k[0]")


@pytest.mark.parametrize("value", [{"$item": ""}, "{{item}}", {"a": ["{{index}}"]}])
def test_an_item_exists_in_a_map_step_only(value: object) -> None:
    assert compile_input(value, mapped=True)
    with pytest.raises(TemplateError):
        compile_input(value, mapped=False)


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        ({"$literal": "{{x}}"}, "{{x}}"),
        ({"$literal": {"$from": "a", "b": 1}}, '{"$from":"a","b":1}'),
        ([{"$literal": "{{x}}"}], '["{{x}}"]'),
        ({"$from ": "a", "$ref": "b", "{{x}}": 1}, '{"$from ":"a","$ref":"b","{{x}}":1}'),
        ({"a": "$from"}, '{"a":"$from"}'),
        ("$from", "$from"),
        (5, "5"),
        (True, "true"),
        ([], "[]"),
        ({}, "{}"),
        ({"x": [[], {}, "{{'a'}}"]}, '{"x":[[],{},"a"]}'),
    ],
)
def test_what_is_literal_is_static(value: object, payload: str) -> None:
    template = compile_input(value, mapped=False)

    assert template.is_static
    assert template.static_text == payload == template.render({})


def test_references_are_named_once_and_placed_where_they_first_stand() -> None:
    template = compile_input({"x": ["{{steps.b.output}}", {"$from": "a"}], "y": {"$from": "b"}}, mapped=False)

    assert dict(template.places) == {"b": ".x[0]", "a": ".x[1]"}
    assert template.references == references("{{steps.a.output}}{{steps.b.output.c}}") == frozenset("ab")


# Size and depth -------------------------------------------------------------------------------------------------------


def test_a_rendered_input_may_be_as_large_as_a_payload_and_no_larger() -> None:
    half = "x" * (PAYLOAD_BYTES_MAX // 2)
    text = "{{steps.a.output}}{{steps.b.output}}"

    assert len(render(text, {"a": half, "b": half})) == PAYLOAD_BYTES_MAX
    with pytest.raises(InputTooLarge):
        render(text, {"a": half, "b": half + "x"})
    with pytest.raises(InputTooLarge):
        render(text, {"a": half, "b": half[1:] + "é"})


def test_a_huge_fan_in_stops_before_it_fills_the_memory() -> None:
    fetched: list[str] = []

    class Outputs(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:  # type: ignore[override]
            fetched.append(key)
            return "x" * (PAYLOAD_BYTES_MAX // 2)

    with pytest.raises(InputTooLarge):
        render([{"$from": f"s{number}"} for number in range(1000)], Outputs())

    assert len(fetched) == 2


@pytest.mark.parametrize("output", [DEEP, '{"a":' * 70 + "1" + "}" * 70, "[" * 100_000 + "]" * 100_000], ids="abc")
def test_an_output_that_is_too_deep_to_be_read_is_refused_as_json_and_passes_as_text(output: str) -> None:
    for value in ([{"$from": "s1"}], {"$from": "s1", "path": "/0"}, "{{steps.s1.output.0}}"):
        with pytest.raises(JsonTooDeep):
            render(value, {"s1": output})

    assert render("{{steps.s1.output}}", {"s1": output}) == output


@pytest.mark.parametrize("output", ["[" * 100, '"' + "[" * 100 + '"', json.dumps(["]" * 99 + "\\"] * 99)])
def test_brackets_do_not_make_depth_where_nothing_nests(output: str) -> None:
    assert render([{"$from": "s1"}], {"s1": output})


# Map ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        ({"$item": ""}, '{"name": "b", "n": [1.50]}'),
        ({"$item": "/name"}, "b"),
        ({"i": {"$item": "/name"}, "n": {"$item": "/n/0"}}, '{"i":"b","n":1.50}'),
        ("{{index}}: {{item.name}} {{item.n}}", "3: b [1.50]"),
        (["{{item}}"], '["{\\"name\\": \\"b\\", \\"n\\": [1.50]}"]'),
    ],
)
def test_the_input_of_a_map_step_may_use_item_and_index(value: object, payload: str) -> None:
    assert render_stored(json.dumps(value), {}, item_json='{"name": "b", "n": [1.50]}', index=3) == payload


def test_a_text_item_is_used_without_its_quotes() -> None:
    assert render({"$item": ""}, {}, item_json='"a\\u0062"', index=0) == "ab"
    assert render("<{{item}}>", {}, item_json='"ab"', index=0) == "<ab>"
    assert render([{"$item": ""}], {}, item_json='"a\\u0062"', index=0) == '["a\\u0062"]'


def test_a_path_into_an_item_that_has_no_such_place_fails() -> None:
    with pytest.raises(InputUnresolvable):
        render("{{item.a}}", {}, item_json="[1]", index=0)


def test_one_compiled_template_serves_every_child() -> None:
    template = compile_stored('"{{index}}{{item}}{{steps.a.output}}"')

    assert [template.render({"a": "!"}, str(n * n), n) for n in range(3)] == ["00!", "11!", "24!"]


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ({"$from": "s1"}, ["1.50", '{"a": [1, 2]}', '"x,]"', "[]", "null"]),
        ({"$from": "s1", "path": "/1/a"}, ["1", "2"]),
        ({"$from": "s1", "path": "/3"}, []),
        (["a", {"$from": "s1", "path": "/0"}, "{{steps.s2.output}}"], ['"a"', "1.50", '"text"']),
        ({"$literal": [{"$from": "x"}]}, ['{"$from":"x"}']),
    ],
)
def test_a_list_is_spread_into_its_items_as_they_stand(value: object, items: list[str]) -> None:
    outputs = {"s1": ' [ 1.50 , {"a": [1, 2]},"x,]", [ ] , null ] '.replace("[ ]", "[]"), "s2": "text"}

    assert expand_map(json.dumps(value), outputs) == items


@pytest.mark.parametrize("output", ["text", '{"a": []}', '"[1]"', "5", "null", "true", "", "[1", "-1"])
def test_what_is_no_list_cannot_be_spread(output: str) -> None:
    with pytest.raises(MapNotAList) as caught:
        expand_map('{"$from": "s1"}', {"s1": output})

    assert caught.value.failed().retryable is False


def test_a_list_may_fill_the_room_and_no_more() -> None:
    assert len(expand_map('{"$from": "s1"}', {"s1": "[1,2,3]"}, limit=3)) == 3
    with pytest.raises(MapTooMany):
        expand_map('{"$from": "s1"}', {"s1": "[1,2,3]"}, limit=2)


def test_outputs_are_joined_in_order() -> None:
    assert join_outputs([]) == "[]"
    assert join_outputs(['{"a": 1.50}', "text", " 7 ", None, ""]) == '[{"a": 1.50},"text",7,null,""]'


def test_joined_outputs_may_be_as_large_as_one_output_and_no_larger() -> None:
    piece = "x" * (PAYLOAD_BYTES_MAX // 2 - 4)

    assert len(join_outputs([piece, piece + "y"])) == PAYLOAD_BYTES_MAX
    with pytest.raises(OutputTooLarge):
        join_outputs([piece, piece + "é"])
    with pytest.raises(JsonTooDeep):
        join_outputs([DEEP])


def test_a_child_cannot_be_taken_for_a_step_of_the_file() -> None:
    assert child_id("count", 0) == "count[0]"


def test_failures_of_an_input_are_never_retried() -> None:
    assert StepInputError("x").failed() == Failed("input_unusable", "x", retryable=False)


@pytest.mark.parametrize("opening", ["{{", "{", "{{'", "{{ steps.", "{{'a'", "{{ "])
def test_a_long_text_of_openings_is_refused_in_one_pass(opening: str) -> None:
    # Seen to take minutes when each opening looks at all that follows.
    with pytest.raises(TemplateError):
        references(opening * 300_000)
