from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from relaymesh.argument import UnknownStatusError
from relaymesh.client import Client
from relaymesh.errors import InputError, RelayMeshError
from relaymesh.store.root import DATABASE
from tests.store.bench import Bench


def test_tasks_are_listed_with_the_newest_change_first_in_pages(client: Client, bench: Bench) -> None:
    ids = []
    for number in range(5):
        ids.append(client.submit("echo", str(number)).task_id)
        bench.now_ms += 10
    (first,) = bench.claim(limit=1)
    bench.succeed(first)

    order = [ids[0], *reversed(ids[1:])]
    assert [task.task_id for task in client.tasks()] == order
    assert [task.task_id for task in client.tasks(limit=2, offset=1)] == order[1:3]
    assert [task.task_id for task in client.tasks(status="SUCCESS")] == ids[:1]
    assert [task.task_id for task in client.tasks(status="PENDING", limit=1)] == [ids[4]]
    assert [task.task_id for task in client.tasks(status=" success ")] == ids[:1]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("BOGUS", 'there is no status "BOGUS": use PENDING, RUNNING, '),
        ("deadletter", 'there is no status "deadletter"; did you mean "DEAD_LETTER"? use PENDING, '),
        ("", 'there is no status "": use PENDING, '),
    ],
)
def test_a_status_that_no_task_is_ever_in_is_refused_and_the_others_are_named(
    client: Client, status: str, said: str
) -> None:
    task_id = client.submit("echo", "1").task_id

    for ask in (client.tasks, client.tasks_page, client.replay_batch):
        with pytest.raises(UnknownStatusError) as refused:
            ask(status=status)
        assert str(refused.value).startswith(said)
    assert client.task(task_id).status == "PENDING"


def test_tasks_are_found_by_a_label(client: Client) -> None:
    blue = client.submit("echo", "1", labels={"team": "blue", "a.b/c-d_e": ""})
    client.submit("echo", "2", labels={"team": "red", "blue": "team"})
    client.submit("echo", "3")

    assert [task.task_id for task in client.tasks(label=("team", "blue"))] == [blue.task_id]
    assert [task.task_id for task in client.tasks(label=("a.b/c-d_e", ""))] == [blue.task_id]
    assert client.tasks(label=("team", "blue"), status="SUCCESS") == []
    assert client.tasks(label=("nobody", "x")) == []


@pytest.mark.parametrize("name", ['a"b', "a' OR 1=1 --", "", "$", "a=b"])
def test_a_label_that_cannot_be_is_refused_and_never_reaches_the_query(client: Client, name: str) -> None:
    client.submit("echo", "1", labels={"a": "b"})

    with pytest.raises(InputError):
        client.tasks(label=(name, "b"))


def test_a_workflow_is_shown_with_what_each_step_depends_on(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "b", "dependsOn": ["c", "a"]}, {"id": "a"}, {"id": "c", "priority": "high"})

    detail = client.workflow(task_id)

    assert [(step.step_id[-1], step.enqueued, [other[-1] for other in step.depends_on]) for step in detail.steps] == [
        ("a", True, []),
        ("b", False, ["a", "c"]),
        ("c", True, []),
    ]
    assert [step.priority for step in detail.steps] == ["NORMAL", "NORMAL", "HIGH"]


def test_outputs_come_one_by_one(client: Client, bench: Bench) -> None:
    task_id = bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    (a,) = bench.claim()
    bench.succeed(a, "x" * 100_000)

    outputs = dict(client.outputs(task_id))

    assert [output and len(output) for output in outputs.values()] == [100_000, None]


def test_stats_count_what_is_there(client: Client, bench: Bench) -> None:
    for number in range(4):
        client.submit("echo", str(number), priority=("high", "low")[number % 2])
    bench.now_ms += 500
    high, low = bench.claim(limit=2, free={"pool": 2})
    bench.succeed(high)
    bench.succeed(high)

    shown = client.stats()

    assert shown.task_status == shown.step_status == {"PENDING": 2, "RUNNING": 1, "SUCCESS": 1}
    assert shown.message_state == {"QUEUED": 2, "PROCESSING": 1, "DONE": 1}
    assert (shown.inbox_high, shown.inbox_normal, shown.inbox_low) == (0, 0, 2)
    assert (shown.queue_lag_ms, shown.step_latency_p95_ms) == (500, 501)
    assert (shown.lease_conflict_total, shown.lease_conflict_by_type) == (1, {"success_commit_conflict": 1})
    assert (shown.cluster_epoch, shown.namespace) == (1, "default")
    assert low.step_id


def test_stats_are_of_one_moment_even_while_others_commit(client: Client, bench: Bench) -> None:
    client.submit("echo", "x")
    client.stats()
    conn = client._readable().conn

    class Busy:
        """A connection during whose every statement somebody else commits a task."""

        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            bench.one()
            return conn.execute(sql, *values)

        def __getattr__(self, name: str) -> object:
            return getattr(conn, name)

    client._readable().conn = Busy()  # type: ignore[assignment]

    shown = client.stats()

    assert set(shown.task_status) == set(shown.step_status) == {"PENDING"}
    assert shown.task_status == shown.step_status
    client._readable().conn = conn


def test_conflicts_are_listed_newest_first_and_only_those_of_late(client: Client, bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim()
    bench.succeed(lease)
    bench.succeed(lease)
    bench.now_ms += 2 * 3_600_000
    bench.fail(lease)

    assert [conflict.event_type for conflict in client.lease_conflicts()] == [
        "failure_commit_conflict",
        "success_commit_conflict",
    ]
    assert len(client.lease_conflicts(since_hours=1)) == len(client.lease_conflicts(limit=1)) == 1


def test_a_task_is_exported_whole_or_not_at_all(client: Client, bench: Bench, tmp_path: Path) -> None:
    task_id = client.submit("echo", "x").task_id
    bench.run_all()

    outcome = client.task_export(task_id, tmp_path / "task.json")
    missing = client.task_export("tsk_none", tmp_path / "none.json")
    with pytest.raises(RelayMeshError) as caught:
        client.task_export(task_id, tmp_path / "no" / "folder.json")

    assert (outcome.exported, outcome.step_count, outcome.output) == (True, 1, str(tmp_path / "task.json"))
    document = json.loads((tmp_path / "task.json").read_text("utf-8"))
    assert document["task"]["taskId"] == document["workflow"]["task"]["taskId"] == task_id
    assert set(document) == {"task", "workflow", "spending", "audit_events", "exported_at"}
    assert document["spending"] == {"budget": [], "total": {}, "attempts": []}
    assert (missing.exported, (tmp_path / "none.json").exists()) == (False, False)
    assert "--out" in str(caught.value)


@pytest.mark.parametrize(
    "what", ["task", "workflow", "cancel", "replay", "explain", "wait", "events", "logs", "outputs"]
)
def test_an_id_that_is_no_text_is_one_sentence(client: Client, what: str) -> None:
    client.init()

    with pytest.raises(RelayMeshError) as caught:
        list(getattr(client, what)("tsk_\udcff"))

    str(caught.value).encode()


@pytest.mark.parametrize("number", [2**63, 10**30, -(10**30)])
def test_a_number_that_no_row_can_have_is_one_sentence(client: Client, number: int) -> None:
    client.init()

    for ask in (
        lambda: client.tasks(limit=number),
        lambda: client.tasks(offset=number),
        lambda: client.lease_conflicts(limit=number),
        lambda: client.lease_conflicts(since_hours=-abs(number)),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_damaged_database_is_one_sentence_whatever_is_asked(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "root")
    for _ in range(300):
        bench.one(payload="x" * 2_000)
    bench.store.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    task_id = str(bench.rows("SELECT max(task_id) id FROM tasks")[0]["id"])
    bench.close()
    path = tmp_path / "root" / DATABASE
    whole = path.read_bytes()
    # The schema is left, all rows are gone.
    path.write_bytes(whole[: 40 * 4096] + b"\xaa" * (len(whole) - 40 * 4096))

    with Client(tmp_path / "root") as client:
        for ask in (
            client.agents,
            client.tasks,
            client.stats,
            client.lease_conflicts,
            lambda: client.task(task_id),
            lambda: client.workflow(task_id),
            lambda: client.explain(task_id),
            lambda: list(client.events(task_id)),
            lambda: list(client.logs(task_id)),
            lambda: client.wait(task_id, timeout_ms=0),
            lambda: client.cancel(task_id),
            lambda: client.replay(task_id),
            client.maintenance,
            lambda: client.submit("echo", "x"),
            lambda: client.dead_export(tmp_path / "dead.json"),
            lambda: client.task_export(task_id, tmp_path / "task.json"),
        ):
            try:
                ask()
            except RelayMeshError as error:
                assert "\n" not in str(error)
        assert not client.health().ok
