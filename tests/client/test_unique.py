"""Unique tasks: what a second submit does while the first waits, runs, or is young."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relaymesh import Client
from relaymesh.cli import main
from relaymesh.uniqueness import BadUniqueError, DuplicateTaskError
from relaymesh.view import TaskRequest
from tests.store.bench import NOON, Bench


def test_while_the_first_waits_a_second_gets_it_back_and_afterwards_a_new_one(client: Client, bench: Bench) -> None:
    first = client.submit("echo", "x", unique="waiting")
    second = client.submit("echo", "x", unique="waiting")
    (lease,) = bench.claim()
    third = client.submit("echo", "x", unique="waiting")

    assert second.deduplicated and second.task_id == first.task_id == lease.task_id
    assert not third.deduplicated and third.task_id != first.task_id


def test_while_the_first_has_not_ended_a_second_gets_it_back(client: Client, bench: Bench) -> None:
    first = client.submit("echo", "x", unique="running")
    (lease,) = bench.claim()
    while_running = client.submit("echo", "x", unique="running")
    bench.fail(lease)
    while_retrying = client.submit("echo", "x", unique="running")
    bench.now_ms += 60_000
    bench.promote()
    bench.succeed(*bench.claim())
    after = client.submit("echo", "x", unique="running")

    assert {while_running.task_id, while_retrying.task_id} == {first.task_id}
    assert after.task_id != first.task_id


def test_within_a_period_a_second_gets_it_back_whatever_became_of_it(client: Client, bench: Bench) -> None:
    first = client.submit("echo", "x", unique="period=1000")
    bench.succeed(*bench.claim())
    bench.now_ms = NOON + 999
    within = client.submit("echo", "x", unique="period=1000")
    bench.now_ms = NOON + 1_000
    after = client.submit("echo", "x", unique="period=1000")

    assert within.task_id == first.task_id
    assert after.task_id != first.task_id


def test_an_older_task_that_still_runs_stands_in_the_way_although_a_newer_one_has_ended(
    client: Client, bench: Bench
) -> None:
    first = client.submit("echo", "x", unique="waiting")
    bench.claim()
    second = client.submit("echo", "x", unique="waiting")
    client.cancel(second.task_id)

    assert client.submit("echo", "x", unique="running").task_id == first.task_id


def test_a_duplicate_can_be_refused(client: Client, bench: Bench) -> None:
    first = client.submit("echo", "x", unique="running", on_duplicate="refuse")

    with pytest.raises(DuplicateTaskError, match="nothing was stored") as caught:
        client.submit("echo", "x", unique="running", on_duplicate="refuse")

    assert caught.value.task_id == first.task_id
    assert bench.rows("SELECT count(*) AS n FROM tasks") == [{"n": 1}]


def test_what_waits_is_replaced_with_the_new_input_and_what_runs_is_not(client: Client, bench: Bench) -> None:
    first = client.submit("echo", "old", unique="running", unique_key="report", on_duplicate="replace")
    second = client.submit("echo", "new", unique="running", unique_key="report", on_duplicate="replace")
    (row,) = bench.claimed_rows()

    assert (row.payload, row.lease.task_id) == ("new", second.task_id)
    assert client.task(first.task_id).status == "CANCELLED"
    assert client.task(first.task_id).last_error == f"replaced by {second.task_id}"
    with pytest.raises(DuplicateTaskError, match="cannot be replaced"):
        client.submit("echo", "newer", unique="running", unique_key="report", on_duplicate="replace")


def test_debounced_submits_become_one_that_starts_a_delay_after_the_last(client: Client, bench: Bench) -> None:
    def submit(text: str) -> str:
        return client.submit(
            "echo", text, unique="waiting", unique_key="page", on_duplicate="debounce", delay_ms=1_000
        ).task_id

    for text in ("a", "b", "c"):
        last = submit(text)
        bench.now_ms += 900

    bench.now_ms = NOON + 2_799
    assert bench.promote() == 0
    bench.now_ms = NOON + 2_800
    assert bench.promote() == 1
    (row,) = bench.claimed_rows()
    assert (row.payload, row.lease.task_id) == ("c", last)


def test_debounced_submits_that_never_pause_start_after_ten_delays(client: Client, bench: Bench) -> None:
    started = 0
    while not started:
        client.submit(
            "echo", str(bench.now_ms), unique="waiting", unique_key="k", on_duplicate="debounce", delay_ms=100
        )
        bench.now_ms += 60
        started = bench.promote()
        assert bench.now_ms < NOON + 1_100

    assert bench.now_ms >= NOON + 1_000


def test_a_workflow_is_unique_by_its_steps(client: Client, bench: Bench) -> None:
    flow = {
        "steps": [
            {"id": "a", "agent": "echo", "input": "1"},
            {"id": "b", "agent": "echo", "dependsOn": ["a"], "input": ""},
        ]
    }
    first = client.submit_workflow(flow, unique="running", on_duplicate="replace")
    second = client.submit_workflow(flow, unique="running", on_duplicate="replace")

    assert client.task(first.task_id).status == "CANCELLED"
    assert [lease.task_id for lease in bench.claim()] == [second.task_id]


def test_lines_of_one_batch_stand_in_each_others_way(client: Client, bench: Bench) -> None:
    def line(text: str, action: str) -> TaskRequest:
        return TaskRequest(agent="echo", input=text, unique="waiting", unique_key="k", on_duplicate=action)

    results = list(
        client.submit_many([line("1", "refuse"), line("2", "return"), line("3", "refuse"), line("4", "replace")])
    )

    assert [(r.result, r.code) for r in results] == [
        ("accepted", None),
        ("duplicate", None),
        ("rejected", "duplicate_task"),
        ("accepted", None),
    ]


def test_an_explicit_idempotency_key_is_asked_first(client: Client, bench: Bench) -> None:
    first = client.submit("echo", "x", idempotency_key="i", unique="waiting")
    bench.succeed(*bench.claim())

    assert client.submit("echo", "x", idempotency_key="i", unique="waiting").task_id == first.task_id


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"unique": "sometimes"}, "write waiting, running or period=MS"),
        ({"unique": "period=0"}, "take 1 to"),
        ({"unique": "period=99999999999999"}, "take 1 to"),
        ({"unique": "waiting", "on_duplicate": "explode"}, "write one of return, refuse, replace, debounce"),
        ({"unique": "waiting", "on_duplicate": "debounce"}, "--delay"),
        ({"on_duplicate": "refuse"}, "add --unique"),
        ({"unique": "waiting", "unique_key": "k" * 257}, "257 characters"),
    ],
)
def test_what_makes_no_sense_stores_nothing(client: Client, bench: Bench, given: dict[str, str], says: str) -> None:
    with pytest.raises(BadUniqueError, match=says):
        client.submit("echo", "x", **given)  # type: ignore[arg-type]
    assert bench.rows("SELECT count(*) AS n FROM tasks") == [{"n": 0}]


def test_many_processes_that_submit_the_same_at_once_store_one(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Client(root) as client:
        client.init()

    def submit(_: int) -> str:
        with Client(root) as client:
            return client.submit("echo", "x", unique="running").task_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(submit, range(24)))) == 1


def test_the_command_says_which_task_stands_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--root", str(tmp_path / "root"), "--output", "json", "submit", "--agent", "echo", "--input", "x"]
    words += ["--unique", "period=60000", "--on-duplicate", "refuse"]

    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)["taskId"]
    assert main(words) == 1
    error = json.loads(capsys.readouterr().err)
    assert error["code"] == "duplicate_task" and first in error["message"]


def test_the_gate_lets_a_duplicate_pass_and_stores_nothing(client: Client, bench: Bench) -> None:
    (bench.root / "relaymesh-settings.json").write_text('{"maxIngressQueueDepth": 1}')
    first = client.submit("echo", "x", unique="waiting")

    assert client.submit("echo", "x", unique="waiting").task_id == first.task_id
