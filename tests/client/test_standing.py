"""What ``Client.status`` says, against rows of a root whose clock stands where the test puts it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from relaymesh import Client
from relaymesh.status_view import MEMBERS_MAX, ROWS_MAX
from relaymesh.store.presence import take_presence

NOW = 1_800_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with Client(tmp_path / "data", now_ms=lambda: NOW - 60_000) as client:
        client.init()
    return tmp_path / "data"


def write(root: Path, *statements: str) -> None:
    conn = sqlite3.connect(root / "relaymesh.db")
    with conn:
        for statement in statements:
            conn.execute(statement)
    conn.close()


def member(node_id: str, status: str, silent_ms: int, *, host: str = "elsewhere") -> str:
    return (
        "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms, host, agents,"
        f" generation) VALUES ('{node_id}', '{status}', {NOW - silent_ms}, {NOW}, {NOW - 5_000}, '{host}',"
        ' \'{"pools":{"echo":"process"},"slots":{"process":4}}\', 1)'
    )


def step(number: int, status: str, **columns: object) -> tuple[str, str]:
    values = {
        "step_id": f"stp_{number}",
        "task_id": f"tsk_{number}",
        "agent_id": "echo",
        "status": status,
        "created_at_ms": NOW - 10_000,
        "updated_at_ms": NOW - 2_000,
        **columns,
    }
    names, said = ", ".join(values), ", ".join(repr(value) for value in values.values())
    task = (
        "INSERT INTO tasks(task_id, status, created_at_ms, updated_at_ms)"
        f" VALUES ('tsk_{number}', '{status}', {NOW - 10_000}, {values['updated_at_ms']})"
    )
    return task, f"INSERT INTO steps({names}) VALUES ({said})"


def test_an_empty_root_has_nothing_and_says_so(root: Path) -> None:
    with Client(root, now_ms=lambda: NOW) as client:
        found = client.status()

    assert (found.nodes_alive, found.members, found.running, found.trouble, found.pools) == (0, (), (), (), ())
    assert [lane.waiting for lane in found.lanes] == [0, 0, 0]
    assert [lane.latency_p50_ms for lane in found.lanes] == [None, None, None]
    assert found.throughput_per_s == 0


def test_running_steps_show_owner_lease_and_slots(root: Path) -> None:
    write(root, member("far", "ALIVE", 1_000), *step(1, "RUNNING", lease_owner="far", started_at_ms=NOW - 7_000))
    write(root, *step(2, "RUNNING", lease_owner="stranger", updated_at_ms=NOW - 40_000))

    with Client(root, now_ms=lambda: NOW) as client:
        found = client.status()

    assert [(one.owner, one.owner_status, one.lease_age_ms) for one in found.running] == [
        ("stranger", "UNKNOWN", 40_000),
        ("far", "ALIVE", 2_000),
    ]
    assert found.running[1].running_ms == 7_000
    assert [(pool.pool, pool.used, pool.slots) for pool in found.pools] == [("process", 1, 4)]
    assert (found.nodes_alive, found.running_total) == (1, 2)


def test_the_worst_members_come_first_and_a_dead_process_is_known(root: Path) -> None:
    from relaymesh.store.presence import host_name

    write(root, member("a", "ALIVE", 1_000), member("z", "DEAD", 90_000), member("b", "LEFT", 900_000))
    write(root, member("c", "SUSPECT", 20_000), member("here", "ALIVE", 1_000, host=host_name()))
    take_presence(root / "run", "here").release()

    with Client(root, now_ms=lambda: NOW) as client:
        found = client.status()

    assert [one.node_id for one in found.members] == ["z", "c", "a", "here", "b"]
    assert [one.process_alive for one in found.members] == [None, None, None, False, None]
    assert found.members[0].heartbeat_age_ms == 90_000
    assert all(one.rtt_ms is None for one in found.members)


def gossips(node_id: str, generation: int, rtt_us: int) -> str:
    return (
        "INSERT INTO mesh_members(node_id, address, generation, version, state, rtt_us, updated_at_ms)"
        f" VALUES ('{node_id}', '192.0.2.1:17888', {generation}, 0, 'ALIVE', {rtt_us}, {NOW})"
    )


def test_a_member_that_gossips_is_shown_with_its_address_and_round_trip(root: Path) -> None:
    seen = "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms) VALUES"
    write(root, f"{seen} ('far', 'ALIVE', {NOW}, {NOW}, {NOW}), ('gone', 'DEAD', {NOW}, {NOW}, {NOW})")
    write(root, gossips("far", 3, 1_500), gossips("gone", 2, 900))

    with Client(root, now_ms=lambda: NOW) as client:
        found = client.status()

    shown = {one.node_id: (one.address, one.rtt_ms, one.generation, one.host) for one in found.members}
    assert shown == {"far": ("192.0.2.1:17888", 1.5, 3, None), "gone": ("192.0.2.1:17888", None, 2, None)}
    assert found.nodes_alive == 0  # members of other roots run nothing here


def test_latency_and_throughput_are_of_the_last_minute(root: Path) -> None:
    for number in range(6):
        write(root, *step(number, "SUCCESS", priority="HIGH", created_at_ms=NOW - 2_000 - 10 * (number + 1)))
    write(root, *step(9, "SUCCESS", priority="LOW", updated_at_ms=NOW - 61_000, created_at_ms=NOW - 99_000))

    with Client(root, now_ms=lambda: NOW) as client:
        found = client.status()

    high, _, low = found.lanes
    assert (high.ended, high.latency_p50_ms, high.latency_p95_ms) == (6, 30, 60)
    assert (low.ended, low.latency_p50_ms) == (0, None)
    assert found.throughput_per_s == 0.1


def test_retries_come_before_dead_letters_and_each_list_is_cut(root: Path) -> None:
    retrying = [step(number, "RETRYING", next_retry_at_ms=NOW + 1_000 + number) for number in range(ROWS_MAX)]
    dead = [step(number, "DEAD_LETTER", last_error="x" * 5_000) for number in range(ROWS_MAX, 2 * ROWS_MAX)]
    write(root, *(one for pair in [*retrying, *dead] for one in pair))
    write(root, *(member(f"n{number}", "ALIVE", 1_000) for number in range(MEMBERS_MAX + 5)))

    with Client(root, now_ms=lambda: NOW) as client:
        found = client.status()

    assert len(found.trouble) == ROWS_MAX
    assert found.trouble[0].next_retry_in_ms == 1_000
    assert [one.status for one in found.trouble].count("DEAD_LETTER") == ROWS_MAX // 2
    assert max(len(one.last_error) for one in found.trouble) == 400
    assert (found.retrying_total, found.dead_letter_total) == (ROWS_MAX, ROWS_MAX)
    assert (len(found.members), found.members_total) == (MEMBERS_MAX, MEMBERS_MAX + 5)


def test_a_pause_is_seen_where_it_is(root: Path) -> None:
    with Client(root, now_ms=lambda: NOW) as client:
        client.submit("echo", "x", priority="low")
        client.pause_queue(priority="low", reason="night")
        found = client.status()
        client.pause_queue()
        all_of_it = client.status()

    assert [(lane.paused, lane.waiting) for lane in found.lanes] == [(False, 0), (False, 0), (True, 1)]
    assert not found.paused
    assert [(pause.scope, pause.name, pause.reason) for pause in found.pauses] == [("priority", "LOW", "night")]
    assert all_of_it.paused and all(lane.paused for lane in all_of_it.lanes)


def test_a_look_changes_nothing_and_is_not_recorded(root: Path) -> None:
    with Client(root, now_ms=lambda: NOW) as client:
        files = {path: path.stat().st_size for path in root.rglob("*") if path.is_file() and path.suffix != ".db-shm"}

        client.status()

        assert client.query("SELECT total_changes()")[0][0] == 0
        assert files == {path: path.stat().st_size for path in files}
        assert not [path for path in (root / "audit").rglob("*") if path.is_file() and path not in files]
