"""``client.schedules``: what is refused, what is stored, and what the audit log keeps."""

from __future__ import annotations

import json

import pytest

from relaymesh.client import Client
from relaymesh.core.cron import BadCronError
from relaymesh.core.label import LabelError
from relaymesh.errors import InputError, UnknownAgentError
from relaymesh.schedule_draft import INPUT_BYTES_MAX, BadScheduleError
from relaymesh.scheduling import BACKFILL_MAX, BackfillSpanError
from relaymesh.store.schedule import ScheduleExistsError, ScheduleNotFoundError
from relaymesh.store.zone import UnknownZoneError
from tests.store.bench import NOON, Bench

HOUR = 3_600_000


def audited(client: Client, action: str) -> list[dict[str, object]]:
    return [json.loads(row) for row in reversed(client.audit_query(action=action, limit=1000))]


def test_a_schedule_is_shown_as_it_was_made(client: Client) -> None:
    made = client.schedules.create(
        "nightly",
        cron="30 2 * * *",
        timezone="Europe/Berlin",
        agent="echo",
        input={"a": 1},
        priority="high",
        labels={"team": "blue"},
        missed="ALL",
        missed_max=7,
        jitter_ms=5_000,
        overlap="queue",
    )

    assert made == client.schedules.show("nightly").schedule
    assert list(client.schedules.list()) == [made]
    assert (made.kind, made.cron, made.timezone, made.state) == ("cron", "30 2 * * *", "Europe/Berlin", "ACTIVE")
    assert (made.missed, made.missed_max, made.overlap, made.jitter_ms) == ("all", 7, "queue", 5_000)
    assert (made.agent, made.priority, made.labels, made.input_bytes) == ("echo", "HIGH", {"team": "blue"}, 7)
    assert made.next_tick == "2023-11-15T01:30:00Z"


def test_the_next_ticks_are_told_in_both_times(client: Client) -> None:
    client.schedules.create("s", cron="30 2 * * *", timezone="Europe/Berlin", agent="echo")

    ticks = client.schedules.next("s", count=2)

    assert [(tick.tick, tick.local) for tick in ticks] == [
        ("2023-11-15T01:30:00Z", "2023-11-15T02:30:00+01:00"),
        ("2023-11-16T01:30:00Z", "2023-11-16T02:30:00+01:00"),
    ]


WRONG: list[tuple[dict[str, object], type[InputError], str]] = [
    ({"cron": "99 * * * *"}, BadCronError, "minute"),
    ({"cron": "0 0 30 2 *"}, BadCronError, "never come"),
    ({"cron": "0 0 * * *", "timezone": "Europe/Berlinn"}, UnknownZoneError, "Europe/Berlin"),
    ({"cron": "0 0 * * *", "timezone": "../../etc/passwd"}, UnknownZoneError, "no time zone"),
    ({}, BadScheduleError, "one of them"),
    ({"cron": "0 0 * * *", "every_ms": 1000}, BadScheduleError, "one of them"),
    ({"every_ms": 999}, BadScheduleError, "1,000"),
    ({"at_ms": NOON}, BadScheduleError, "passed"),
    ({"every_ms": 1000, "missed": "some"}, BadScheduleError, "skip, latest or all"),
    ({"every_ms": 1000, "overlap": "maybe"}, BadScheduleError, "allow, skip or queue"),
    ({"every_ms": 1000, "missed_max": 101}, BadScheduleError, "1 to 100"),
    ({"every_ms": 1000, "jitter_ms": 86_400_001}, BadScheduleError, "a day"),
    ({"every_ms": 1000, "agent": "ecko"}, UnknownAgentError, "ecko"),
    ({"every_ms": 1000, "agent": None}, BadScheduleError, "agent or a workflow"),
    ({"every_ms": 1000, "priority": "urgent"}, InputError, "priority"),
    ({"every_ms": 1000, "labels": {"tick": "x"}}, LabelError, "tick"),
    ({"every_ms": 1000, "agent": None, "workflow": "{"}, InputError, "JSON"),
    ({"every_ms": 1000, "input": "x" * (INPUT_BYTES_MAX + 1)}, BadScheduleError, "1,048,576"),
    ({"every_ms": "often"}, InputError, "every_ms"),
]


@pytest.mark.parametrize(("options", "error", "said"), WRONG)
def test_what_is_wrong_is_named_and_nothing_is_stored(
    client: Client, options: dict[str, object], error: type[InputError], said: str
) -> None:
    client.init()

    with pytest.raises(error) as caught:
        client.schedules.create("s", **{"agent": "echo", **options})  # type: ignore[arg-type]

    assert said in str(caught.value)
    assert list(client.schedules.list()) == []


@pytest.mark.parametrize("name", ["", "a b", "-a", "ä", "x" * 64])
def test_a_name_can_be_typed(client: Client, name: str) -> None:
    with pytest.raises(BadScheduleError):
        client.schedules.create(name, every_ms=1000, agent="echo")


def test_a_name_that_is_taken_or_mistyped_is_told(client: Client) -> None:
    client.schedules.create("nightly", every_ms=1000, agent="echo")

    with pytest.raises(ScheduleExistsError):
        client.schedules.create("nightly", every_ms=1000, agent="echo")
    with pytest.raises(ScheduleNotFoundError, match='did you mean "nightly"'):
        client.schedules.pause("nightli")


def test_every_change_is_in_the_audit_log_and_the_input_is_not(client: Client, bench: Bench) -> None:
    schedules = client.schedules
    schedules.create("s", every_ms=HOUR, agent="echo", input="secret words")
    schedules.pause("s")
    schedules.pause("s")
    schedules.resume("s")
    schedules.trigger("s")
    bench.now_ms += HOUR
    client.maintenance()
    schedules.backfill("s", from_ms=NOON - HOUR)
    schedules.delete("s")

    results = {
        what: [row["result"] for row in audited(client, f"schedule.{what}")]
        for what in ("create", "pause", "resume", "trigger", "fire", "backfill", "delete")
    }
    assert results == {
        "create": ["created"],
        "pause": ["paused", "invalid_state:PAUSED"],
        "resume": ["resumed"],
        "trigger": ["submitted"],
        "fire": ["submitted"],
        "backfill": ["ok"],
        "delete": ["deleted"],
    }
    assert "secret words" not in (client.root / "audit" / "audit.log").read_text()


def test_a_paused_schedule_makes_nothing_and_can_be_triggered(client: Client, bench: Bench) -> None:
    client.schedules.create("s", every_ms=HOUR, agent="echo")
    client.schedules.pause("s")
    bench.now_ms += 2 * HOUR
    client.maintenance()

    change = client.schedules.trigger("s")

    assert change.task_id is not None and change.state == "PAUSED"
    (run,) = client.schedules.show("s").runs
    assert (run.kind, run.task_id, run.status) == ("trigger", change.task_id, "PENDING")


def test_a_backfill_makes_each_tick_once(client: Client, bench: Bench) -> None:
    client.schedules.create("s", cron="0 * * * *", agent="echo")

    first = client.schedules.backfill("s", from_ms=NOON - 3 * HOUR)
    second = client.schedules.backfill("s", from_ms=NOON - 4 * HOUR)

    assert (first.ticks, first.submitted, first.already_made) == (3, 3, 0)
    assert (second.ticks, second.submitted, second.already_made) == (4, 1, 3)
    assert len({*first.task_ids, *second.task_ids}) == 4


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "said"),
    [
        (NOON, NOON - 1, "ends before"),
        (NOON, NOON + HOUR, "future"),
        (NOON - (BACKFILL_MAX + 5) * HOUR, None, "more than 1,000"),
    ],
)
def test_a_span_that_cannot_be_made_is_refused_whole(
    client: Client, from_ms: int, to_ms: int | None, said: str
) -> None:
    client.schedules.create("s", cron="0 * * * *", agent="echo")

    with pytest.raises(BackfillSpanError, match=said):
        client.schedules.backfill("s", from_ms=from_ms, to_ms=to_ms)

    assert client.schedules.show("s").runs == ()


def test_ticks_that_are_no_longer_remembered_are_not_made_again(client: Client) -> None:
    client.schedules.create("s", cron="0 * * * *", agent="echo")
    store = client._writable()
    with store.write():
        store.conn.execute("UPDATE schedules SET known_from_ms=?", (NOON - HOUR,))

    with pytest.raises(BackfillSpanError, match="no longer remembered"):
        client.schedules.backfill("s", from_ms=NOON - 2 * HOUR)


def test_a_deleted_schedule_leaves_its_tasks_and_its_name(client: Client) -> None:
    client.schedules.create("s", every_ms=HOUR, agent="echo")
    task_id = client.schedules.trigger("s").task_id
    client.schedules.delete("s")

    again = client.schedules.create("s", every_ms=HOUR, agent="echo")

    assert task_id is not None and client.task(task_id).status == "PENDING"
    assert again.made == 0 and client.schedules.show("s").runs == ()


def test_a_schedule_whose_clock_went_back_is_looked_at_by_maintenance(client: Client, bench: Bench) -> None:
    client.schedules.create("s", every_ms=HOUR, agent="echo")
    bench.now_ms += 100 * HOUR
    client.maintenance()
    bench.now_ms -= 90 * HOUR
    client.maintenance()
    bench.now_ms += HOUR

    client.maintenance()

    assert [run.tick_ms for run in client.schedules.show("s").runs] == [NOON + 100 * HOUR, NOON + 11 * HOUR]


def test_a_state_that_no_schedule_is_ever_in_is_refused(client: Client) -> None:
    with pytest.raises(InputError, match='there is no state "ASLEEP" of a schedule: use ACTIVE, PAUSED, ENDED'):
        client.schedules.list(state="ASLEEP")
