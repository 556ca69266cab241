from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.cron import BadCronError, Cron, normalize_cron
from relaymesh.core.schedule import ticks_between

ZONES = ("Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Sydney", "Africa/Casablanca", "UTC")


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def told(expression: str, zone: str, from_: str, to: str) -> list[str]:
    """The ticks in a span, in the time of the zone with its offset."""
    cron = Cron(normalize_cron(expression), ZoneInfo(zone))
    return [
        datetime.fromtimestamp(tick // 1000, ZoneInfo(zone)).isoformat(timespec="minutes")
        for tick in ticks_between(cron, ms(from_), ms(to), 1000)
    ]


# What comes of a job at a fixed time on the day on which clocks go forward: the minute at which the gap ends.
FORWARD = [
    ("30 2 * * *", "Europe/Berlin", "2026-03-29", ["2026-03-29T03:00+02:00"]),
    ("30 2 * * *", "America/New_York", "2026-03-08", ["2026-03-08T03:00-04:00"]),
    ("30 0 * * *", "America/Santiago", "2026-09-06", ["2026-09-06T01:00-03:00"]),
    ("15 2 * * *", "Australia/Sydney", "2026-10-04", ["2026-10-04T03:00+11:00"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", ["2026-10-04T02:30+11:00"]),
    ("30 3 * * *", "Europe/Berlin", "2026-03-29", ["2026-03-29T03:30+02:00"]),
]
# And when they go back: the first of the two.
BACK = [
    ("30 2 * * *", "Europe/Berlin", "2026-10-25", ["2026-10-25T02:30+02:00"]),
    ("30 1 * * *", "America/New_York", "2026-11-01", ["2026-11-01T01:30-04:00"]),
    ("30 23 * * *", "America/Santiago", "2026-04-04", ["2026-04-04T23:30-03:00"]),
    ("15 2 * * *", "Australia/Sydney", "2026-04-05", ["2026-04-05T02:15+11:00"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-05", ["2026-04-05T01:45+11:00"]),
]


@pytest.mark.parametrize(("expression", "zone", "day", "expected"), [*FORWARD, *BACK])
def test_a_fixed_time_comes_once_on_the_days_on_which_clocks_change(
    expression: str, zone: str, day: str, expected: list[str]
) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
    end = start + timedelta(days=1, seconds=-1)

    assert told(expression, zone, start.isoformat(), end.isoformat()) == expected


def test_a_job_of_every_half_hour_goes_by_elapsed_time_when_clocks_change() -> None:
    forward = told("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:00+01:00", "2026-03-29T04:00+02:00")
    back = told("0 * * * *", "Europe/Berlin", "2026-10-25T01:00+02:00", "2026-10-25T04:00+01:00")

    assert forward == [
        "2026-03-29T01:00+01:00",
        "2026-03-29T01:30+01:00",
        "2026-03-29T03:00+02:00",
        "2026-03-29T03:30+02:00",
        "2026-03-29T04:00+02:00",
    ]
    assert back == [
        "2026-10-25T01:00+02:00",
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T03:00+01:00",
        "2026-10-25T04:00+01:00",
    ]


@given(
    st.sampled_from(ZONES),
    st.sampled_from(("30 2 * * *", "*/20 * * * *", "15,45 1,2,3 * * *", "0 */2 * * *", "5 0 * * 0", "0 12 L * *")),
    st.integers(ms("2025-01-01T00:00+00:00"), ms("2028-01-01T00:00+00:00")),
    st.integers(0, 3 * 86_400_000),
)
def test_the_next_tick_is_later_and_the_same_from_wherever_one_looks(
    zone: str, expression: str, at_ms: int, further_ms: int
) -> None:
    cron = Cron(expression, ZoneInfo(zone))

    tick = cron.after(at_ms)

    assert tick is not None and tick > at_ms and tick % 60_000 == 0
    between = min(at_ms + further_ms, tick - 1)
    assert cron.after(between) == tick


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [2025, 2026, 2027])
def test_a_fixed_time_comes_once_on_every_day_of_a_year(zone: str, year: int) -> None:
    cron = Cron("30 2 * * *", ZoneInfo(zone))
    start = datetime(year, 1, 1, tzinfo=ZoneInfo(zone))
    end = datetime(year + 1, 1, 1, tzinfo=ZoneInfo(zone))

    ticks = ticks_between(cron, round(start.timestamp() * 1000), round(end.timestamp() * 1000), 1000)

    days = [datetime.fromtimestamp(tick // 1000, ZoneInfo(zone)).date() for tick in ticks]
    assert len(days) == len(set(days)) == (end.date() - start.date()).days


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("60 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * * FOO *", "month"),
        ("* * * * 8", "day-of-week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("* * 31 2 *", "day-of-month"),
        ("* * * *", None),
        ("* * * * * *", None),
        ("", None),
        ("0 " * 300, None),
    ],
)
def test_a_bad_expression_names_its_field(expression: str, field: str | None) -> None:
    with pytest.raises(BadCronError) as caught:
        normalize_cron(expression)

    assert caught.value.field == field
    assert field is None or field in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_either_an_expression_or_a_bad_one(text: str) -> None:
    try:
        normal = normalize_cron(text)
    except BadCronError as error:
        assert str(error)
    else:
        assert Cron(normal, UTC).after(0) is not None


def test_nicknames_and_blanks_are_written_out() -> None:
    assert normalize_cron(" @Daily ") == "0 0 * * *"
    assert normalize_cron("0  7\t* * mon-fri") == "0 7 * * mon-fri"


def test_a_calendar_ends_with_the_year_9999() -> None:
    assert Cron("0 0 1 1 *", ZoneInfo("Asia/Tokyo")).after(253_402_300_799_000) is None
