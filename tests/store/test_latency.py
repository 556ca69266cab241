"""How long steps took is counted where they end, adds up over processes, and is forgotten behind the window."""

from __future__ import annotations

import msgspec

from relaymesh.core.latency import SPAN_MS, WINDOW_STEPS
from relaymesh.store.latency import LATENCY_NAMES, forget_latencies, latencies, latencies_of
from relaymesh.wire.store import FinishedStep
from tests.store.bench import Bench, report_of


def counted(bench: Bench) -> int:
    (steps,) = bench.store.conn.execute(
        "SELECT coalesce(sum(value), 0) FROM counters WHERE name>=? AND name<?", LATENCY_NAMES
    ).fetchone()
    return int(steps)


def test_the_latencies_of_single_steps_count_from_their_making(bench: Bench) -> None:
    bench.submit(*(bench.new_task() for _ in range(20)))
    leases = bench.claim(limit=20)
    bench.now_ms += 40
    bench.finish(*((lease, report_of(lease)) for lease in leases[:18]))
    bench.now_ms += 160
    bench.finish(*((lease, report_of(lease)) for lease in leases[18:]))

    assert latencies(bench.store.conn) == (200, 200)
    assert counted(bench) == 20


def test_the_steps_of_a_workflow_count_from_their_own_making(bench: Bench) -> None:
    bench.flow({"id": "a"}, {"id": "b", "dependsOn": ["a"]})
    bench.now_ms += 30
    bench.succeed(*bench.claim())
    bench.now_ms += 70
    bench.succeed(*bench.claim())

    assert latencies(bench.store.conn) == (100, 100)
    assert counted(bench) == 2


def test_a_result_that_came_too_late_does_not_count(bench: Bench) -> None:
    bench.submit(bench.new_task())
    (lease,) = bench.claim()
    bench.succeed(lease)
    bench.succeed(lease)

    assert counted(bench) == 1


def test_a_dead_letter_counts_and_a_retry_does_not(bench: Bench) -> None:
    bench.submit(bench.new_task())
    (lease,) = bench.claim()
    bench.fail(lease)
    assert counted(bench) == 0

    bench.submit(bench.new_task())
    bench.fail(*bench.claim(), retryable=False)

    assert counted(bench) == 1


def test_what_lies_behind_the_window_is_forgotten_and_nothing_else(bench: Bench) -> None:
    store = bench.store
    bench.submit(bench.new_task())
    (lease,) = bench.claim()
    bench.succeed(lease)
    name = store.conn.execute("SELECT name FROM counters WHERE name>=? AND name<?", LATENCY_NAMES).fetchone()[0]
    span, bucket = int(name.split(".")[1]), 7
    with store.write():
        store.conn.execute(
            "INSERT INTO counters(name, value) VALUES (?, ?), (?, ?)",
            (f"step_ms.{span + 1:012d}.{bucket}", WINDOW_STEPS - 1, f"step_ms.{span + 2:012d}.{bucket}", 1),
        )

    with store.write():
        removed = forget_latencies(store.conn)

    assert removed == 1
    assert counted(bench) == WINDOW_STEPS
    assert latencies(store.conn) == (bucket, bucket)


def test_a_store_forgets_once_in_a_span(bench: Bench) -> None:
    store = bench.store
    with store.write():
        store.latencies.forget(bench.now_ms)
        for span, steps in ((1, 3), (2, WINDOW_STEPS)):
            store.conn.execute("INSERT INTO counters VALUES (?, ?)", (f"step_ms.{span:012d}.5", steps))
        store.latencies.forget(bench.now_ms)
    assert counted(bench) == WINDOW_STEPS + 3

    with store.write():
        store.latencies.forget(bench.now_ms + SPAN_MS)

    assert counted(bench) == WINDOW_STEPS


def test_an_id_that_says_no_time_is_left_out(bench: Bench) -> None:
    bench.submit(bench.new_task())
    (lease,) = bench.claim()
    other = FinishedStep(msgspec.structs.replace(lease, task_id="tsk_by-hand"), report_of(lease), "w")

    assert not latencies_of(bench.store.conn, [other], bench.now_ms)


def test_a_few_results_are_counted_with_a_later_commit_where_somebody_sees_to_it(bench: Bench) -> None:
    bench.store.latencies.later = True
    bench.submit(bench.new_task(), bench.new_task())
    for lease in bench.claim():
        bench.succeed(lease)
    assert counted(bench) == 0

    with bench.store.write():
        bench.store.latencies.count()
        bench.store.latencies.count()

    assert counted(bench) == 2
