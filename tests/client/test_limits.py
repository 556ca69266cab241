"""Limits, pauses and drained nodes through the Python API and the commands: answers, errors, audit, reasons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh import Client
from relaymesh.cli import main
from relaymesh.errors import InputError
from relaymesh.limits import BadLimitError, UnknownNodeError
from tests.client.test_explain import node, why
from tests.store.bench import Bench


def audited(client: Client, action: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in client.audit_query(action=action)]


def test_a_limit_is_set_changed_shown_removed_and_each_change_is_audited(client: Client, bench: Bench) -> None:
    first = client.set_limit("agent", "echo", max_concurrency=3)
    second = client.set_limit("agent", "echo", rate="100/m")
    bench.one()
    bench.claim()
    (shown,) = client.limits()
    gone = client.remove_limit("agent", "echo")
    never = client.remove_limit("agent", "echo")

    assert (first.max_concurrency, first.rate) == (3, None)
    assert (second.max_concurrency, second.rate, second.burst) == (3, "100/m", 100)
    assert (shown.running, shown.room, shown.rate) == (1, 2, "100/m")
    assert (gone.changed, gone.max_concurrency, never.changed, never.message) == (True, None, False, "not_found")
    assert [row["result"] for row in audited(client, "limit.set")] == ["set", "set"]
    assert [row["result"] for row in audited(client, "limit.remove")] == ["not_found", "removed"]


@pytest.mark.parametrize(
    ("scope", "name", "given", "says"),
    [
        ("everything", "", {"max_concurrency": 1}, "write one of overall, agent, key, each-key"),
        ("agent", " ", {"max_concurrency": 1}, "needs its name"),
        ("overall", "x", {"max_concurrency": 1}, "has no name"),
        ("overall", "", {}, "give max_concurrency or rate"),
        ("overall", "", {"max_concurrency": 1, "burst": 2}, "goes with a rate"),
        ("overall", "", {"max_concurrency": 10**9}, "take 0 to"),
        ("overall", "", {"rate": "often"}, "is no rate"),
        ("overall", "", {"rate": "0/s"}, "of a rate is 0"),
        ("key", "k" * 257, {"max_concurrency": 1}, "longer than 256"),
    ],
)
def test_a_limit_that_makes_no_sense_changes_nothing(
    client: Client, scope: str, name: str, given: dict[str, object], says: str
) -> None:
    with pytest.raises(BadLimitError, match=says):
        client.set_limit(scope, name, **given)  # type: ignore[arg-type]
    assert client.limits() == []


def test_pauses_are_shown_and_audited_and_only_just_that_pause_is_resumed(client: Client, bench: Bench) -> None:
    assert client.pause_queue(priority="low", reason="night").changed
    assert client.pause_queue(agent="echo").message == "paused"
    assert client.pause_queue(agent="echo").message == "paused_before"
    bench.submit(bench.new_task(), bench.new_task("fail", concurrency_key="k"))
    assert client.resume_queue().message == "not_paused"

    status = client.queue_status()
    client.resume_queue(agent="echo")

    assert not status.paused
    assert status.waiting == {"NORMAL": 2}
    assert [(p.scope, p.name, p.reason) for p in status.pauses] == [("agent", "echo", ""), ("priority", "LOW", "night")]
    assert [p.name for p in client.queue_status().pauses] == ["LOW"]
    assert [row["result"] for row in audited(client, "queue.pause")] == ["paused_before", "paused", "paused"]
    assert [row["result"] for row in audited(client, "queue.resume")] == ["resumed", "not_paused"]


def test_a_pause_of_what_there_is_not_is_refused(client: Client, bench: Bench) -> None:
    node(bench, "node-7")

    with pytest.raises(UnknownNodeError, match="node-7"):
        client.drain_node("node-8")
    with pytest.raises(InputError, match="unknown priority"):
        client.pause_queue(priority="urgent")
    with pytest.raises(BadLimitError, match="one at a time"):
        client.pause_queue(agent="echo", priority="low")
    with pytest.raises(BadLimitError, match="needs its name"):
        client.pause_queue(agent=" ")
    assert client.queue_status().pauses == ()


def test_a_step_whose_only_node_is_drained_has_no_node(client: Client, bench: Bench) -> None:
    node(bench, "n1")
    client.drain_node("n1", reason="new disk")

    assert why(client, bench, bench.one()).reason == "no_node"
    (record,) = audited(client, "queue.drain")
    assert record["details"] == {"scope": "node", "name": "n1", "changed": True, "reason": "new disk"}


def test_the_commands_answer_with_json_and_exit_with_1_when_there_is_nothing_to_take_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "root")

    def run(*words: str) -> tuple[int, object]:
        capsys.readouterr()
        status = main(["--root", root, "--output", "json", *words])
        return status, json.loads(capsys.readouterr().out)

    assert run("limits", "set", "--agent", "echo", "--rate", "5/2s", "--burst", "9")[0] == 0
    status, shown = run("limits", "show")
    assert (status, shown) == (
        0,
        [
            {
                "scope": "agent",
                "name": "echo",
                "maxConcurrency": None,
                "rate": "5/2s",
                "burst": 9,
                "running": 0,
                "room": 9,
            }
        ],
    )
    assert run("limits", "remove", "--each-key")[0] == 1
    assert run("queue", "pause")[1] == {"changed": True, "scope": "overall", "name": "", "message": "paused"}
    assert run("queue", "status")[1]["paused"] is True  # type: ignore[index]
    assert run("queue", "resume")[0] == 0
    assert run("queue", "resume")[0] == 1


def test_a_command_without_or_with_two_scopes_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "root")

    assert main(["--root", root, "limits", "set", "--max-concurrency", "1"]) == 2
    assert main(["--root", root, "limits", "set", "--overall", "--agent", "echo", "--max-concurrency", "1"]) == 2
    assert "give one of" in capsys.readouterr().err


def test_a_concurrency_key_is_taken_from_the_input_and_a_bad_one_is_refused(client: Client, bench: Bench) -> None:
    client.submit("echo", {"customer": {"id": "c-7"}}, concurrency_key="/customer/id")
    client.submit_workflow({"steps": [{"id": "s", "agent": "echo", "input": '{"a": 1}', "concurrencyKey": "/a"}]})

    assert {row["concurrency_key"] for row in bench.rows("SELECT concurrency_key FROM steps")} == {"c-7", "1"}
    with pytest.raises(InputError, match="nothing at"):
        client.submit("echo", {"customer": {}}, concurrency_key="/customer/id")
    with pytest.raises(InputError, match=r"steps\[0\].concurrencyKey"):
        client.submit_workflow({"steps": [{"id": "s", "agent": "echo", "input": "text", "concurrencyKey": "/a"}]})
