"""Budgets through the Python API and the commands: answers, errors, audit, reasons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relaymesh import Client, Workflow
from relaymesh.cli import main
from relaymesh.core.workflow_error import WorkflowError
from relaymesh.errors import InputError
from relaymesh.submission import BadBudgetError
from relaymesh.view import Explanation, TaskRequest
from tests.client.test_explain import node
from tests.client.test_limits import audited
from tests.store.bench import Bench, report_of

MICROS = 1_000_000


def why(client: Client, task_id: str) -> Explanation:
    (found,) = client.explain(task_id)
    return found


def spend(bench: Bench, tokens: int) -> None:
    (lease,) = bench.claim(limit=1)
    bench.finish((lease, report_of(lease, spent=(("units:tokens", tokens * MICROS),))))


def test_a_budget_is_set_shown_changed_removed_and_each_change_is_audited(client: Client, bench: Bench) -> None:
    first = client.budgets.set("agent", "echo", "units:tokens", 1_000, per="24h")
    client.budgets.set("key", "tenant", "units:usd", 2.5)
    bench.one()
    spend(bench, 1_200)
    shown, other = client.budgets.list()
    gone = client.budgets.remove("agent", "echo", "units:tokens")
    never = client.budgets.remove("agent", "echo", "units:tokens")

    assert (first.amount, first.per, first.message) == ("1000", "1d", "set")
    assert (shown.spent, shown.left, shown.per) == ("1200", "-200", "1d")
    assert shown.turns_at_ms is not None and shown.turns_at_ms % 86_400_000 == 0
    assert (other.amount, other.per, other.turns_at_ms) == ("2.5", None, None)
    assert (gone.changed, never.changed, never.message) == (True, False, "not_found")
    assert client.budgets.list("agent") == []
    assert [row["details"] for row in audited(client, "budget.set")][1] == {
        "scope": "agent",
        "name": "echo",
        "kind": "units:tokens",
        "amount": "1000",
        "per": "1d",
    }
    assert [row["result"] for row in audited(client, "budget.remove")] == ["not_found", "removed"]


@pytest.mark.parametrize(
    ("scope", "name", "kind", "amount", "per", "says"),
    [
        ("overall", "x", "units:a", 1, None, "write one of agent, key, task"),
        ("agent", " ", "units:a", 1, None, "needs its name"),
        ("agent", "a", "tokens", 1, None, "nothing that can be spent"),
        ("agent", "a", "wall_second", 1, None, "did you mean"),
        ("agent", "a", "units:a", -1, None, "write a number"),
        ("agent", "a", "units:a", 1, "month", "is no period"),
        ("task", "tsk_none", "units:a", 1, "1d", "leave the period out"),
        ("task", "tsk_none", "units:a", 1, None, "there is no task"),
    ],
)
def test_a_budget_that_makes_no_sense_changes_nothing(
    client: Client, scope: str, name: str, kind: str, amount: int, per: str | None, says: str
) -> None:
    with pytest.raises(BadBudgetError, match=says):
        client.budgets.set(scope, name, kind, amount, per=per)
    assert client.budgets.list() == []


def test_a_task_and_a_workflow_bring_their_budgets(client: Client) -> None:
    task = client.submit("echo", "a", budget={"wall_seconds": 60})
    flow = Workflow(budget={"units:usd": "0.25", "wall_seconds": 10})
    flow.step("one", "echo")
    made = client.submit_workflow(flow, budget={"wall_seconds": 20})
    (line,) = client.submit_many([TaskRequest(agent="echo", input="b", budget={"units:tokens": 5})])

    assert [(row.kind, row.amount) for row in client.budgets.list("task", task.task_id)] == [("wall_seconds", "60")]
    assert [(row.kind, row.amount) for row in client.budgets.list("task", made.task_id)] == [
        ("units:usd", "0.25"),
        ("wall_seconds", "20"),
    ]
    assert [row.amount for row in client.budgets.list("task", line.task_id)] == ["5"]
    assert client.submit("echo", "a", budget={"wall_seconds": 90}).deduplicated
    assert [row.amount for row in client.budgets.list("task", task.task_id)] == ["60"]


@pytest.mark.parametrize("budget", [{"tokens": 1}, {"wall_seconds": -1}, {"wall_seconds": "soon"}, ["wall_seconds"]])
def test_a_task_with_a_budget_that_makes_no_sense_is_not_stored(client: Client, budget: object) -> None:
    with pytest.raises(InputError, match=r"budget|spent|write"):
        client.submit("echo", "a", budget=budget)  # type: ignore[arg-type]
    with pytest.raises(WorkflowError) as caught:
        client.submit_workflow({"steps": [{"id": "a", "agent": "echo", "input": ""}], "budget": budget})

    assert (caught.value.code, caught.value.path) == ("bad_budget", "budget")
    assert client.tasks() == []


def test_explain_names_the_budget_that_is_used_up_and_the_command_that_raises_it(client: Client, bench: Bench) -> None:
    node(bench)
    client.budgets.set("agent", "echo", "units:tokens", 10, per="1h")
    client.budgets.set("key", "tenant", "units:tokens", 10)
    client.submit("echo", "first", concurrency_key="tenant")
    spend(bench, 15)

    of_agent = why(client, client.submit("echo", "second").task_id)
    client.budgets.remove("agent", "echo", "units:tokens")
    of_key = why(client, client.submit("echo", "third", concurrency_key="tenant").task_id)
    task = client.submit("echo", "fourth", budget={"units:tokens": 0}).task_id
    of_task = why(client, task)

    assert of_agent.reason == "agent_budget"
    assert of_agent.command == ("relaymesh budgets set --agent echo --kind units:tokens --amount <more> --per 1h")
    assert "has spent 15 of 10 per 1h for units:tokens; the next period begins in" in of_agent.detail
    assert (of_key.reason, of_key.detail) == (
        "key_budget",
        "the key tenant has spent 15 of 10 for units:tokens; it is not filled again by itself",
    )
    assert of_task.reason == "task_budget"
    assert of_task.command == f"relaymesh budgets set --task {task} --kind units:tokens --amount <more>"


def test_the_metrics_tell_of_budgets(client: Client, bench: Bench) -> None:
    client.budgets.set("agent", "echo", "units:tokens", 10)
    client.budgets.set("agent", "other", "units:tokens", 10)
    bench.one()
    spend(bench, 10)

    page = client.metrics()

    assert 'relaymesh_budgets{scope="agent"} 2' in page
    assert 'relaymesh_budgets_used_up{scope="agent"} 1' in page
    assert "relaymesh_budget_used_up_total 1" in page


def test_the_commands_do_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str]:
        status = main(["--root", str(tmp_path / "root"), "--output", "json", *words])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    which = ("--agent", "echo", "--kind", "units:usd")
    assert run("budgets", "set", *which, "--amount", "0.5", "--per", "1d")[0] == 0
    assert json.loads(run("budgets", "show")[1])[0]["amount"] == "0.5"
    assert json.loads(run("budgets", "show", "--agent", "echo")[1])[0]["kind"] == "units:usd"
    submitted = json.loads(
        run("submit", "--agent", "echo", "--input", "x", "--budget", "units:usd=1,wall_seconds=5")[1]
    )
    assert len(json.loads(run("budgets", "show", "--task", submitted["taskId"])[1])) == 2
    assert run("budgets", "remove", *which)[0] == 0
    assert run("budgets", "remove", *which)[0] == 1
    status, said = run("budgets", "set", "--agent", "a", "--key", "b", "--kind", "units:usd", "--amount", "1")
    assert status == 2 and "give one of --agent, --key and --task" in json.loads(said)["message"]
    status, said = run("submit", "--agent", "echo", "--input", "x", "--budget", "usd=1")
    assert status == 1 and json.loads(said)["code"] == "bad_budget"


def test_an_export_says_what_a_task_may_spend_and_what_each_attempt_spent(
    client: Client, bench: Bench, tmp_path: Path
) -> None:
    task_id = client.submit("echo", "x", budget={"units:tokens": 100}).task_id
    spend(bench, 30)

    client.task_export(task_id, tmp_path / "task.json")

    spending = json.loads((tmp_path / "task.json").read_text())["spending"]
    assert spending["budget"] == [{"kind": "units:tokens", "amount": "100", "spent": "30", "left": "70"}]
    assert spending["total"] == {"units:tokens": "30"}
    ((attempt),) = spending["attempts"]
    assert (attempt["lease_epoch"], attempt["kind"], attempt["spent"]) == (1, "units:tokens", "30")


FLOW = json.dumps(
    {"steps": [{"id": "a", "agent": "echo", "input": ""}], "budget": {"units:tokens": 5, "wall_seconds": 9}}
)


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ({"agent": "echo", "input": "x"}, {"units:tokens": "20"}),
        ({"workflow": FLOW}, {"units:tokens": "20", "wall_seconds": "9"}),
    ],
)
def test_each_run_of_a_schedule_gets_its_budget(
    client: Client, bench: Bench, work: dict[str, str], expected: dict[str, str]
) -> None:
    made = client.schedules.create("nightly", every_ms=60_000, budget={"units:tokens": 20}, **work)
    first, second = (client.schedules.trigger("nightly").task_id for _ in range(2))

    assert made.budget == client.schedules.list()[0].budget == {"units:tokens": "20"}
    assert client.schedules.show("nightly").schedule.budget == {"units:tokens": "20"}
    assert first is not None and second is not None
    for task_id in (first, second):
        assert {row.kind: row.amount for row in client.budgets.list("task", task_id)} == expected
    assert client.stats().task_status == {"PENDING": 2}


def test_the_budget_of_a_schedule_is_a_pattern_and_goes_with_it(client: Client, bench: Bench) -> None:
    client.schedules.create("nightly", every_ms=60_000, agent="echo", budget={"wall_seconds": 3})

    assert client.budgets.list() == []
    client.schedules.delete("nightly")
    assert bench.store.conn.execute("SELECT count(*) FROM budgets").fetchone() == (0,)


def test_a_wrong_budget_of_a_schedule_stores_nothing(client: Client) -> None:
    with pytest.raises(BadBudgetError):
        client.schedules.create("nightly", every_ms=60_000, agent="echo", budget={"tokens": 3})

    assert client.schedules.list() == []
