"""Every reason code, over the rows that bring it about."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.core.explain import Reason
from relaymesh.core.ident import workflow_step_id
from relaymesh.store.node_row import HEARTBEAT_STALE_MS, Capabilities
from relaymesh.store.presence import host_name, take_presence
from relaymesh.view import Explanation
from tests.store.bench import NOON, Bench


def node(bench: Bench, node_id: str = "n1", *, host: str = "elsewhere", slots: int = 2, **limits: int) -> None:
    capabilities = Capabilities(pools={"echo": "p", "fail": "p"}, limits=limits, slots={"p": slots})
    with bench.store.write():
        bench.store.register_node(node_id, pid=1, host=host, agents=capabilities.to_json(), now_ms=bench.now_ms)


def why(client: Client, bench: Bench, step_id: str) -> Explanation:
    task_id = str(bench.step(step_id)["task_id"])
    (found,) = [explanation for explanation in client.explain(task_id) if explanation.step_id == step_id]
    return found


def test_a_step_that_nobody_can_run_waits_for_a_node(client: Client, bench: Bench) -> None:
    found = why(client, bench, bench.one())

    assert (found.reason, found.since_ms, found.command) == ("no_node", NOON, "relaymesh up")


def test_a_step_whose_agent_no_node_has_waits_for_one_that_has(client: Client, bench: Bench) -> None:
    node(bench)
    found = why(client, bench, bench.one("other"))

    assert found.reason == "agent_not_registered"
    assert "--agents" in str(found.command)


def test_a_step_that_can_start_is_ready(client: Client, bench: Bench) -> None:
    node(bench)

    assert why(client, bench, bench.one()).reason == "ready"


def test_a_node_that_was_silent_for_long_is_none(client: Client, bench: Bench) -> None:
    node(bench)
    step_id = bench.one()
    bench.now_ms += HEARTBEAT_STALE_MS + 1

    assert why(client, bench, step_id).reason == "no_node"


def test_a_node_of_this_machine_lives_as_long_as_it_holds_its_lock(client: Client, bench: Bench) -> None:
    presence = take_presence(bench.root / "run", "here")
    node(bench, "here", host=host_name())
    step_id = bench.one()
    bench.now_ms += 10 * HEARTBEAT_STALE_MS
    assert why(client, bench, step_id).reason == "ready"

    presence.release()

    assert why(client, bench, step_id).reason == "no_node"


def test_a_step_waits_for_a_free_slot(client: Client, bench: Bench) -> None:
    node(bench, slots=1)
    bench.one()
    bench.claim(limit=1)
    found = why(client, bench, bench.one("fail"))

    assert (found.reason, found.command) == ("no_free_slot", "relaymesh worker")


def test_a_step_waits_for_others_of_its_agent(client: Client, bench: Bench) -> None:
    node(bench, slots=8, echo=1)
    bench.one()
    bench.claim(limit=1)

    assert why(client, bench, bench.one()).reason == "agent_concurrency"
    assert why(client, bench, bench.one("fail")).reason == "ready"


def test_a_delayed_step_waits_for_its_time(client: Client, bench: Bench) -> None:
    step_id = bench.one(not_before_ms=NOON + 5_000)
    assert why(client, bench, step_id).reason == "delayed"

    bench.now_ms += 5_000

    assert why(client, bench, step_id).reason == "no_node"


def test_a_failed_step_waits_for_its_backoff(client: Client, bench: Bench) -> None:
    step_id = bench.one()
    (lease,) = bench.claim()
    bench.now_ms += 100
    bench.fail(lease)

    found = why(client, bench, step_id)

    assert (found.reason, found.since_ms) == ("retry_backoff", NOON + 100)
    assert "1 attempt" in found.detail


def test_a_step_waits_for_what_it_depends_on(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})

    found = why(client, bench, workflow_step_id(task_id, "b"))

    assert found.reason == "waiting_dependency"
    assert workflow_step_id(task_id, "a") in found.detail


def test_a_map_step_waits_for_its_copies(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "m", "map": [1, 2]})

    found = why(client, bench, workflow_step_id(task_id, "m"))

    assert found.reason == "waiting_dependency"
    assert "m[0]" in found.detail and "1 more" in found.detail


def test_a_step_behind_a_dead_one_names_the_replay(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    (lease,) = bench.claim()
    bench.fail(lease, retryable=False)

    first, second = client.explain(task_id)

    assert (first.reason, first.command) == ("dead_letter", f"relaymesh replay {task_id}")
    assert (second.reason, second.command) == ("blocked_by_dead_dependency", f"relaymesh replay {task_id}")


def test_a_running_step_is_running_until_its_owner_is_lost(client: Client, bench: Bench) -> None:
    step_id = bench.one()
    bench.now_ms += 3
    bench.claim("far-away")
    running = why(client, bench, step_id)
    assert (running.reason, running.since_ms) == ("running", NOON + 3)
    assert "far-away" in running.detail

    bench.now_ms += 15_000

    lost = why(client, bench, step_id)
    assert (lost.reason, lost.command) == ("owner_lost", "relaymesh maintenance")


def test_a_running_step_of_a_dead_process_of_this_machine_has_lost_its_owner_at_once(
    client: Client, bench: Bench
) -> None:
    take_presence(bench.root / "run", "gone").release()
    step_id = bench.one()
    bench.claim("gone")

    assert why(client, bench, step_id).reason == "owner_lost"


def test_a_cancelled_step_is_cancelled_and_one_that_succeeded_is_left_out(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    (lease,) = bench.claim()
    bench.succeed(lease)
    client.cancel(task_id)

    assert [(e.step_id[-1], e.reason) for e in client.explain(task_id)] == [("b", "cancelled")]


def test_explain_names_the_pause_or_the_limit_that_holds_a_step_back(client: Client, bench: Bench) -> None:
    node(bench, slots=9)
    bench.submit(bench.new_task(concurrency_key="a"))
    bench.claim()
    step = bench.new_task(concurrency_key="a")
    bench.submit(step)
    step_id = step.steps[0].step_id

    assert why(client, bench, step_id).reason == "key_concurrency"
    client.set_limit("agent", "echo", max_concurrency=1)
    assert why(client, bench, step_id).reason == "agent_concurrency"
    client.set_limit("overall", max_concurrency=1)
    found = why(client, bench, step_id)
    assert (found.reason, found.detail) == ("overall_concurrency", "1 of at most 1 step is running")
    client.pause_queue()
    found = why(client, bench, step_id)
    assert (found.reason, found.since_ms, found.command) == ("queue_paused", NOON, "relaymesh queue resume")


@pytest.mark.parametrize(
    ("scope", "name", "reason"),
    [("overall", "", "overall_rate"), ("agent", "echo", "agent_rate"), ("key", "a", "key_rate")],
)
def test_explain_names_the_rate_and_when_the_next_start_is_due(
    client: Client, bench: Bench, scope: str, name: str, reason: str
) -> None:
    node(bench, slots=9)
    client.set_limit("each-key", max_concurrency=9)
    client.set_limit(scope, name, rate="1/2s")
    bench.submit(bench.new_task(concurrency_key="a"), bench.new_task(concurrency_key="a"))
    (lease,) = bench.claim()
    (waiting,) = [row["step_id"] for row in bench.rows("SELECT step_id FROM steps WHERE status='PENDING'")]

    found = why(client, bench, str(waiting))

    assert lease and found.reason == reason
    assert "1/2s" in found.detail and "2.0 s" in found.detail


@pytest.mark.parametrize("status", ["SUSPECT", "DEAD"])
def test_a_step_waits_for_a_node_that_lives_and_is_held_dead(client: Client, bench: Bench, status: str) -> None:
    wait = {"SUSPECT": "suspectRecoverMinMs", "DEAD": "deadRecoverMinMs"}[status]
    presence = take_presence(bench.root / "run", "here")
    node(bench, "here", host=host_name())
    bench.store.conn.execute("UPDATE mesh_nodes SET status=?", (status,))
    step_id = bench.one()

    found = why(client, bench, step_id)
    told = client.health()

    assert (found.reason, found.command) == ("node_paused", "relaymesh members")
    assert f"here is {status}" in found.detail
    assert told.notes == (
        f"the worker of here is paused: the local node here is {status}, because nobody heard from it for a while:"
        f" it goes on by itself when {wait} has passed since then, later if it comes and goes",
    )
    assert not client.status().health.ok
    node(bench, "other")
    assert why(client, bench, step_id).reason == "ready"
    presence.release()


def test_a_node_that_is_held_dead_works_on_where_the_setting_says_so(client: Client, bench: Bench) -> None:
    (bench.root / "relaymesh-settings.json").write_text('{"pauseWorkerWhenLocalNotAlive": false}')
    presence = take_presence(bench.root / "run", "here")
    node(bench, "here", host=host_name())
    bench.store.conn.execute("UPDATE mesh_nodes SET status='DEAD'")

    assert why(client, bench, bench.one()).reason == "ready"
    assert client.health().notes == ()
    presence.release()


def test_the_steps_of_an_owner_that_is_held_dead_are_lost_although_its_process_lives(
    client: Client, bench: Bench
) -> None:
    presence = take_presence(bench.root / "run", "here")
    node(bench, "here", host=host_name())
    step_id = bench.one()
    bench.claim("here")
    bench.store.conn.execute("UPDATE mesh_nodes SET status='DEAD'")

    assert why(client, bench, step_id).reason == "owner_lost"
    presence.release()


def test_every_reason_is_brought_about_by_some_test_here_or_beside() -> None:
    here = Path(__file__)
    text = "".join(path.read_text(encoding="utf-8") for path in (here, here.with_name("test_budgets.py")))

    # "done" is never shown: a step that succeeded is not explained.
    assert [reason for reason in Reason if reason is not Reason.DONE and f'"{reason.value}"' not in text] == []


@pytest.mark.parametrize("agents", ["not json", '{"pools": 3}', None])
def test_a_node_row_that_somebody_else_wrote_does_not_keep_anybody_from_asking(
    client: Client, bench: Bench, agents: str | None
) -> None:
    step_id = bench.one()
    bench.store.conn.execute(
        "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms, agents,"
        " host) VALUES ('n', 'ALIVE', ?, ?, ?, ?, 'elsewhere')",
        (NOON, NOON, NOON, agents),
    )

    assert why(client, bench, step_id).reason == "agent_not_registered"
    assert client.agents()[:1] == ["echo"]
