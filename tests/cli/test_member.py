"""The commands about members: their options, and what they print."""

from __future__ import annotations

import pytest

from relaymesh.node_view import DeadOwnerRecoveryOutcome, MeshNode, MeshPruneOutcome, MeshSummaryOutcome

SUMMARY = MeshSummaryOutcome(
    total_nodes=3,
    alive_nodes=1,
    suspect_nodes=1,
    dead_nodes=1,
    running_by_alive_owners=4,
    running_by_suspect_owners=3,
    running_by_dead_owners=2,
    running_by_unknown_owners=1,
    oldest_dead_node_age_ms=70,
    generated_at_ms=9,
)


def test_members_are_an_array_of_four_fields_and_what_gossip_knows(terminal) -> None:
    terminal.answers(members=[MeshNode(node_id="a", status="ALIVE", last_heartbeat_ms=5, updated_at_ms=6, rtt_ms=0.5)])

    (member,) = terminal.run("members").document

    assert list(member)[:4] == ["nodeId", "status", "lastHeartbeatMs", "updatedAtMs"]
    assert (member["nodeId"], member["status"], member["lastHeartbeatMs"], member["updatedAtMs"]) == (
        "a",
        "ALIVE",
        5,
        6,
    )
    assert list(member)[4:] == ["generation", "address", "rttMs", "ageMs", "note"]
    assert (member["generation"], member["address"], member["rttMs"], member["ageMs"]) == (0, None, 0.5, 0)


def test_members_are_a_line_each_on_a_terminal_of_80_columns(terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    members = [
        MeshNode(
            node_id=f"node-local-{number}",
            status="SUSPECT",
            last_heartbeat_ms=5,
            updated_at_ms=6,
            generation=12,
            address="127.0.0.1:17888",
            rtt_ms=12.5,
            age_ms=13_733,
            note="stopping",
        )
        for number in range(3)
    ]
    terminal.answers(members=members)

    lines = terminal.run("--output", "table", "members").out.splitlines()

    (first,) = [line for line in lines if "node-local-1" in line]
    assert first.split() == ["node-local-1", "SUSPECT", "stopping", "13s", "12.5", "127.0.0.1:17888"]
    assert max(map(len, lines)) <= 80


def test_without_members_a_person_is_told_how_to_start_a_node(terminal) -> None:
    terminal.answers(members=[])

    assert "relaymesh up" in terminal.run("--output", "table", "members").out
    assert terminal.run("members").document == []


def test_the_summary_has_its_ten_fields_in_order(terminal) -> None:
    terminal.answers(mesh_summary=SUMMARY)

    assert list(terminal.run("mesh-summary").document.items()) == [
        ("totalNodes", 3),
        ("aliveNodes", 1),
        ("suspectNodes", 1),
        ("deadNodes", 1),
        ("runningByAliveOwners", 4),
        ("runningBySuspectOwners", 3),
        ("runningByDeadOwners", 2),
        ("runningByUnknownOwners", 1),
        ("oldestDeadNodeAgeMs", 70),
        ("generatedAtMs", 9),
    ]


def test_recovery_and_prune_hand_their_numbers_on(terminal) -> None:
    terminal.answers(
        mesh_recover=DeadOwnerRecoveryOutcome(
            dead_node_count=1, dead_nodes=("d",), reclaimed=2, retry_scheduled=1, dead_lettered=1
        ),
        mesh_prune=MeshPruneOutcome(older_than_ms=5, cutoff_ms=4, limit=3, pruned=2, total=7),
    )

    assert terminal.run("mesh-recover", "--limit=5").document == {
        "deadNodeCount": 1,
        "deadNodes": ["d"],
        "reclaimed": 2,
        "retryScheduled": 1,
        "deadLettered": 1,
    }
    assert terminal.run("mesh-prune", "--older-than-ms", "5", "--limit", "3").document == {
        "olderThanMs": 5,
        "cutoffMs": 4,
        "limit": 3,
        "pruned": 2,
        "total": 7,
    }
    assert terminal.asked("mesh_recover") == ((5,), {})
    assert terminal.asked("mesh_prune") == ((5, 3), {})


@pytest.mark.parametrize(
    "words", [("mesh-recover", "--limit", "0"), ("mesh-prune", "--older-than-ms", "-1"), ("mesh-prune", "--limit", "x")]
)
def test_numbers_that_are_none_are_usage_errors(terminal, words) -> None:
    ended = terminal.run(*words)

    assert (ended.status, ended.out) == (2, "")
