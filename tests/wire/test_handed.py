"""What the content of a handed-in file may be, and that no bytes get further than a sentence."""

from __future__ import annotations

import json

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.wire.handed import BadFileError, HandedTask, HandedWorkflow, read_handed

TASK = {"agent": "echo", "input": {"a": [1, None]}, "idempotencyKey": "k", "delayMs": 5, "labels": {"x": "y"}}
FLOW = {"steps": [{"id": "s", "agent": "echo", "input": ""}], "priority": "low"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", json.dumps(TASK).encode()),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(TASK).encode()),
        ("a.JSON", json.dumps(TASK).encode()),
        ("a", b" \n" + json.dumps(TASK).encode()),
        ("a.txt", msgpack.packb(TASK)),
        ("a.msgpack", msgpack.packb(TASK)),
    ],
)
def test_a_task_is_read_by_the_ending_of_its_name_or_its_first_byte(name: str, data: bytes) -> None:
    assert read_handed(name, data) == HandedTask(
        agent="echo", input={"a": [1, None]}, idempotency_key="k", delay_ms=5, labels={"x": "y"}
    )


@pytest.mark.parametrize(
    ("text", "member"),
    [
        ('{"agent": "echo", "input": 1, "input": 2}', "input"),
        ('{"agent": "echo", "input": {"deep": [{"a": 1, "a": 2}]}}', "a"),
        ('{"agent": "echo", "input": 1, "\\u0061gent": "fail"}', "agent"),
        ('{"workflow": {"steps": [], "steps": []}}', "steps"),
    ],
)
def test_a_member_that_stands_twice_is_refused_by_its_name(text: str, member: str) -> None:
    with pytest.raises(BadFileError, match=f'the member "{member}" stands there twice in one object'):
        read_handed("a.json", text.encode())


def test_a_bare_workflow_is_left_to_its_reader_which_knows_the_place() -> None:
    twice = b'{"steps": [{"id": "s", "id": "t", "agent": "echo", "input": ""}]}'

    assert read_handed("a.json", twice) == HandedWorkflow(workflow=twice)


def test_a_workflow_is_a_workflow_file_as_it_is_or_wrapped_with_more() -> None:
    bare = json.dumps(FLOW).encode()

    assert read_handed("a.json", bare) == HandedWorkflow(workflow=bare, priority="low")
    assert read_handed("a.msgpack", msgpack.packb(FLOW)) == HandedWorkflow(workflow=FLOW, priority="low")
    assert read_handed("a.json", json.dumps({"workflow": FLOW, "idempotencyKey": "k"}).encode()) == HandedWorkflow(
        workflow=FLOW, idempotency_key="k", priority="low"
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b""),
        ("a", b""),
        ("a.json", b'{"agent": "echo", "inp'),
        ("a.msgpack", msgpack.packb(TASK)[:-1]),
        ("a.msgpack", json.dumps(TASK).encode()),
        ("a.json", msgpack.packb(TASK)),
        ("a.json", b"[]"),
        ("a.json", b'{"agent": "echo"}'),
        ("a.json", b'{"agent": "echo", "input": "", "inputs": ""}'),
        ("a.json", b'{"agent": 7, "input": ""}'),
        ("a.json", b'{"agent": "echo", "input": "", "delayMs": "5s"}'),
        ("a.json", b'{"workflow": []}'),
        ("a.json", b'{"agent": "\xff", "input": ""}'),
        ("a.json", b"[" * 1_000_000),
        ("a.msgpack", b"\x91" * 1_000_000),
        ("a.msgpack", msgpack.packb({1: 2})),
    ],
)
def test_anything_else_is_refused_in_one_sentence(name: str, data: bytes) -> None:
    with pytest.raises(BadFileError) as caught:
        read_handed(name, data)

    assert caught.value.code == "bad_file" and len(str(caught.value)) < 400


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
members = st.dictionaries(
    st.sampled_from(["agent", "input", "priority", "labels", "delayMs", "atMs", "steps", "workflow", "x"]), values
)
anything = (
    st.binary(max_size=200)
    | members.map(msgpack.packb)
    | members.filter(lambda found: b"" not in found).map(lambda found: json.dumps(found, default=repr).encode())
)


@given(st.sampled_from(["a.json", "a.msgpack", "a", "a.txt"]), anything, st.integers(0, 300))
def test_any_bytes_are_a_task_a_workflow_or_refused(name: str, data: bytes, cut: int) -> None:
    for shown in (data, data[:cut]):
        try:
            handed = read_handed(name, shown)
        except BadFileError:
            continue
        assert isinstance(handed, HandedTask | HandedWorkflow)
