"""The admission gate over a real database: what counts, what does not, and what a refusal leaves."""

from __future__ import annotations

from relaymesh.core.admission import Bounds, RefusalCode
from relaymesh.store.admission import Refusal
from relaymesh.wire.store import NewTask
from tests.store.bench import NOON, Bench


def admit(bench: Bench, bounds: Bounds, *tasks: NewTask) -> list[Refusal | None]:
    """Let tasks through the gate, and store those that pass."""
    with bench.store.write():
        refusals = bench.store.admit(tasks, bounds, now_ms=bench.now_ms)
        passed = [task for task, refusal in zip(tasks, refusals, strict=True) if refusal is None]
        bench.store.submit(passed, now_ms=bench.now_ms)
    return refusals


def codes(refusals: list[Refusal | None]) -> list[RefusalCode | None]:
    return [None if refusal is None else refusal.code for refusal in refusals]


def test_waiting_and_running_steps_fill_the_queue_and_ended_or_delayed_ones_do_not(bench: Bench) -> None:
    bench.submit(*(bench.new_task() for _ in range(4)), bench.new_task(not_before_ms=NOON + 9_000))
    first, *_ = bench.claim(limit=2)
    bench.succeed(first)

    refusals = admit(bench, Bounds(queue_depth=5), bench.new_task(), bench.new_task(), bench.new_task())

    assert codes(refusals) == [None, None, RefusalCode.QUEUE_DEPTH]


def test_a_duplicate_is_answered_before_the_gate(bench: Bench) -> None:
    bench.submit(bench.new_task(key="held"))

    refusals = admit(bench, Bounds(queue_depth=1), bench.new_task(key="held"), bench.new_task(key="new"))

    assert codes(refusals) == [None, RefusalCode.QUEUE_DEPTH]
    assert bench.rows("SELECT count(*) AS n FROM tasks") == [{"n": 1}]


def test_every_step_of_a_workflow_counts(bench: Bench) -> None:
    flow = bench.new_flow([{"id": "a"}, {"id": "b", "dependsOn": ["a"]}, {"id": "c"}])

    assert codes(admit(bench, Bounds(per_minute=2), flow)) == [RefusalCode.RATE]
    assert codes(admit(bench, Bounds(per_minute=3), flow)) == [None]


def test_nothing_comes_in_while_too_much_runs(bench: Bench) -> None:
    bench.submit(bench.new_task(), bench.new_task())
    running = bench.claim(limit=2)

    assert codes(admit(bench, Bounds(running_steps=2), bench.new_task())) == [RefusalCode.RUNNING_STEPS]
    bench.succeed(running[0])
    assert codes(admit(bench, Bounds(running_steps=2), bench.new_task())) == [None]


def test_the_rate_counts_over_all_processes_and_begins_anew_with_the_minute(bench: Bench) -> None:
    other = Bench(bench.root)
    bounds = Bounds(per_minute=3)

    here = admit(bench, bounds, bench.new_task(), bench.new_task())
    there = admit(other, bounds, other.new_task(key="x"), other.new_task(key="y"))
    bench.now_ms += 60_000
    later = admit(bench, bounds, bench.new_task())
    other.close()

    assert codes(here) + codes(there) == [None, None, None, RefusalCode.RATE]
    assert codes(later) == [None]


def test_refusals_are_counted_for_the_root_and_each_knows_its_number(bench: Bench) -> None:
    refusals = admit(bench, Bounds(queue_depth=1), *(bench.new_task() for _ in range(3)))
    refusals += admit(bench, Bounds(queue_depth=1), bench.new_task())

    assert [refusal and refusal.rejected_total for refusal in refusals] == [None, 1, 2, 3]
    assert bench.rows("SELECT value FROM counters WHERE name='submit_rejected'") == [{"value": 3}]


def test_the_count_stops_at_the_bound_and_reads_no_history(bench: Bench) -> None:
    bench.submit(*(bench.new_task() for _ in range(3_000)))
    for _ in range(3):
        for lease in bench.claim(limit=900):
            bench.succeed(lease)
    work = 0

    def count() -> int:
        nonlocal work
        work += 1
        return 0

    bench.store.conn.set_progress_handler(count, 100)
    refusals = admit(bench, Bounds(queue_depth=20), bench.new_task())
    bench.store.conn.set_progress_handler(None, 0)

    assert codes(refusals) == [RefusalCode.QUEUE_DEPTH]
    assert work < 20
