"""Alerts: how long it takes until one fires, and until it is over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.alert import LOOK_GAP_MS, OK, Change, Phase, Rule, State, evaluate, look
from relaymesh.core.slo import Objective

RULE = Rule("queue_lag", sustain_ms=30_000, recover_ms=60_000)
TARGET = 100
STEP_MS = 5_000
NOON = 10_000_000


def run(
    readings: list[int], *, state: State = OK, every_ms: int = STEP_MS, start_ms: int = NOON
) -> tuple[State, list[Change]]:
    changes = []
    for at, observed in enumerate(readings):
        state, change = look(RULE, state, Objective("queue_lag", observed, TARGET), start_ms + at * every_ms)
        if change is not None:
            changes.append(change)
    return state, changes


def test_a_reading_that_stays_too_high_fires_once_after_the_sustain_window() -> None:
    state, changes = run([150] * 20)

    assert [(change.what, change.at_ms - NOON) for change in changes] == [("fired", 30_000)]
    assert state.phase is Phase.FIRING


def test_a_short_peak_is_forgotten() -> None:
    state, changes = run([150] * 6 + [50] + [150] * 6)

    assert changes == []
    assert state.phase is Phase.PENDING


def test_an_alert_is_over_when_readings_were_low_for_the_recovery_window() -> None:
    state, changes = run([150] * 7 + [50] * 13)

    assert [change.what for change in changes] == ["fired", "recovered"]
    assert changes[1].at_ms - changes[0].at_ms == STEP_MS + 60_000
    assert (state.phase, state.severity) == (Phase.OK, "warning")


def test_a_reading_between_low_and_too_high_does_not_end_an_alert() -> None:
    state, changes = run([150] * 7 + [95] * 100)

    assert [change.what for change in changes] == ["fired"]
    assert state.phase is Phase.FIRING


def test_an_alert_that_was_critical_all_the_time_fires_as_critical() -> None:
    _, changes = run([200] * 7)

    assert [(change.what, change.severity) for change in changes] == [("fired", "critical")]


def test_a_warning_that_gets_worse_becomes_critical_once_and_stays_so() -> None:
    state, changes = run([150] * 7 + [300] * 10 + [150] * 10)

    assert [(change.what, change.severity) for change in changes] == [("fired", "warning"), ("escalated", "critical")]
    assert state.severity == "critical"


def test_nothing_is_concluded_over_a_time_in_which_nobody_looked() -> None:
    state, _ = run([150])

    state, changes = run([150], state=state, start_ms=NOON + LOOK_GAP_MS + 1)

    assert changes == []
    assert state.phase is Phase.PENDING


def test_a_clock_that_was_set_back_begins_the_windows_anew() -> None:
    state, _ = run([150] * 6)

    state, changes = run([150] * 6, state=state, start_ms=NOON - 3_600_000)

    assert changes == []


def test_a_rule_without_sustain_fires_at_once() -> None:
    rule = Rule("disk", sustain_ms=0, recover_ms=0)

    state, change = look(rule, OK, Objective("disk", 2, 1), NOON)

    assert change is not None and change.what == "fired"
    assert look(rule, state, Objective("disk", 0, 1), NOON + 1)[1] == Change(
        "disk", "recovered", "critical", 0, 1, NOON + 1
    )


def test_rules_without_a_reading_stay_and_rules_that_are_no_more_are_forgotten() -> None:
    firing = State(phase=Phase.FIRING, looked_at_ms=NOON)

    states, changes = evaluate([RULE], {"queue_lag": firing, "gone": firing}, {}, NOON + 1)

    assert (states, changes) == ({"queue_lag": firing}, [])


@pytest.mark.parametrize("bad", [(-1, 0, 90), (0, -1, 90), (0, 0, 0), (0, 0, 101)])
def test_a_rule_that_makes_no_sense_is_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="windows must not be negative"):
        Rule("x", *bad)


looks = st.lists(st.tuples(st.integers(0, 400), st.integers(-50_000, 60_000)), max_size=80)


@given(looks)
def test_an_alert_never_flaps_whatever_is_read_and_whatever_the_clock_does(seen: list[tuple[int, int]]) -> None:
    now_ms, state = NOON, OK
    path: list[tuple[int, int]] = []
    for observed, passed_ms in seen:
        now_ms += passed_ms
        path.append((now_ms, observed))
        before = state
        state, change = look(RULE, state, Objective("queue_lag", observed, TARGET), now_ms)

        if change is None:
            assert (state.phase is Phase.FIRING) == (before.phase is Phase.FIRING)
            assert state.severity == before.severity
            continue
        window_ms = RULE.recover_ms if change.what == "recovered" else RULE.sustain_ms
        proof = proven(path, window_ms)
        # Looks without a gap reach back over the whole window, and each of them says the same.
        if change.what == "fired":
            assert before.phase is not Phase.FIRING and all(value > TARGET for value in proof)
        elif change.what == "recovered":
            assert before.phase is Phase.FIRING and all(value <= 90 for value in proof)
        else:
            assert before.severity == "warning" and all(value >= 200 for value in proof)


def proven(path: list[tuple[int, int]], window_ms: int) -> list[int]:
    """The readings of the last window, which must be covered by looks that belong together."""
    end_ms = path[-1][0]
    values = []
    for at in range(len(path) - 1, -1, -1):
        values.append(path[at][1])
        if end_ms - path[at][0] >= window_ms:
            return values
        assert at > 0 and 0 <= path[at][0] - path[at - 1][0] <= LOOK_GAP_MS
    raise AssertionError("the window is not covered")
