"""A member that stands twice in one object is found, wherever and however it is spelled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.json_object import RepeatedMemberError, members_once, refuse_repeated


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"a": 1, "a": 1}', "a"),
        ('{"a" : 1, "b":2, "a"\n:3}', "a"),
        ('[1, {"x": {"b": 1, "b": 2}}]', "b"),
        ('{"a": 1, "\\u0061": 2}', "a"),
        ('{"": 1, "": 2}', ""),
        ('\ufeff{"a": 1, "a": 2}', "a"),
    ],
)
def test_it_is_named(text: str, name: str) -> None:
    with pytest.raises(RepeatedMemberError) as found:
        refuse_repeated(text.encode())

    assert found.value.name == name
    assert str(found.value) == f'the member "{name}" stands there twice in one object: keep one of them'


@pytest.mark.parametrize(
    "text", ['{"a": {"a": 1}, "b": {"a": 2}}', '[{"a": 1}, {"a": 1}]', '{"a": ":", "b": "a\\":"}', "7"]
)
def test_the_same_name_in_two_objects_is_none(text: str) -> None:
    refuse_repeated(text.encode())


values = st.recursive(
    st.integers(0, 9) | st.text('ab":,\\{} ', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
members = st.lists(st.tuples(st.sampled_from(["a", "b", "cc", "\u00e9"]), values), max_size=5)


@given(members, st.booleans(), st.sampled_from([":", ": ", " :"]))
def test_it_is_found_exactly_when_it_is_there(pairs: list[tuple[str, Any]], escaped: bool, colon: str) -> None:
    body = ",".join(
        json.dumps(name, ensure_ascii=escaped) + colon + json.dumps(value, ensure_ascii=escaped)
        for name, value in pairs
    )
    text = "[{" + body + "}]"
    names = [name for name, _ in pairs]

    if len(set(names)) == len(names):
        refuse_repeated(text.encode())
        assert json.loads(text, object_pairs_hook=members_once) == [dict(pairs)]
    else:
        with pytest.raises(RepeatedMemberError):
            refuse_repeated(text.encode())
        with pytest.raises(RepeatedMemberError):
            json.loads(text, object_pairs_hook=members_once)
