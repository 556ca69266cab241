"""Schedules in the database: what a look makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relaymesh.core.schedule import Missed, Overlap
from relaymesh.store import schedule as rows
from relaymesh.store.schedule import ScheduleExistsError, ScheduleRow
from relaymesh.store.schedule_fire import DUE_MAX, TICKS_PER_LOOK, Fired, make_ticks, trigger
from relaymesh.store.store import Store
from tests.store.bench import NOON, Bench

MINUTE = 60_000
HOUR = 60 * MINUTE


def row_of(bench: Bench, name: str = "s", **more: object) -> ScheduleRow:
    row = ScheduleRow(
        schedule_id=f"sch_{name}",
        name=name,
        namespace="default",
        state="ACTIVE",
        kind="interval",
        expression="",
        zone="UTC",
        every_ms=HOUR,
        anchor_ms=NOON,
        missed="latest",
        missed_max=10,
        jitter_ms=0,
        overlap="allow",
        agent_id="echo",
        payload="hello",
        priority="NORMAL",
        labels=None,
        cursor_ms=bench.now_ms,
        next_tick_ms=bench.now_ms + HOUR,
        queued_tick_ms=None,
        last_tick_ms=None,
        last_task_id=None,
        last_error=None,
        known_from_ms=0,
        made=0,
        passed_over=0,
        created_at_ms=NOON,
        updated_at_ms=NOON,
    )
    return replace(row, **more)  # type: ignore[arg-type]


def enter(bench: Bench, name: str = "s", **more: object) -> ScheduleRow:
    row = row_of(bench, name, **more)
    with bench.store.write():
        rows.insert_schedule(bench.store.conn, row)
    return row


def look(bench: Bench, store: Store | None = None) -> list[Fired]:
    store = store or bench.store
    with store.write():
        return store.fire_due(now_ms=bench.now_ms)


def now_of(bench: Bench, name: str = "s") -> ScheduleRow:
    return rows.read_schedule(bench.store.conn, name)


def results(fired: list[Fired]) -> list[tuple[str, int]]:
    return [(tick.result, (tick.tick_ms - NOON) // HOUR) for tick in fired]


def end_everything(bench: Bench) -> None:
    for lease in bench.claim():
        bench.succeed(lease)


def test_a_tick_becomes_a_task_that_names_it(bench: Bench) -> None:
    enter(bench, labels='{"team": "blue"}', priority="HIGH")
    bench.now_ms += HOUR

    (fired,) = look(bench)

    agent, payload, priority, labels, key = bench.store.conn.execute(
        "SELECT s.agent_id, s.payload, s.priority, t.labels, t.idempotency_key FROM steps s JOIN tasks t"
        " ON t.task_id=s.task_id"
    ).fetchone()
    assert (agent, payload, priority) == ("echo", "hello", "HIGH")
    assert json.loads(labels) == {"schedule": "s", "team": "blue", "tick": "2023-11-14T23:13:20Z"}
    assert key == f"schedule/sch_s/planned/{NOON + HOUR}"
    assert fired.stored == (now_of(bench).last_task_id, False)


def test_the_next_look_at_the_same_time_makes_nothing(bench: Bench) -> None:
    enter(bench)
    bench.now_ms += HOUR
    look(bench)

    assert look(bench) == []
    assert bench.store.next_due_ms() == NOON + 2 * HOUR


def test_two_connections_make_a_tick_once(bench: Bench) -> None:
    enter(bench)
    bench.now_ms += HOUR
    other = Store.open(bench.root, now_ms=NOON)

    made = look(bench) + look(bench, other)

    other.close()
    assert results(made) == [("submitted", 1)]


def test_a_transaction_that_fails_leaves_the_tick_to_the_next(bench: Bench) -> None:
    enter(bench)
    bench.now_ms += HOUR
    with pytest.raises(RuntimeError), bench.store.write():
        assert bench.store.fire_due(now_ms=bench.now_ms)
        raise RuntimeError

    assert results(look(bench)) == [("submitted", 1)]
    assert bench.store.conn.execute("SELECT count(*) FROM tasks").fetchone() == (1,)


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("skip", [("passed_over", 1)]),
        ("latest", [("passed_over", 1), ("submitted", 5)]),
        ("all", [("passed_over", 1), ("submitted", 3), ("submitted", 4), ("submitted", 5)]),
    ],
)
def test_missed_ticks_are_made_up_for_as_the_policy_says(
    bench: Bench, missed: str, expected: list[tuple[str, int]]
) -> None:
    enter(bench, missed=missed, missed_max=3)
    bench.now_ms += 5 * HOUR + 2 * MINUTE

    assert results(look(bench)) == expected
    assert look(bench) == []


def test_a_tick_is_passed_over_while_the_last_run_goes_on(bench: Bench) -> None:
    enter(bench, overlap="skip")
    bench.now_ms += HOUR
    look(bench)
    bench.now_ms += HOUR
    while_it_runs = look(bench)
    end_everything(bench)
    bench.now_ms += HOUR

    assert results(while_it_runs) == [("passed_over", 2)]
    assert while_it_runs[0].reason == "overlap"
    assert results(look(bench)) == [("submitted", 3)]


def test_one_tick_is_queued_and_made_as_soon_as_the_last_run_has_ended(bench: Bench) -> None:
    enter(bench, overlap="queue")
    bench.now_ms += HOUR
    look(bench)
    bench.now_ms += HOUR
    second = look(bench)
    bench.now_ms += HOUR
    third = look(bench)
    due_while_it_runs = bench.store.next_due_ms()
    end_everything(bench)

    assert results(second) == [("queued", 2)]
    assert results(third) == [("passed_over", 3)]
    assert due_while_it_runs == NOON + 4 * HOUR
    assert bench.store.next_due_ms() == 0
    assert results(look(bench)) == [("submitted", 2)]
    assert now_of(bench).queued_tick_ms is None
    assert bench.store.next_due_ms() == NOON + 4 * HOUR


def test_a_one_off_ends_after_its_tick(bench: Bench) -> None:
    enter(bench, kind="once", every_ms=None, anchor_ms=NOON + HOUR)
    bench.now_ms += HOUR

    assert results(look(bench)) == [("submitted", 1)]
    assert now_of(bench).state == "ENDED"
    assert bench.store.next_due_ms() is None


def test_jitter_holds_the_task_back_and_not_the_tick(bench: Bench) -> None:
    enter(bench, jitter_ms=10 * MINUTE)
    bench.now_ms += HOUR

    look(bench)

    (not_before_ms,) = bench.store.conn.execute("SELECT not_before_ms FROM steps").fetchone()
    assert NOON + HOUR < not_before_ms <= NOON + HOUR + 10 * MINUTE
    assert bench.claim() == []


def test_a_workflow_is_stored_with_its_steps(bench: Bench) -> None:
    flow = {
        "steps": [
            {"id": "a", "agent": "echo", "input": ""},
            {"id": "b", "agent": "echo", "input": "", "dependsOn": ["a"]},
        ]
    }
    enter(bench, agent_id=None, payload=json.dumps(flow), priority="LOW")
    bench.now_ms += HOUR

    look(bench)

    assert bench.store.conn.execute("SELECT priority, waiting_on FROM steps ORDER BY step_id").fetchall() == [
        ("LOW", 0),
        ("LOW", 1),
    ]


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "cron", "expression": "0 * * * *", "zone": "Nowhere/Land"},
        {"agent_id": None, "payload": "{"},
        {"missed": "sometimes"},
        {"overlap": ""},
        {"every_ms": None},
        {"labels": "{"},
    ],
)
def test_a_schedule_that_cannot_be_fired_is_paused_and_keeps_no_other_from_it(
    bench: Bench, broken: dict[str, object]
) -> None:
    enter(bench, "a", **broken)
    enter(bench, "b")
    bench.now_ms += HOUR

    fired = look(bench)

    assert [(tick.name, tick.result) for tick in fired] == [("a", "failed"), ("b", "submitted")]
    assert now_of(bench, "a").state == "PAUSED"
    assert now_of(bench, "a").last_error


def test_what_one_look_does_not_get_to_is_due_still(bench: Bench) -> None:
    for number in range(DUE_MAX + 3):
        enter(bench, f"s{number}")
    bench.now_ms += HOUR

    counts = [len(look(bench)), len(look(bench)), len(look(bench))]

    assert counts == [DUE_MAX, 3, 0]


def test_a_look_makes_a_bounded_number_of_ticks(bench: Bench) -> None:
    for name in ("a", "b"):
        enter(bench, name, missed="all", missed_max=80, every_ms=MINUTE, next_tick_ms=NOON + MINUTE)
    bench.now_ms += 80 * MINUTE

    first = len(look(bench))

    assert first == TICKS_PER_LOOK
    assert first + len(look(bench)) == 160
    assert look(bench) == []


def test_a_clock_that_was_set_back_neither_silences_a_schedule_nor_repeats_its_ticks(bench: Bench) -> None:
    enter(bench)
    bench.now_ms += 30 * HOUR
    look(bench)  # the clock is a day ahead: one run for all that it seems to have missed
    bench.now_ms -= 27 * HOUR
    with bench.store.write():
        bench.store.restart_waits(now_ms=bench.now_ms)
    look(bench)

    made = []
    for _ in range(28):
        bench.now_ms += HOUR
        made += look(bench)

    assert results(made) == [("submitted", hour) for hour in range(4, 30)] + [("submitted", 31)]


def test_a_trigger_is_a_run_of_its_own_however_often_it_comes(bench: Bench) -> None:
    row = enter(bench, overlap="skip")
    with bench.store.write():
        first = trigger(bench.store.press(now_ms=bench.now_ms), row)
        second = trigger(bench.store.press(now_ms=bench.now_ms), row)
    bench.now_ms += HOUR

    assert second.tick_ms == first.tick_ms + 1
    assert results(look(bench)) == [("passed_over", 1)]  # the triggered run goes on
    assert now_of(bench).made == 2


def test_a_backfill_makes_no_tick_that_was_made(bench: Bench) -> None:
    row = enter(bench)
    bench.now_ms += HOUR
    look(bench)

    with bench.store.write():
        made = make_ticks(bench.store.press(now_ms=bench.now_ms), row, [NOON, NOON + HOUR, NOON + 2 * HOUR])
    bench.now_ms += HOUR

    assert results(made) == [("submitted", 0), ("submitted", 2)]
    assert look(bench) == []
    assert now_of(bench).next_tick_ms == NOON + 3 * HOUR


def test_old_ticks_are_forgotten_and_cannot_be_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from relaymesh.store import schedule_fire

    monkeypatch.setattr(schedule_fire, "TICKS_KEPT", 5)
    monkeypatch.setattr(schedule_fire, "_FORGET_EVERY", 1)
    enter(bench)
    for _ in range(8):
        bench.now_ms += HOUR
        look(bench)

    kept = [tick_ms for (tick_ms,) in bench.store.conn.execute("SELECT tick_ms FROM schedule_ticks ORDER BY tick_ms")]

    assert kept == [NOON + hour * HOUR for hour in range(4, 9)]
    assert now_of(bench).known_from_ms == NOON + 4 * HOUR


def test_a_pause_lasts_until_the_resume_and_its_ticks_are_not_made(bench: Bench) -> None:
    enter(bench)
    with bench.store.write():
        assert rows.pause_schedule(bench.store.conn, "s", now_ms=bench.now_ms)
        assert not rows.pause_schedule(bench.store.conn, "s", now_ms=bench.now_ms)
    bench.now_ms += 3 * HOUR
    paused = look(bench)
    with bench.store.write():
        assert rows.resume_schedule(bench.store.conn, now_of(bench), now_ms=bench.now_ms)
    bench.now_ms += HOUR

    assert paused == []
    assert results(look(bench)) == [("submitted", 4)]


def test_a_name_is_taken_once(bench: Bench) -> None:
    enter(bench)

    with pytest.raises(ScheduleExistsError):
        enter(bench, schedule_id="sch_other")


def test_a_root_without_schedules_has_nothing_due(bench: Bench) -> None:
    assert bench.store.next_due_ms() is None
    assert look(bench) == []


def test_looking_for_what_is_due_reads_no_table_from_end_to_end(bench: Bench) -> None:
    from relaymesh.store import schedule_due

    for number in range(20):
        enter(bench, f"s{number}", overlap="queue")
    noted: list[str] = []
    bench.store.conn.set_trace_callback(noted.append)
    schedule_due.next_due_ms(bench.store.conn)
    schedule_due.has_queued_tick(bench.store.conn)
    bench.store.conn.set_trace_callback(None)

    plans = [str(row[3]) for sql in noted for row in bench.store.conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert [plan for plan in plans if plan.startswith("SCAN") and "INDEX" not in plan and "CONSTANT" not in plan] == []


class TicksOfSeveralLookers(RuleBasedStateMachine):
    """Two connections look whenever they like, the clock goes where it likes: each tick once, and none lost."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench.in_memory()
        self.passed: list[tuple[int, int]] = []
        self.submitted: list[int] = []
        self.queued: list[int] = []

    @initialize(missed=st.sampled_from(Missed), overlap=st.sampled_from(Overlap), every=st.sampled_from((1, 7, 60)))
    def start(self, missed: Missed, overlap: Overlap, every: int) -> None:
        every_ms = every * MINUTE
        enter(self.bench, missed=missed, overlap=overlap, missed_max=4, every_ms=every_ms, next_tick_ms=NOON + every_ms)

    @rule(minutes=st.integers(0, 300))
    def time_passes(self, minutes: int) -> None:
        self.bench.now_ms += minutes * MINUTE

    @rule(minutes=st.integers(1, 300))
    def clock_is_set_back(self, minutes: int) -> None:
        self.bench.now_ms = max(NOON, self.bench.now_ms - minutes * MINUTE)
        with self.bench.store.write():
            self.bench.store.restart_waits(now_ms=self.bench.now_ms)

    @rule()
    def look(self) -> None:
        self._take(look(self.bench))

    @rule()
    def a_look_is_lost(self) -> None:
        try:
            with self.bench.store.write():
                self.bench.store.fire_due(now_ms=self.bench.now_ms)
                raise RuntimeError
        except RuntimeError:
            pass

    @rule()
    def runs_end(self) -> None:
        end_everything(self.bench)

    @rule(hours=st.integers(0, 5))
    def backfill(self, hours: int) -> None:
        row = now_of(self.bench)
        assert row.every_ms
        ticks = list(range(NOON + row.every_ms, self.bench.now_ms + 1, row.every_ms))[-hours - 1 :]
        with self.bench.store.write():
            self._take(make_ticks(self.bench.store.press(now_ms=self.bench.now_ms), row, ticks))

    def _take(self, fired: list[Fired]) -> None:
        for tick in fired:
            match tick.result:
                case "submitted":
                    self.submitted.append(tick.tick_ms)
                case "queued":
                    self.queued.append(tick.tick_ms)
                case _:
                    self.passed.append((tick.tick_ms, tick.until_ms or tick.tick_ms))

    @invariant()
    def each_tick_is_one_task(self) -> None:
        assert len(self.submitted) == len(set(self.submitted))
        found = self.bench.store.conn.execute("SELECT tick_ms FROM schedule_ticks ORDER BY tick_ms").fetchall()
        assert [tick for (tick,) in found] == sorted(self.submitted)
        assert self.bench.store.conn.execute("SELECT count(*) FROM tasks").fetchone() == (len(found),)

    @invariant()
    def none_is_lost(self) -> None:
        row = now_of(self.bench)
        assert row.every_ms
        decided = range(NOON + row.every_ms, row.cursor_ms + 1, row.every_ms)
        known = set(self.submitted) | set(self.queued)
        lost = [
            tick
            for tick in decided
            if tick not in known and not any(first <= tick <= last for first, last in self.passed)
        ]
        assert lost == []
        assert row.queued_tick_ms is None or row.overlap == "queue"

    def teardown(self) -> None:
        self.bench.close()


TestTicksOfSeveralLookers = TicksOfSeveralLookers.TestCase
TestTicksOfSeveralLookers.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "root")
    yield bench
    bench.close()
