"""A backoff is a stored wall time; when the clock is set back it must not last as long as the jump."""

from __future__ import annotations

from tests.store.bench import NOON, Bench

HOUR_MS = 3_600_000


def test_a_backoff_that_the_former_clock_set_begins_anew(bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim()
    bench.snooze(lease, 5_000)
    bench.now_ms = NOON - HOUR_MS

    with bench.store.write():
        restarted = bench.store.restart_waits(now_ms=bench.now_ms)

    assert restarted == 1
    # A row's time grows with each write of one moment, here two.
    assert bench.store.next_due_ms() == bench.now_ms + 5_000 - 2


def test_a_backoff_that_the_present_clock_set_is_left_alone(bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim()
    bench.snooze(lease, 5_000)
    bench.now_ms = NOON + 1_000

    with bench.store.write():
        restarted = bench.store.restart_waits(now_ms=bench.now_ms)

    assert restarted == 0
    assert bench.store.next_due_ms() == NOON + 5_000
