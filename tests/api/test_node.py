"""``Node``: a real node in this process, with its agents in worker processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relaymesh import Client, InputError, Node, TaskFailedError, WaitTimeoutError, Workflow, agent
from relaymesh.errors import AgentLoadError
from relaymesh.node import NodeOptions
from relaymesh.wire.store import StoreAnswer, SubmitTasks
from tests.actors.fakes import eventually

FILE = Path(__file__).with_name("sample_agents.py")
WITHIN_MS = 30_000


def test_a_name_for_the_audit_log_that_nobody_would_read_is_refused(tmp_path: Path) -> None:
    NodeOptions(tmp_path, worker_id="w" * 256)

    with pytest.raises(InputError, match="worker_id has 257 characters, and takes 256 at most") as caught:
        NodeOptions(tmp_path, worker_id="w" * 257)

    assert caught.value.code == "text_too_long"


@agent
def in_a_module(text: str) -> str:
    return text


def plain(text: str) -> str:
    return text


class FakeNode:
    """What a builder returns; remembers what it was asked."""

    paused_reason = ""

    node_id = "fake"
    claimed = None

    def __init__(self, options: NodeOptions) -> None:
        self.options = options
        self.submitted: list[SubmitTasks] = []
        self.stopped = 0

    def submit(self, message: SubmitTasks) -> StoreAnswer:
        self.submitted.append(message)
        return StoreAnswer(results=tuple((task.task_id, False) for task in message.tasks))

    def drain(self, grace_ms: int | None = None) -> None: ...

    def kill(self, exit_status: int = 1) -> None: ...

    def wait(self, timeout_s: float | None = None) -> int | None:
        return 0

    def stop(self, grace_ms: int | None = None) -> int:
        self.stopped += 1
        return 0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node") / "data", agents=[str(FILE)], concurrency=2) as node:
        yield node


def test_a_node_is_started_with_what_it_is_given_and_stopped_whatever_happens(tmp_path: Path) -> None:
    built: list[FakeNode] = []

    def builder(options: NodeOptions) -> FakeNode:
        built.append(FakeNode(options))
        return built[-1]

    with pytest.raises(ZeroDivisionError), Node(tmp_path, agents=["m", "m"], concurrency=3, builder=builder):
        raise ZeroDivisionError

    (fake,) = built
    assert (fake.options.root, fake.options.agents, fake.options.concurrency) == (tmp_path, ("m",), 3)
    assert fake.stopped == 1


def test_what_its_client_submits_goes_through_the_nodes_own_group_commit(tmp_path: Path) -> None:
    fake = FakeNode(NodeOptions(tmp_path))

    with Node(tmp_path, builder=lambda _: fake) as node:
        node.client.submit("echo", "x")
        list(node.client.submit_many([]))

    ((task,),) = [message.tasks for message in fake.submitted]
    assert task.steps[0].agent_id == "echo"


def test_an_agent_runs_in_a_worker_process(node: Node) -> None:
    task = node.client.submit("where", "")

    found = node.client.result(task.task_id, type=dict[str, int], timeout_ms=WITHIN_MS)

    assert found["pid"] != os.getpid()
    assert found["parent"] == os.getpid() or sys.platform == "win32"


def test_a_workflow_runs_over_worker_processes(node: Node, samples: Any) -> None:
    flow = Workflow()
    tea = flow.step("tea", "price", samples.Order("tea"))
    jam = flow.step("jam", "price", samples.Order("jam", 2))
    flow.step("total", "total", [tea.output, jam.output])

    task = node.client.submit_workflow(flow)

    assert node.client.result(task.task_id, type=int, timeout_ms=WITHIN_MS) == 750


def test_a_step_that_is_not_to_be_retried_fails_once(node: Node) -> None:
    task = node.client.submit("hopeless", "x")

    with pytest.raises(TaskFailedError, match="no such customer"):
        node.client.result(task.task_id, timeout_ms=WITHIN_MS)
    assert node.client.workflow(task.task_id).steps[0].attempt == 1


def test_the_events_of_a_task_end_with_the_tasks_own(node: Node) -> None:
    task = node.client.submit("shout", "events")

    events = list(node.client.events(task.task_id, timeout_ms=WITHIN_MS))

    assert {event.task_id for event in events} == {task.task_id}
    assert (events[-1].step_id, events[-1].kind, events[-1].status) == (None, "succeeded", "SUCCESS")
    assert [event.kind for event in events if event.step_id is not None][-1] == "succeeded"


def test_a_running_step_is_cancelled_and_its_agent_is_told(node: Node) -> None:
    task = node.client.submit("until_cancelled", "x")
    for event in node.client.events(task.task_id, timeout_ms=WITHIN_MS):
        if event.kind == "started" and event.step_id is not None:
            assert node.client.cancel(task.task_id).cancelled

    assert node.client.task(task.task_id).status == "CANCELLED"
    # The worker process is free again, or this would have to wait for the timeout of a minute.
    other = node.client.submit("shout", "after the cancel")
    assert node.client.result(other.task_id, timeout_ms=WITHIN_MS) == "AFTER THE CANCEL"


def test_waiting_has_an_end(node: Node) -> None:
    task = node.client.submit("shout", "tomorrow", delay_ms=86_400_000)

    with pytest.raises(WaitTimeoutError, match=task.task_id):
        node.client.wait(task.task_id, timeout_ms=50)
    node.client.cancel(task.task_id)


def test_another_client_of_the_root_is_served_as_well(node: Node) -> None:
    with Client(node.client.root) as client:
        task = client.submit("shout", "from outside")  # known, because a node that runs has it

        assert client.result(task.task_id, timeout_ms=WITHIN_MS) == "FROM OUTSIDE"


def test_what_is_not_done_when_the_node_stops_waits_for_the_next(tmp_path: Path) -> None:
    with Node(tmp_path, agents=[str(FILE)], concurrency=1) as first:
        task = first.client.submit("shout", "later", delay_ms=200)

    with Node(tmp_path, agents=[str(FILE)], concurrency=1) as second:
        assert second.client.result(task.task_id, timeout_ms=WITHIN_MS) == "LATER"


def test_a_node_and_its_client_can_live_in_another_thread(tmp_path: Path) -> None:
    results: list[str] = []

    def work() -> None:
        with Node(tmp_path, concurrency=1) as node:
            results.append(node.client.result(node.client.submit("sleep", "1").task_id, timeout_ms=WITHIN_MS))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)

    assert results == ["1"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: plain, "not decorated"),
        (lambda: _inside(), "defined inside a function"),
        (lambda: _at_a_prompt(), "defined at a prompt"),
    ],
)
def test_an_agent_that_no_worker_process_could_find_is_refused_before_anything_runs(
    make: Callable[[], Callable[..., Any]], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(AgentLoadError, match=sentence):
        Node(tmp_path / "data", agents=[make()])

    assert not (tmp_path / "data").exists()


def _inside() -> Callable[..., Any]:
    @agent
    def hidden(text: str) -> str:
        return text

    return hidden


def _at_a_prompt() -> Callable[..., Any]:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("from relaymesh import agent\n@agent\ndef typed(text: str): return text", "<stdin>", "exec"), names)
    found: Callable[..., Any] = names["typed"]
    return found


def program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return subprocess.run([sys.executable, str(path)], cwd=folder, capture_output=True, encoding="utf-8", timeout=60)


def test_a_program_that_starts_a_node_when_it_is_imported_is_told_how_to_mend_that(tmp_path: Path) -> None:
    began_s = time.monotonic()

    ended = program(
        tmp_path,
        "from relaymesh import Node, agent\n"
        "@agent\ndef up(text: str) -> str: return text.upper()\n"
        "with Node('data', agents=[up], concurrency=1) as node: print('never')\n",
    )

    assert ended.returncode != 0 and "never" not in ended.stdout
    assert 'put that under `if __name__ == "__main__":`' in ended.stderr.splitlines()[-1]
    assert time.monotonic() - began_s < 50


def test_an_agent_of_a_module_that_only_this_program_finds_runs(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "odd_name.py").write_text(
        "from relaymesh import agent\n@agent\ndef up(text: str) -> str: return text.upper()\n", encoding="utf-8"
    )

    ended = program(
        tmp_path,
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('my_agents', 'hidden/odd_name.py')\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['my_agents'] = module\n"
        "spec.loader.exec_module(module)\n"
        "from relaymesh import Node\n"
        "if __name__ == '__main__':\n"
        "    with Node('data', agents=[module.up], concurrency=1) as node:\n"
        "        print(node.client.result(node.client.submit('up', 'found').task_id, timeout_ms=30_000))\n",
    )

    assert (ended.stdout, ended.returncode) == ("FOUND\n", 0), ended.stderr


def test_an_agent_of_this_very_module_runs(tmp_path: Path) -> None:
    with Node(tmp_path, agents=[in_a_module], concurrency=1) as node:
        assert node.client.result(node.client.submit("in_a_module", "x").task_id, timeout_ms=WITHIN_MS) == "x"


def test_a_program_gets_its_switch_interval_back_when_its_last_node_has_ended(tmp_path: Path) -> None:
    ended = program(
        tmp_path,
        "import sys\n"
        "from relaymesh import Node\n"
        "if __name__ == '__main__':\n"
        "    sys.setswitchinterval(0.003)\n"
        "    with Node('a', concurrency=1):\n"
        "        with Node('b', concurrency=1):\n"
        "            pass\n"
        "        quick = sys.getswitchinterval() < 0.001\n"
        "    print(quick, round(sys.getswitchinterval(), 6))\n",
    )

    assert (ended.stdout, ended.returncode) == ("True 0.003\n", 0), ended.stderr


def test_an_agent_whose_task_is_cancelled_hears_why(node: Node, tmp_path: Path) -> None:
    said = tmp_path / "said"
    task = node.client.submit("says-why", str(said))
    assert eventually(lambda: said.exists() and said.read_text(encoding="utf-8") == "begun")

    node.client.cancel(task.task_id, reason="wrong order")

    assert eventually(lambda: said.read_text(encoding="utf-8") == "the task was cancelled: wrong order")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"agents": "my_agents.py"}, "agents is a list of functions, modules or files, and this is of type str"),
        ({"agents": in_a_module}, "and this is of type function: put it in brackets"),
        ({"concurrency": 0}, "concurrency is 0: write 1 or more"),
        ({"concurrency": "2"}, "concurrency is a whole number, and this is of type str"),
        ({"threads": -1}, "threads is -1: write 1 or more"),
        ({"grace_ms": -1}, "grace_ms is -1: write 0 or more"),
        ({"root": None}, "root is the path of a folder"),
    ],
)
def test_what_no_node_can_be_made_of_is_one_sentence(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        Node(**{"root": tmp_path / "root", **options})

    assert said in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_submitting_through_a_node_that_has_ended_is_one_sentence(tmp_path: Path) -> None:
    with Node(tmp_path, builder=FakeNode) as node:
        node.client.submit("echo", "x")

    with pytest.raises(InputError, match="runs only inside its with block: submit there, or by a Client"):
        node.client.submit("echo", "y")
