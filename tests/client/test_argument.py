"""What a program hands in that is of a wrong kind: one sentence that says what to write, and nothing is changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relaymesh.agents.decorate import agent
from relaymesh.argument import TextTooLongError
from relaymesh.client import Client
from relaymesh.errors import InputError
from relaymesh.testing import InlineRelay
from relaymesh.view import TaskRequest


@agent("greet-people")
def greet(name: str) -> str:
    return f"hello {name}"


TAKE_A_TASK: dict[str, Callable[[Client, Any], object]] = {
    "task": lambda client, it: client.task(it),
    "workflow": lambda client, it: client.workflow(it),
    "outputs": lambda client, it: list(client.outputs(it)),
    "wait": lambda client, it: client.wait(it),
    "wait_success": lambda client, it: client.wait_success(it),
    "output": lambda client, it: client.output(it),
    "result": lambda client, it: client.result(it),
    "events": lambda client, it: list(client.events(it)),
    "logs": lambda client, it: list(client.logs(it)),
    "explain": lambda client, it: client.explain(it),
    "cancel": lambda client, it: client.cancel(it),
    "cancel_soft": lambda client, it: client.cancel_soft(it),
    "replay": lambda client, it: client.replay(it),
    "discard": lambda client, it: client.discard(it, reason="no use"),
    "task_export": lambda client, it: client.task_export(it, "task.json"),
}


def test_every_method_that_takes_a_task_is_in_the_list() -> None:
    found = {
        name
        for name, method in inspect.getmembers(Client)
        if not name.startswith("_") and "task_id" in getattr(method, "__annotations__", {})
    }

    assert found == set(TAKE_A_TASK)


@pytest.mark.parametrize("method", TAKE_A_TASK)
def test_what_submit_returned_is_not_taken_for_the_id_in_it(client: Client, method: str) -> None:
    outcome = client.submit("echo", "x")

    with pytest.raises(InputError, match=r"of type SubmitOutcome: write its \.task_id") as caught:
        TAKE_A_TASK[method](client, outcome)

    assert caught.value.code == "bad_input"
    assert client.task(outcome.task_id).status == "PENDING"


@pytest.mark.parametrize("method", TAKE_A_TASK)
@pytest.mark.parametrize("value", [None, 5, b"tsk_1"])
def test_a_task_id_that_is_no_text_is_refused(client: Client, method: str, value: object) -> None:
    client.init()

    with pytest.raises(InputError, match=f"of type {type(value).__name__}"):
        TAKE_A_TASK[method](client, value)


def test_the_relay_of_tests_says_the_same() -> None:
    with InlineRelay([greet]) as relay:
        outcome = relay.submit("greet-people", "Ada")

        with pytest.raises(InputError, match=r"write its \.task_id"):
            relay.wait(outcome)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": {"a": 1}}, 'the value of label "a" is of type int, not text: .*labels={"team": "blue"}'),
        ({"labels": {1: "a"}}, "the name of a label is text, and this is of type int"),
        ({"labels": "a"}, "labels is a mapping, and this is of type str"),
        ({"labels": ["a"]}, "labels is a mapping, and this is of type list"),
        ({"priority": 5}, "priority is text, and this is of type int"),
        ({"idempotency_key": 5}, "idempotency_key is text, and this is of type int"),
        ({"traceparent": 5}, "traceparent is text, and this is of type int"),
        ({"delay_ms": "5s"}, "delay_ms is a whole number of milliseconds, and this is of type str"),
        ({"at_ms": "noon"}, "at_ms is a whole number of milliseconds"),
        ({"expires_in_ms": 1.5}, "expires_in_ms is a whole number of milliseconds"),
    ],
)
def test_a_submit_with_an_option_of_a_wrong_kind_says_what_to_write(
    client: Client, options: dict[str, Any], sentence: str
) -> None:
    workflow = {"steps": [{"id": "a", "agent": "echo", "input": "x"}]}

    with pytest.raises(InputError, match=sentence):
        client.submit("echo", "x", **options)
    with pytest.raises(InputError, match=sentence):
        client.submit_workflow(workflow, **options)
    (line,) = client.submit_many([TaskRequest(agent="echo", input="x", **options)])

    assert line.result == "rejected"
    client.init()
    assert client.tasks() == []


def test_an_agent_is_submitted_to_by_its_id(client: Client) -> None:
    with pytest.raises(InputError, match="of type function: write 'greet-people'"):
        client.submit(greet, "Ada")  # type: ignore[arg-type]
    with pytest.raises(InputError, match='such as "echo"'):
        client.submit(None, "Ada")  # type: ignore[arg-type]


def test_a_request_of_a_batch_that_is_none_is_rejected_and_the_others_are_stored(client: Client) -> None:
    lines = list(client.submit_many(["echo", TaskRequest(agent="echo", input="x")]))  # type: ignore[list-item]

    assert [(line.line, line.result) for line in lines] == [(1, "rejected"), (2, "accepted")]
    assert "write TaskRequest(" in (lines[0].message or "")


def test_the_path_of_a_workflow_is_not_taken_for_a_workflow(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="read_bytes"):
        client.submit_workflow(tmp_path / "flow.json")  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["a", "ab", "team=blue", ("a", 1), ("a",), {"a": "b"}, 5])
def test_a_label_to_look_for_that_is_no_pair_is_refused(client: Client, label: Any) -> None:
    client.init()

    with pytest.raises(InputError, match=r'write label=\("team", "blue"\)') as caught:
        client.tasks(label=label)

    assert caught.value.code == "bad_labels"


@pytest.mark.parametrize("number", [-1, "5", None, 1.5, True])
def test_a_count_that_is_no_whole_number_of_0_or_more_is_refused(client: Client, number: Any, tmp_path: Path) -> None:
    client.init()
    asks: list[Callable[[], object]] = [
        lambda: client.tasks(limit=number),
        lambda: client.tasks(offset=number),
        lambda: client.lease_conflicts(limit=number),
        lambda: client.lease_conflicts(since_hours=number),
        lambda: client.replay_batch(limit=number),
        lambda: client.dead_export(tmp_path / "dead.json", number),
    ]

    for ask in asks:
        with pytest.raises(InputError, match=r"write 0 or more|write it such as (limit|offset|since_hours)=10"):
            ask()
    assert client.tasks(limit=0) == []


def test_a_time_to_wait_that_is_no_number_is_refused(client: Client) -> None:
    task_id = client.submit("echo", "x").task_id

    for ask in (client.wait, client.wait_success, client.result, client.events):
        with pytest.raises(InputError, match="write it such as timeout_ms=5000"):
            ask(task_id, timeout_ms="5s")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("root", "options", "sentence"),
    [
        (5, {}, "root is the path of a folder, and this is of type int"),
        (None, {}, "of type NoneType"),
        (b"data", {}, "of type bytes"),
        ("", {}, "root is empty: name a folder"),
        ("data", {"namespace": 5}, "namespace is text"),
        ("data", {"namespace": None}, "namespace is text"),
        ("data", {"agents": "my_agents.py"}, r'of type str: write agents=\["my_agents.py"\]'),
        ("data", {"agents": [greet]}, "one of them is of type function"),
        ("data", {"agents": None}, "of type NoneType"),
    ],
)
def test_a_client_of_values_of_a_wrong_kind_says_what_to_write(
    root: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        Client(root, **options)


def test_a_query_that_changes_something_or_is_no_sql_is_the_fault_of_who_wrote_it(client: Client) -> None:
    task_id = client.submit("echo", "x").task_id

    for sql, values, said in (
        ("DELETE FROM tasks", (), "a query only reads: use the other methods"),
        ("SELEC 1", (), 'cannot be run (near "SELEC": syntax error): mend the SQL'),
        ("SELECT * FROM task", (), "cannot be run (no such table: task)"),
        ("SELECT ?", (1, 2), "cannot be run (Incorrect number of bindings supplied"),
    ):
        with pytest.raises(InputError) as caught:
            client.query(sql, values)
        assert said in str(caught.value)
    assert client.query("SELECT task_id FROM tasks") == [(task_id,)]


TOO_LONG: dict[str, Callable[[Client], object]] = {
    "cluster_epoch_bump": lambda client: client.cluster_epoch_bump(reason="x" * 1_001),
    "the actor of cluster_epoch_bump": lambda client: client.cluster_epoch_bump(actor="x" * 257),
    "cancel": lambda client: client.cancel("tsk_1", reason="x" * 1_001),
    "cancel_soft": lambda client: client.cancel_soft("tsk_1", reason="x" * 1_001),
    "discard": lambda client: client.discard("tsk_1", reason="x" * 1_001),
    "pause_queue": lambda client: client.pause_queue(reason="x" * 1_001),
    "drain_node": lambda client: client.drain_node("a", reason="x" * 1_001),
    "submit": lambda client: client.submit("echo", "x", idempotency_key="x" * 1_001),
    "a new client": lambda client: Client(client.root, actor="x" * 257),
}


@pytest.mark.parametrize("call", TOO_LONG.values(), ids=TOO_LONG)
def test_a_text_longer_than_anybody_reads_is_refused_and_nothing_is_kept(
    client: Client, call: Callable[[Client], object]
) -> None:
    client.init()

    with pytest.raises(TextTooLongError) as refused:
        call(client)

    assert refused.value.exit_status == 2
    assert not (client.root / "audit" / "audit.log").exists()
    assert client.cluster_state().epoch == 1 and client.queue_status().pauses == ()
    assert list(client.tasks()) == []


def test_a_batch_goes_on_behind_a_task_with_a_key_that_is_too_long(client: Client) -> None:
    tasks = [TaskRequest(agent="echo", input=length, idempotency_key="x" * int(length)) for length in ("1001", "1000")]

    first, second = client.submit_many(tasks)

    assert (first.result, first.code) == ("rejected", "text_too_long")
    assert second.result == "accepted"
