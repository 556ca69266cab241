"""Rules that hold for any output and any input."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from relaymesh.core.template import expand_map, join_outputs, render_stored
from relaymesh.core.template_syntax import TemplateError
from relaymesh.core.workflow_error import StepInputError
from relaymesh.core.workflow_json import (
    TooDeepError,
    depth,
    elements,
    find,
    json_slice,
    parse_pointer,
    slice_text,
    written,
)
from tests.core.test_template import render

quick = settings(deadline=None, max_examples=100)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10) | st.sampled_from(
    ["{{", "}}", "[", "]{", '"', "\\"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=15,
)
layouts = st.sampled_from(
    [{"indent": 1}, {"separators": (" ,", " : ")}, {"ensure_ascii": False}, {"separators": (",", ":")}]
)


def pointer(tokens: Sequence[str]) -> str:
    return "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def is_json(output: str) -> bool:
    try:
        return json_slice(output) is not None
    except TooDeepError:
        return True


@quick
@given(text)
def test_any_output_passes_unchanged(output: str) -> None:
    assert render({"$from": "a"}, {"a": output}) == output
    assert render("<{{steps.a.output}}>", {"a": output}) == f"<{output}>"


@quick
@given(values, layouts)
def test_a_json_output_comes_back_as_the_same_value(value: object, layout: dict[str, object]) -> None:
    output = json.dumps(value, **layout)  # type: ignore[arg-type]

    assert json.loads(render({"k": [{"$from": "a"}]}, {"a": output})) == {"k": [value]}


@quick
@given(text)
def test_any_other_output_comes_back_as_the_same_text(output: str) -> None:
    assume(not is_json(output))

    assert json.loads(render([{"$from": "a"}, "{{steps.a.output}}"], {"a": output})) == [output, output]


@quick
@given(values)
def test_a_literal_comes_back_as_the_same_value(value: object) -> None:
    assert json.loads(render([{"$literal": value}], {})) == [value]
    payload = render({"$literal": value}, {})
    assert payload == value if isinstance(value, str) else json.loads(payload) == value


@quick
@given(values, values)
def test_the_rest_of_an_input_stays_as_it_is_beside_a_reference(value: object, other: object) -> None:
    quoted = json.loads(json.dumps(value).replace("{{", "{ {").replace("$", "S"))

    rendered = render({"x": quoted, "y": {"$from": "a"}, "z": quoted}, {"a": json.dumps(other)})

    assert json.loads(rendered) == {"x": quoted, "y": other, "z": quoted}


@quick
@given(values, st.data())
def test_a_path_finds_what_the_value_holds_there(value: object, data: st.DataObject) -> None:
    tokens: list[str] = []
    place = value
    while place and isinstance(place, (dict, list)) and data.draw(st.booleans()):
        if isinstance(place, dict):
            token = data.draw(st.sampled_from(sorted(place)))
            place = place[token]
        else:
            number = data.draw(st.integers(0, len(place) - 1))
            token, place = str(number), place[number]
        tokens.append(token)
    output = json.dumps(value, **data.draw(layouts))

    assert parse_pointer(pointer(tokens)) == tuple(tokens)
    assert json.loads(render([{"$from": "a", "path": pointer(tokens)}], {"a": output})) == [place]
    found = find(output, tokens)
    assert found is not None
    assert slice_text(found) == (place if isinstance(place, str) else found)


@quick
@given(values, st.lists(text, max_size=3))
def test_any_path_into_any_output_gives_a_payload_or_a_failure(value: object, tokens: list[str]) -> None:
    try:
        render([{"$from": "a", "path": pointer(tokens)}], {"a": json.dumps(value)}).encode()
    except StepInputError as error:
        assert error.code == "input_unresolvable"


@quick
@given(st.lists(values, max_size=6), layouts)
def test_a_list_that_is_spread_and_joined_is_the_same_list(items: list[object], layout: dict[str, object]) -> None:
    spread = expand_map('{"$from": "a"}', {"a": json.dumps(items, **layout)})  # type: ignore[arg-type]

    assert [json.loads(item) for item in spread] == items
    assert json.loads(join_outputs(spread)) == items
    assert list(elements(join_outputs(spread))) == spread


@quick
@given(values)
def test_an_item_renders_as_it_does_as_an_output(value: object) -> None:
    output = json.dumps(value)

    inside = render_stored('[{"$item":""}]', {}, item_json=output, index=0)

    assert inside == render([{"$from": "a"}], {"a": output})


@quick
@given(values)
def test_depth_counts_levels(value: object) -> None:
    def levels(place: object) -> int:
        if isinstance(place, dict):
            return 1 + max(map(levels, place.values()), default=0)
        return 1 + max(map(levels, place), default=0) if isinstance(place, list) else 0

    assert depth(written(value)) == levels(value)


@quick
@given(st.text(st.sampled_from("{}'. aitemdxsphu0"), max_size=40))
def test_any_text_is_a_template_or_refused(template: str) -> None:
    try:
        payload = render(template, {}, item_json='{"a":1}', index=0)
    except (TemplateError, StepInputError):
        return
    if "{{" not in template:
        assert payload == template
