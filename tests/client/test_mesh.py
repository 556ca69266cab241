"""Members of a root as an operator sees and changes them, on rows that a script wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relaymesh.client import Client
from relaymesh.errors import InputError
from relaymesh.node_view import DeadOwnerRecoveryOutcome, MeshNode
from relaymesh.store.presence import take_presence
from tests.store.bench import NOON, Bench

NODE = (
    "INSERT OR REPLACE INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)"
    " VALUES (?,?,?,?,?)"
)


def seed(bench: Bench, node_id: str, status: str, *, age_ms: int = 0) -> None:
    bench.store.conn.execute(NODE, (node_id, status, *[bench.now_ms - age_ms] * 3))


def records(client: Client, action: str) -> list[dict[str, Any]]:
    return [json.loads(row) for row in client.audit_query(action=action)]


def running(bench: Bench, owner: str) -> str:
    step_id = bench.one()
    bench.claim(owner)
    return step_id


def test_members_are_listed_by_id_with_what_the_table_says(client: Client, bench: Bench) -> None:
    seed(bench, "b", "DEAD", age_ms=5)
    seed(bench, "a", "ALIVE")

    assert client.members() == [
        MeshNode(node_id="a", status="ALIVE", last_heartbeat_ms=NOON, updated_at_ms=NOON),
        MeshNode(node_id="b", status="DEAD", last_heartbeat_ms=NOON - 5, updated_at_ms=NOON - 5, age_ms=5),
    ]


def test_a_member_that_was_told_to_take_nothing_new_is_noted(client: Client, bench: Bench) -> None:
    seed(bench, "a", "ALIVE")
    seed(bench, "b", "DEAD")
    client.drain_node("a")
    client.drain_node("b")

    assert [(member.node_id, member.note) for member in client.members()] == [("a", "drained"), ("b", "")]


def test_members_that_gossip_have_an_address_a_generation_and_a_round_trip(client: Client, bench: Bench) -> None:
    for node_id, status in (("far", "ALIVE"), ("gone", "DEAD")):
        seed(bench, node_id, status)
        bench.store.conn.execute(
            "INSERT INTO mesh_members(node_id, address, generation, version, state, rtt_us, updated_at_ms)"
            " VALUES (?, '192.0.2.1:17888', 3, 0, 'ALIVE', 1500, ?)",
            (node_id, NOON),
        )

    shown = {member.node_id: (member.address, member.generation, member.rtt_ms) for member in client.members()}

    assert shown == {"far": ("192.0.2.1:17888", 3, 1.5), "gone": ("192.0.2.1:17888", 3, None)}


def test_a_recovery_takes_from_the_dead_and_from_nobody_else_and_is_recorded(client: Client, bench: Bench) -> None:
    for status in ("ALIVE", "SUSPECT", "DEAD"):
        seed(bench, f"node-{status}", status)
    steps = {owner: running(bench, owner) for owner in ("node-ALIVE", "node-SUSPECT", "node-DEAD", "unheard-of")}

    outcome = client.mesh_recover()

    assert outcome == DeadOwnerRecoveryOutcome(
        dead_node_count=1, dead_nodes=("node-DEAD",), reclaimed=1, retry_scheduled=1, dead_lettered=0
    )
    assert {owner: bench.step(step)["status"] for owner, step in steps.items()} == {
        "node-ALIVE": "RUNNING",
        "node-SUSPECT": "RUNNING",
        "node-DEAD": "RETRYING",
        "unheard-of": "RUNNING",
    }
    taken = bench.step(steps["node-DEAD"])
    assert (taken["lease_owner"], taken["lease_token"], taken["lease_epoch"]) == (None, None, 1)
    assert "node-DEAD" in str(taken["last_error"]) and "node-DEAD" in str(
        bench.task_of(steps["node-DEAD"])["last_error"]
    )
    (row,) = records(client, "ownership.recover")
    assert (row["resource"], row["result"]) == ("runtime/ownership", "recovered")
    assert row["details"] == {
        "limit": 128,
        "dead_nodes": ["node-DEAD"],
        "reclaimed": 1,
        "retry_scheduled": 1,
        "dead_lettered": 0,
    }
    (row,) = records(client, "ownership.recover.dead_node")
    assert "limit" not in row["details"]
    assert {event.action for event in client.ownership_events()} == {"ownership.recover", "ownership.recover.dead_node"}
    assert client.stats().dead_owner_reclaimed_total == 1


def test_a_step_that_was_taken_back_is_claimed_at_a_higher_epoch_and_its_late_result_is_refused(
    client: Client, bench: Bench
) -> None:
    seed(bench, "node-dead", "DEAD")
    bench.one()
    (late,) = bench.claim("node-dead")
    client.mesh_recover()
    bench.promote()

    (lease,) = bench.claim("node-heir")
    refused = bench.succeed(late, "late")

    assert (late.lease_epoch, lease.lease_epoch, lease.attempt) == (1, 2, 1)
    assert refused.refused == (late.row_id,)
    (conflict,) = bench.conflicts()
    assert (conflict["event_type"], conflict["expected_lease_epoch"], conflict["actual_lease_epoch"]) == (
        "success_commit_conflict",
        1,
        2,
    )


def test_a_recovery_that_finds_nothing_is_recorded_as_well(client: Client, bench: Bench) -> None:
    seed(bench, "node-dead", "DEAD")

    outcome = client.mesh_recover(7)

    assert (outcome.dead_nodes, outcome.reclaimed) == (("node-dead",), 0)
    (row,) = records(client, "ownership.recover")
    assert (row["result"], row["details"]["limit"]) == ("noop", 7)
    assert records(client, "ownership.recover.dead_node") == []


def test_a_recovery_takes_no_more_than_its_limit_oldest_first(client: Client, bench: Bench) -> None:
    seed(bench, "d", "DEAD")
    steps = []
    for _ in range(3):
        steps.append(running(bench, "d"))
        bench.now_ms += 10

    assert client.mesh_recover(2).reclaimed == 2
    assert [bench.step(step)["status"] for step in steps] == ["RETRYING", "RETRYING", "RUNNING"]


def test_a_step_that_was_there_at_ten_deaths_of_its_owner_is_dead_lettered(client: Client, bench: Bench) -> None:
    seed(bench, "d", "DEAD")
    step_id = running(bench, "d")
    bench.store.conn.execute("UPDATE steps SET owner_deaths=9 WHERE step_id=?", (step_id,))

    outcome = client.mesh_recover()

    assert (outcome.reclaimed, outcome.retry_scheduled, outcome.dead_lettered) == (1, 0, 1)
    assert bench.step(step_id)["status"] == bench.task_of(step_id)["status"] == "DEAD_LETTER"
    assert "node d died" in str(bench.task_of(step_id)["last_error"])


def test_an_owner_whose_process_has_vanished_from_this_machine_is_dead_too(client: Client, bench: Bench) -> None:
    take_presence(bench.root / "run", "vanished").release()
    seed(bench, "vanished", "ALIVE")
    step_id = running(bench, "vanished")

    assert client.mesh_recover().dead_nodes == ("vanished",)
    assert bench.step(step_id)["status"] == "RETRYING"


def test_a_prune_by_hand_is_always_recorded_with_the_running_total(client: Client, bench: Bench) -> None:
    seed(bench, "old", "DEAD", age_ms=10_000)
    seed(bench, "fresh", "DEAD", age_ms=-10_000)

    first, second = client.mesh_prune(5_000, 10), client.mesh_prune(5_000, 10)

    assert (first.pruned, first.total, first.cutoff_ms) == (1, 1, NOON - 5_000)
    assert (second.pruned, second.total) == (0, 1)
    assert [node.node_id for node in client.members()] == ["fresh"]
    newest, oldest = records(client, "membership.prune")
    assert (oldest["result"], newest["result"]) == ("pruned", "noop")
    assert oldest["details"] == {
        "older_than_ms": 5_000,
        "cutoff_ms": NOON - 5_000,
        "limit": 10,
        "pruned": 1,
        "total": 1,
    }
    assert client.stats().mesh_nodes_pruned_total == 1


@pytest.mark.parametrize("limit", [0, 10_001])
def test_a_limit_out_of_its_range_changes_nothing(client: Client, bench: Bench, limit: int) -> None:
    seed(bench, "d", "DEAD", age_ms=10_000)
    running(bench, "d")

    with pytest.raises(InputError, match=r"1 to 10,000"):
        client.mesh_recover(limit)
    with pytest.raises(InputError, match=r"1 to 10,000"):
        client.mesh_prune(0, limit)
    with pytest.raises(InputError, match="write 0 or more"):
        client.mesh_prune(-1)

    assert len(client.members()) == 1
    assert records(client, "ownership.recover") == records(client, "membership.prune") == []


def test_the_summary_and_the_metrics_say_the_same(client: Client, bench: Bench) -> None:
    for status in ("ALIVE", "SUSPECT", "DEAD"):
        seed(bench, f"node-{status}", status)
        running(bench, f"node-{status}")
    running(bench, "unheard-of")
    bench.now_ms += 1_500

    found = client.mesh_summary()

    assert [getattr(found, name) for name in found.__struct_fields__] == [3, 1, 1, 1, 1, 1, 1, 1, 1_500, NOON + 1_500]
    lines = client.metrics().splitlines()
    for line in (
        'relaymesh_mesh_nodes_total{status="dead"} 1',
        "relaymesh_mesh_nodes_total_all 3",
        'relaymesh_running_steps_by_owner_status{owner_status="unknown"} 1',
        "relaymesh_oldest_dead_node_age_ms 1500",
    ):
        assert line in lines
    (row,) = records(client, "membership.summary")
    assert list(row["details"].values()) == [3, 1, 1, 1, 1, 1, 1, 1, 1_500]


def test_a_round_of_maintenance_beats_judges_takes_back_and_says_whose(client: Client, bench: Bench) -> None:
    seed(bench, "doubted", "ALIVE", age_ms=31_000)
    seed(bench, "lost", "ALIVE", age_ms=61_000)
    step_id = running(bench, "lost")

    outcome = client.maintenance("me")

    assert (outcome.suspected_nodes_marked, outcome.dead_nodes_marked) == (1, 1)
    assert (outcome.dead_owner_reclaimed, bench.step(step_id)["status"]) == (1, "PENDING")
    assert {node.node_id: node.status for node in client.members()} == {
        "doubted": "SUSPECT",
        "lost": "DEAD",
        "me": "ALIVE",
    }
    (row,) = records(client, "ownership.recover.dead_node")
    assert row["details"]["dead_nodes"] == ["lost"]
    (row,) = records(client, "maintenance.tick")
    assert (row["details"]["suspected_nodes_marked"], row["details"]["dead_nodes_marked"]) == (1, 1)


def test_a_round_whose_own_node_has_just_died_is_held_back_and_says_so(client: Client, bench: Bench) -> None:
    seed(bench, "flap", "DEAD")

    client.maintenance("flap")
    (row,) = records(client, "membership.recovery.suppressed")
    bench.store.conn.execute("UPDATE mesh_nodes SET status_changed_at_ms=?", (NOON - 31_000,))
    client.maintenance("flap")

    assert (row["resource"], row["result"]) == ("node/flap", "suppressed")
    assert row["details"] == {"previous_status": "DEAD", "current_status": "DEAD"}
    assert client.members()[0].status == "ALIVE"
    assert client.stats().membership_recovery_suppressed_total == 1


def test_a_round_after_a_jump_of_the_clock_holds_nobody_silent(client: Client, bench: Bench) -> None:
    seed(bench, "n", "ALIVE")
    client.maintenance("me")
    bench.now_ms += 3_600_000

    outcome = client.maintenance("me")

    assert outcome.dead_nodes_marked == 0
    assert {node.status for node in client.members()} == {"ALIVE"}


def test_a_member_that_only_ever_sent_heartbeats_is_no_node_that_could_run_anything(
    client: Client, bench: Bench
) -> None:
    step_id = bench.one()
    client.maintenance()

    (why,) = client.explain(str(bench.step(step_id)["task_id"]))

    assert why.reason == "no_node"
