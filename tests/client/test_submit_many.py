from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaymesh.client import Client
from relaymesh.core.limit import PAYLOAD_BYTES_MAX
from relaymesh.store.error import StoreFullError
from relaymesh.submission import BATCH_TASKS
from relaymesh.view import TaskRequest
from tests.store.bench import Bench


def request(**fields: object) -> TaskRequest:
    return TaskRequest(**{"agent": "echo", "input": "x", **fields})  # type: ignore[arg-type]


def test_each_line_is_told_in_order_whatever_became_of_it(client: Client, bench: Bench) -> None:
    requests = [
        request(input="1"),
        request(agent="ecko"),
        request(input="1"),
        request(input="2", priority="urgent"),
        request(input="3", delay_ms=-1),
        request(input="4", expires_in_ms=0),
        request(input="\ud800"),
        request(input="5", labels={"bad name": "x"}),
        request(input="6", idempotency_key="k"),
        request(input="7", idempotency_key="k"),
        request(input="8", at_ms=10**17),
        request(input="x" * (PAYLOAD_BYTES_MAX + 1)),
        request(input="9", line=77),
    ]

    lines = list(client.submit_many(requests))

    assert [(line.line, line.result, line.code) for line in lines] == [
        (1, "accepted", None),
        (2, "rejected", "unknown_agent"),
        (3, "duplicate", None),
        (4, "rejected", "bad_priority"),
        (5, "rejected", "bad_time"),
        (6, "rejected", "bad_time"),
        (7, "rejected", "bad_payload"),
        (8, "rejected", "bad_labels"),
        (9, "accepted", None),
        (10, "duplicate", None),
        (11, "rejected", "bad_time"),
        (12, "rejected", "payload_too_large"),
        (77, "accepted", None),
    ]
    assert lines[2].task_id == lines[0].task_id and lines[9].task_id == lines[8].task_id
    assert '"echo"' in str(lines[1].message)
    assert bench.rows("SELECT count(*) n FROM tasks") == [{"n": 3}]


def test_a_group_is_on_disk_before_the_next_one_is_looked_at(client: Client, bench: Bench) -> None:
    looked_at = 0

    def requests() -> Iterator[TaskRequest]:
        nonlocal looked_at
        for number in range(BATCH_TASKS + 10):
            looked_at += 1
            yield request(input=str(number))

    lines = client.submit_many(requests())
    first = next(lines)

    assert (first.result, looked_at) == ("accepted", BATCH_TASKS)
    assert bench.rows("SELECT count(*) n FROM tasks") == [{"n": BATCH_TASKS}]
    assert len(list(lines)) == BATCH_TASKS + 9


def test_an_error_of_the_store_ends_the_telling_and_what_was_told_stands(client: Client, bench: Bench) -> None:
    def requests() -> Iterator[TaskRequest]:
        for number in range(BATCH_TASKS):
            yield request(input=str(number))
        conn = client._writable().conn
        conn.execute(f"PRAGMA max_page_count={conn.execute('PRAGMA page_count').fetchone()[0]}")
        for number in range(BATCH_TASKS):
            yield request(input=f"more {number} " + "x" * 2_000)

    told = []
    with pytest.raises(StoreFullError):
        for line in client.submit_many(requests()):
            told.append(line.task_id)

    assert len(told) == BATCH_TASKS
    stored = {row["task_id"] for row in bench.rows("SELECT task_id FROM tasks")}
    assert stored == set(told)


def test_no_request_is_no_line_and_no_commit(client: Client) -> None:
    assert list(client.submit_many([])) == []
