from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.client import Client
from relaymesh.store.schedule_count import LATE_BOUNDS_S, count_fired, late_counts
from relaymesh.store.schedule_fire import Fired
from tests.store.bench import NOON, Bench

HOUR = 3_600_000


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "root")
    yield bench
    bench.close()


def samples(client: Client) -> dict[str, float]:
    lines = [line for line in client.metrics().splitlines() if "schedule" in line and "namespace" not in line]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_a_root_without_schedules_shows_noughts(bench: Bench) -> None:
    with Client(bench.root, now_ms=lambda: bench.now_ms) as client:
        found = samples(client)

    assert found["relaymesh_schedules_active"] == found["relaymesh_schedule_late_seconds_count"] == 0
    assert found['relaymesh_schedule_ticks_total{result="fired"}'] == 0


def test_ticks_that_fired_were_missed_or_skipped_are_counted_and_so_is_how_late_they_were(bench: Bench) -> None:
    with Client(bench.root, now_ms=lambda: bench.now_ms) as client:
        client.schedules.create("hourly", every_ms=HOUR, agent="echo", overlap="skip")
        client.schedules.create("once", at_ms=NOON + HOUR, agent="echo")
        client.schedules.create("resting", every_ms=HOUR, agent="echo")
        client.schedules.pause("resting")
        bench.now_ms += HOUR + 2_000
        client.maintenance()  # both fire, 2 s late
        bench.now_ms += HOUR
        client.maintenance()  # the run before is not over: skipped
        bench.now_ms += 5 * HOUR
        client.maintenance()  # four are missed, the last is skipped

        found = samples(client)

    ticks = "relaymesh_schedule_ticks_total"
    assert found[ticks + '{result="fired"}'] == 2
    assert found[ticks + '{result="missed"}'] == 1  # four ticks, passed over together
    assert found[ticks + '{result="skipped"}'] == 2
    assert found["relaymesh_schedules_active"] == 1
    assert found["relaymesh_schedule_late_seconds_count"] == 2
    assert found["relaymesh_schedule_late_seconds_sum"] == 4.0
    assert found['relaymesh_schedule_late_seconds_bucket{le="1.0"}'] == 0
    assert found['relaymesh_schedule_late_seconds_bucket{le="5.0"}'] == 2


@pytest.mark.parametrize(("late_ms", "bucket"), [(-5, 0), (0, 0), (100, 0), (101, 1), (3_600_000, 7), (3_600_001, 8)])
def test_a_run_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed(
    bench: Bench, late_ms: int, bucket: int
) -> None:
    with bench.store.write():
        count_fired(bench.store.conn, [Fired("s", "submitted", NOON)], now_ms=NOON + late_ms)

    counts, _ = late_counts(bench.store.conn)
    assert [number for number, count in enumerate(counts) if count] == [bucket]
    assert len(counts) == len(LATE_BOUNDS_S) + 1
