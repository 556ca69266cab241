"""What a program gets back: outputs, results as values, and errors that say why there is none."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from relaymesh import Client, TaskFailedError, TaskNotFoundError, TaskRequest, Workflow
from relaymesh.errors import InputError
from relaymesh.result import BadResultError, StepNotFoundError, StepNotNamedError
from relaymesh.testing import InlineRelay


def test_a_result_is_text_or_what_was_asked_for(relay: InlineRelay, samples: Any) -> None:
    task = relay.submit("price", samples.Order("tea", 2))

    assert relay.result(task.task_id) == '{"item":"tea","cents":500}'
    assert relay.result(task.task_id, type=dict[str, Any]) == {"item": "tea", "cents": 500}
    assert relay.result(task.task_id, type=samples.Receipt) == samples.Receipt("tea", 500)
    assert relay.result(task.task_id, type=samples.Receipt | None) == samples.Receipt("tea", 500)


def test_text_that_happens_to_be_json_stays_text(relay: InlineRelay) -> None:
    task = relay.submit("shout", "42")

    assert relay.result(task.task_id) == "42"
    assert relay.result(task.task_id, type=int) == 42


def test_a_result_of_another_shape_is_an_error_that_says_so(relay: InlineRelay) -> None:
    task = relay.submit("shout", "no json")

    with pytest.raises(BadResultError, match=f"{task.task_id} does not fit the type") as caught:
        relay.result(task.task_id, type=list[int])
    assert pickle.loads(pickle.dumps(caught.value)).code == "bad_result"


def test_the_result_of_a_failed_task_is_an_error_that_says_why(relay: InlineRelay) -> None:
    task = relay.submit("hopeless", "x")

    with pytest.raises(TaskFailedError) as caught:
        relay.result(task.task_id)

    assert (caught.value.task_id, caught.value.status) == (task.task_id, "DEAD_LETTER")
    assert "no such customer" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_result_of_a_cancelled_task_is_an_error_too(relay: InlineRelay) -> None:
    task = relay.submit("shout", "x")
    relay.cancel(task.task_id, reason="changed my mind")

    with pytest.raises(TaskFailedError, match="CANCELLED"):
        relay.wait_success(task.task_id)


def test_the_result_of_a_workflow_is_the_output_of_the_step_that_no_other_needs(relay: InlineRelay) -> None:
    flow = Workflow()
    low = flow.step("z", "shout", "a")
    flow.step("a", "shout", "b", after=[low])

    assert relay.result(relay.submit_workflow(flow).task_id) == "B"


def test_with_several_last_steps_one_must_be_named(relay: InlineRelay) -> None:
    flow = Workflow()
    flow.step("one", "shout", "a")
    two = flow.step("two", "shout", "b")
    task = relay.submit_workflow(flow)

    with pytest.raises(StepNotNamedError, match="such as one, two"):
        relay.result(task.task_id)
    assert relay.result(task.task_id, "one") == "A"
    assert relay.result(task.task_id, two) == "B"
    with pytest.raises(StepNotFoundError, match="no step 'three'"):
        relay.result(task.task_id, "three")


def test_an_output_is_nothing_until_it_is_there(relay: InlineRelay) -> None:
    task = relay.submit("shout", "x")

    assert relay.output(task.task_id) is None
    relay.run()
    assert relay.output(task.task_id) == "X"
    with pytest.raises(TaskNotFoundError):
        relay.output("tsk_none")
    with pytest.raises(TaskNotFoundError):
        list(relay.outputs("tsk_none"))


def test_an_output_that_lies_in_a_file_is_read_from_there(relay: InlineRelay) -> None:
    text = "long " * 50_000

    assert relay.result(relay.submit("shout", text).task_id) == text.upper()


def test_an_input_that_json_cannot_hold_is_refused(relay: InlineRelay) -> None:
    with pytest.raises(InputError, match="cannot be written as JSON"):
        relay.submit("shout", object())


def test_requests_of_a_batch_take_values_as_submit_does(relay: InlineRelay, samples: Any) -> None:
    (line,) = relay.submit_many([TaskRequest(agent="price", input=samples.Order("tea"))])

    assert line.result == "accepted" and line.task_id is not None
    assert relay.result(line.task_id, type=samples.Receipt).cents == 250


def test_the_same_submit_twice_is_one_task(relay: InlineRelay) -> None:
    first = relay.submit("shout", "x")
    second = relay.submit("shout", "x")
    other = relay.submit("shout", "x", idempotency_key="another")

    assert (second.task_id, second.deduplicated) == (first.task_id, True)
    assert other.task_id != first.task_id and not other.deduplicated


def test_a_watcher_sees_at_once_what_its_own_client_commits(relay: InlineRelay) -> None:
    with Client(relay.root) as client:
        task = client.submit("echo", "x")
        kinds = []
        # Nobody else commits here: what the watcher does not see now it never sees, and the time runs out.
        for event in client.events(task.task_id, timeout_ms=5_000):
            kinds.append((event.step_id is None, event.kind))
            if len(kinds) == 2:
                client.cancel(task.task_id)

    assert kinds[-2:] == [(False, "cancelled"), (True, "cancelled")]


def test_a_program_with_an_event_loop_waits_in_a_thread(relay: InlineRelay) -> None:
    task = relay.submit("shout", "x")
    relay.run()
    root = relay.root

    def wait_for(task_id: str) -> str:
        with Client(root) as client:  # a client belongs to one thread
            return client.result(task_id, timeout_ms=5_000)

    async def main() -> list[str]:
        return list(await asyncio.gather(*(asyncio.to_thread(wait_for, task.task_id) for _ in range(3))))

    assert asyncio.run(main()) == ["X", "X", "X"]
