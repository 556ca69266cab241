"""Counters of a root: right after restarts, and when what was counted is gone."""

from __future__ import annotations

from relaymesh.client import Client
from relaymesh.node_view import StatsOutcome
from relaymesh.store.counter import OF_STATS, add_counter
from relaymesh.store.stats import stats
from tests.store.bench import Bench


def counts(bench: Bench) -> StatsOutcome:
    return stats(bench.store.conn, bench.root, namespace="default", now_ms=bench.now_ms)


def conflict(bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim()
    bench.succeed(lease)
    bench.succeed(lease)


def test_conflicts_stay_counted_when_their_rows_are_purged(bench: Bench) -> None:
    conflict(bench)
    conflict(bench)
    bench.store.conn.execute("DELETE FROM lease_conflicts")
    conflict(bench)

    shown = counts(bench)

    assert shown.lease_conflict_by_type == {"success_commit_conflict": 3}
    assert (shown.lease_conflict_total, shown.lease_conflict_1h) == (3, 1)


def test_a_root_from_before_the_counters_begins_with_the_rows_that_it_has(bench: Bench) -> None:
    conflict(bench)
    conflict(bench)
    bench.store.conn.execute("DELETE FROM counters")
    assert counts(bench).lease_conflict_total == 2

    conflict(bench)

    assert counts(bench).lease_conflict_total == 3


def test_steps_of_dead_owners_are_counted_and_those_of_silent_ones_are_not(bench: Bench) -> None:
    for _ in range(3):
        bench.one()
    bench.claim("n1", limit=2)
    bench.claim("n2", limit=1)

    bench.reclaim(*[seen for seen in bench.seen() if seen.owner == "n1"], cause="owner_dead")
    bench.reclaim(*[seen for seen in bench.seen() if seen.owner == "n2"], cause="lease_expired")

    assert counts(bench).dead_owner_reclaimed_total == 2


def test_a_transaction_that_is_rolled_back_counts_nothing(bench: Bench) -> None:
    bench.one()
    (lease,) = bench.claim()
    bench.succeed(lease)
    bench.store.conn.execute("BEGIN")
    bench.store.conn.execute("ROLLBACK")
    before = counts(bench).lease_conflict_total

    try:
        with bench.store.write():
            bench.store.add_counter("replication_import", 5)
            raise RuntimeError("a crash")
    except RuntimeError:
        pass

    assert (before, counts(bench).replication_import_total) == (0, 0)


def test_every_counter_of_the_counts_is_read_from_its_row_by_any_process(bench: Bench) -> None:
    with bench.store.write():
        for number, name in enumerate(OF_STATS.values(), start=1):
            add_counter(bench.store.conn, name, number)

    with Client(bench.root) as other:
        shown = other.stats()

    assert [getattr(shown, field) for field in OF_STATS] == list(range(1, len(OF_STATS) + 1))
