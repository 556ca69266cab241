from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from relaymesh.client import BadPayloadError, Client, PayloadTooLargeError
from relaymesh.core.limit import PAYLOAD_BYTES_MAX
from relaymesh.core.workflow_error import WorkflowError
from relaymesh.errors import InputError, RelayMeshError, UnknownAgentError
from relaymesh.store.node_row import Capabilities
from relaymesh.wire.store import StoreAnswer, SubmitTasks
from relaymesh.workflow import ITEM, Workflow
from tests.store.bench import NOON, Bench


def test_an_agent_whose_entry_was_not_taken_is_refused_with_the_reason(tmp_path: Path) -> None:
    with Client(tmp_path) as client:
        client.init()
        (tmp_path / "agents" / "scripts.json").write_text('{"agents": [{"id": "lines", "command": "wc -l"}]}')

        with pytest.raises(UnknownAgentError) as caught:
            client.submit("lines", "x")

        (sentence,) = client.unusable_agents()
    assert f'there is no agent "lines" here; {sentence} (`relaymesh agents`' in str(caught.value)
    assert "scripts.json entry 1 was not taken: " in sentence


def test_a_client_makes_the_root_when_it_submits_and_not_when_it_looks(tmp_path: Path) -> None:
    with Client(tmp_path / "root") as client:
        with pytest.raises(RelayMeshError):
            client.tasks()
        with pytest.raises(RelayMeshError):
            client.cancel("tsk_1")
        assert client.agents()[:2] == ["echo", "fail"]
        assert not client.health().ok
        assert not (tmp_path / "root").exists()

        client.submit("echo", "x")

        assert client.health().ok


def test_namespaces_of_one_root_know_nothing_of_each_other(tmp_path: Path) -> None:
    with Client(tmp_path) as one, Client(tmp_path, namespace=" Team/Blue ") as other:
        first, second = one.submit("echo", "x"), other.submit("echo", "x")

        assert not second.deduplicated
        assert [task.task_id for task in one.tasks()] == [first.task_id]
        assert other.root == (tmp_path / "namespaces" / "team-blue").absolute()


def test_an_unknown_agent_is_refused_with_the_nearest_one_and_nothing_is_stored(client: Client, bench: Bench) -> None:
    with pytest.raises(UnknownAgentError) as caught:
        client.submit("ehco", "x")

    assert str(caught.value) == (
        'there is no agent "ehco" here; did you mean "echo"? (`relaymesh agents` lists those that are)'
    )
    with pytest.raises(UnknownAgentError, match='"qqqqqq" here: `relaymesh agents` lists those'):
        client.submit("qqqqqq", "x")
    assert bench.rows("SELECT * FROM tasks") == []


def test_an_agent_that_only_a_running_node_has_can_be_submitted_to(client: Client, bench: Bench) -> None:
    capabilities = Capabilities(pools={"far": "p"}, slots={"p": 1})
    with bench.store.write():
        bench.store.register_node("n", pid=1, host="elsewhere", agents=capabilities.to_json(), now_ms=NOON)

    assert "far" in client.agents()
    client.submit("far", "x")

    bench.now_ms += 3_600_000
    assert "far" not in client.agents()


def test_input_that_is_no_text_is_stored_as_its_json(client: Client, bench: Bench) -> None:
    client.submit("echo", {"größe": [1, None, 2.5]})

    (row,) = bench.rows("SELECT payload FROM steps")
    assert json.loads(str(row["payload"])) == {"größe": [1, None, 2.5]}
    with pytest.raises(InputError):
        client.submit("echo", object())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"input": "x" * (PAYLOAD_BYTES_MAX + 1)}, "payload_too_large"),
        ({"input": "ä" * (PAYLOAD_BYTES_MAX // 2 + 1)}, "payload_too_large"),
        ({"input": "\udcff"}, "bad_payload"),
        ({"priority": "urgent"}, "bad_priority"),
        ({"delay_ms": -1}, "bad_time"),
        ({"delay_ms": 10**30}, "bad_time"),
        ({"at_ms": 10**30}, "bad_time"),
        ({"expires_in_ms": 0}, "bad_time"),
        ({"expires_in_ms": 10**30}, "bad_time"),
        ({"labels": {"a=b": "c"}}, "bad_labels"),
        ({"labels": {f"n{number}": "" for number in range(33)}}, "bad_labels"),
        ({"idempotency_key": "\udcff"}, "bad_text_value"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_a_code_and_nothing_is_stored(
    client: Client, bench: Bench, options: dict[str, object], code: str
) -> None:
    with pytest.raises(RelayMeshError) as caught:
        client.submit("echo", **{"input": "x", **options})  # type: ignore[arg-type]

    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert bench.rows("SELECT * FROM tasks") == bench.rows("SELECT * FROM steps") == []


def test_the_largest_payload_is_stored(client: Client, bench: Bench) -> None:
    client.submit("echo", "x" * PAYLOAD_BYTES_MAX)

    (row,) = bench.rows("SELECT payload_path FROM steps")
    assert len(bench.store.payloads.read(str(row["payload_path"]))) == PAYLOAD_BYTES_MAX


def test_a_time_that_has_passed_is_no_delay(client: Client, bench: Bench) -> None:
    client.submit("echo", "a", at_ms=bench.now_ms - 1)
    client.submit("echo", "b", at_ms=bench.now_ms + 1)
    client.submit("echo", "c", delay_ms=5, expires_in_ms=9)

    rows = bench.rows(
        "SELECT not_before_ms, delayed, expires_at_ms FROM steps JOIN tasks USING (task_id) ORDER BY steps.id"
    )
    assert [(row["not_before_ms"], row["delayed"], row["expires_at_ms"]) for row in rows] == [
        (None, 0, None),
        (NOON + 1, 1, None),
        (NOON + 5, 1, NOON + 9),
    ]


def test_a_workflow_that_was_built_is_the_same_as_its_file(client: Client) -> None:
    flow = Workflow(labels={"team": "blue"})
    words = flow.step("words", "echo", "some text")
    each = flow.step("each", "echo", ITEM, over=[1, 2], after=[words])
    flow.step("end", "echo", {"title": words.output, "parts": each.at("/0")}, priority="high")
    document = {
        "labels": {"team": "blue"},
        "steps": [
            {"id": "words", "agent": "echo", "input": "some text"},
            {"id": "each", "agent": "echo", "input": {"$item": ""}, "map": [1, 2], "dependsOn": ["words"]},
            {
                "id": "end",
                "agent": "echo",
                "input": {"title": {"$from": "words"}, "parts": {"$from": "each", "path": "/0"}},
                "priority": "high",
            },
        ],
    }

    first = client.submit_workflow(flow)
    again = client.submit_workflow(json.dumps(document))

    assert (again.task_id, again.deduplicated) == (first.task_id, True)
    assert client.tasks(label=("team", "blue"))[0].task_id == first.task_id


def test_a_wrong_workflow_stores_nothing(client: Client, bench: Bench) -> None:
    good = {"id": "a", "agent": "echo", "input": ""}

    for steps in ([good, good], [{**good, "agent": "nobody"}], [{**good, "dependsOn": ["z"]}], []):
        with pytest.raises(WorkflowError):
            client.submit_workflow({"steps": steps})

    assert bench.rows("SELECT * FROM tasks") == []


def test_a_foreign_trace_is_kept_and_a_bad_one_does_not_fail_the_submit(client: Client, bench: Bench) -> None:
    trace = f"00-{'a1' * 16}-{'b2' * 8}-01"

    kept = client.submit("echo", "1", traceparent=trace)
    for number, bad in enumerate(
        ["nonsense", trace.upper(), "ff" + trace[2:], f"00-{'0' * 32}-{'b2' * 8}-01", "\udcff"]
    ):
        client.submit("echo", f"bad {number}", traceparent=bad)

    assert client.task(kept.task_id).trace_id == "a1" * 16
    assert bench.rows("SELECT DISTINCT traceparent FROM tasks WHERE traceparent<>?", trace) == []


@pytest.mark.parametrize("recorded", [True, False])
def test_the_submitter_of_a_node_is_used_in_place_of_a_connection_of_our_own(bench: Bench, recorded: bool) -> None:
    asked: list[SubmitTasks] = []

    def submitter(message: SubmitTasks) -> StoreAnswer:
        asked.append(message)
        return StoreAnswer(tuple(("tsk_before", True) for _ in message.tasks), recorded=recorded)

    with Client(bench.root, submitter=submitter, actor="me") as client:
        assert client.submit("echo", "x").deduplicated
        assert len(client.audit_query(action="task.submit")) == (0 if recorded else 1)

    assert [(len(message.tasks), message.actor) for message in asked] == [(1, "me")]
    assert bench.rows("SELECT * FROM tasks") == []


def test_a_task_that_its_node_was_asked_to_store_twice_is_no_duplicate_of_itself(bench: Bench) -> None:
    def submitter(message: SubmitTasks) -> StoreAnswer:
        return StoreAnswer(tuple((task.task_id, True) for task in message.tasks), recorded=True)

    with Client(bench.root, submitter=submitter) as client:
        assert not client.submit("echo", "x").deduplicated


def test_a_payload_that_is_refused_makes_no_root(tmp_path: Path) -> None:
    with Client(tmp_path / "root") as client:
        with pytest.raises(PayloadTooLargeError):
            client.submit("echo", "x" * (PAYLOAD_BYTES_MAX + 1))
        with pytest.raises(BadPayloadError):
            client.submit("echo", "\ud800")

    assert not (tmp_path / "root").exists()


def test_who_only_looks_does_not_load_what_submits_and_finds_its_names_all_the_same(
    client: Client, bench: Bench
) -> None:
    task_id = client.submit("echo", "x").task_id
    program = (
        "import sys; from relaymesh import Client, client\n"
        "Client(sys.argv[1]).task(sys.argv[2])\n"
        "assert 'relaymesh.submission' not in sys.modules\n"
        "assert 'relaymesh.operation' not in sys.modules\n"
        "for name in client.__all__: getattr(client, name)\n"
        "assert not hasattr(client, 'nothing')\n"
        "from relaymesh import submission\n"
        "assert client.BadTimeError is submission.BadTimeError"
    )

    done = subprocess.run([sys.executable, "-c", program, bench.root, task_id], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
