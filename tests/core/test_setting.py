"""The rules about settings, and the table itself against the reference."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.agents.process_ref import MARK_VARIABLE
from relaymesh.agents.script import script_environment
from relaymesh.core.setting import (
    INT_MAX,
    LONG_MAX,
    SECRET_VARIABLES,
    Kind,
    Raised,
    Setting,
    Source,
    Value,
    WrongValueError,
    changed_names,
    check,
    find,
    parse,
    settle,
)
from relaymesh.core.setting_table import SECRET, VIEW_KEYS, Settings, by_name, table
from relaymesh.wire.work import StepOrder

REFERENCE = {
    "leaseTimeoutMs": (15000, 100),
    "suspectAfterMs": (30000, "leaseTimeoutMs"),
    "deadAfterMs": (60000, "suspectAfterMs"),
    "suspectRecoverMinMs": (5000, 0),
    "deadRecoverMinMs": (30000, 0),
    "pauseWorkerWhenLocalNotAlive": (True, None),
    "maxAttempts": (3, 1),
    "baseBackoffMs": (1000, 1),
    "maxBackoffMs": (60000, "baseBackoffMs"),
    "retryDispatchLimit": (32, 1),
    "gossipFanout": (3, 1),
    "gossipPacketTtl": (2, 1),
    "gossipSyncSampleSize": (32, 1),
    "gossipDedupWindowMs": (60000, 1000),
    "gossipDedupMaxEntries": (4096, 64),
    "gossipSharedSecret": ("", None),
    "meshPruneOlderThanMs": (604800000, 0),
    "meshPruneLimit": (256, 1),
    "meshPruneIntervalMs": (3600000, 0),
    "minFreeDiskBytes": (0, 0),
    "maxIngressQueueDepth": (5000, 1),
    "maxRunningSteps": (2000, 1),
    "submitRateLimitPerMin": (240, 0),
    "sloQueueLagTargetMs": (5000, 1),
    "sloStepP95TargetMs": (2000, 1),
    "sloStepP99TargetMs": (5000, "sloStepP95TargetMs"),
    "sloDeadLetterGrowthTarget1h": (10, 1),
    "sloReplicationLagTargetMs": (30000, 1),
}


def values_of(setting: Setting) -> st.SearchStrategy[Value]:
    match setting.kind:
        case Kind.BOOL:
            return st.booleans()
        case Kind.INT:
            return st.integers(-INT_MAX - 1, INT_MAX)
        case Kind.LONG:
            return st.integers(-LONG_MAX - 1, LONG_MAX)
        case Kind.CHOICE:
            return st.sampled_from(setting.choices)
        case Kind.TEXT:
            return st.text(st.characters(codec="utf-8"), max_size=20).map(str.strip)
    return st.lists(st.text("abc_", min_size=1, max_size=5), max_size=3).map(tuple)


files: st.SearchStrategy[dict[str, Value]] = st.fixed_dictionaries(
    {}, optional={setting.name: values_of(setting) for setting in table()}
)


def test_the_first_keys_of_the_table_are_those_of_the_reference_in_its_order() -> None:
    assert {s.name: (s.default, s.floor) for s in table()[:VIEW_KEYS]} == REFERENCE
    assert [s.name for s in table()[:VIEW_KEYS]] == list(REFERENCE)


def test_a_floor_that_is_another_setting_stands_before_what_it_holds_up() -> None:
    names = [setting.name for setting in table()]

    assert all(names.index(s.floor) < at for at, s in enumerate(table()) if isinstance(s.floor, str))


def test_every_setting_says_what_it_does_and_within_which_bounds() -> None:
    for setting in table():
        assert setting.effect.endswith(".") and setting.bounds.endswith("."), setting.name
        assert setting.kind not in (Kind.INT, Kind.LONG) or setting.unit, setting.name
        assert check(setting, list(setting.default) if isinstance(setting.default, tuple) else setting.default) == (
            setting.default
        )


def test_the_defaults_are_what_settling_nothing_gives() -> None:
    assert Settings.of(settle(table()).values) == Settings()


@settings(deadline=None)
@given(files, files)
def test_what_holds_is_at_or_above_every_floor_whatever_was_given(
    file: dict[str, Value], environment: dict[str, Value]
) -> None:
    found = settle(table(), (Source.FILE, file), (Source.ENVIRONMENT, environment))

    for setting in table():
        value: Any = found.values[setting.name]
        floor: Any = found.values[setting.floor] if isinstance(setting.floor, str) else setting.floor
        asked = {setting.name: setting.default, **file, **environment}[setting.name]
        assert floor is None or value >= floor
        assert value == asked or found.raised[setting.name] == Raised(asked, setting.floor)  # type: ignore[arg-type]
        assert (setting.name in found.raised) == (value != asked)
    assert Settings.of(found.values).values() == found.values
    Settings.of(found.values).retry_policy  # noqa: B018 - it raises when base is above max


@settings(deadline=None)
@given(files)
def test_settling_what_holds_changes_nothing_more(file: dict[str, Value]) -> None:
    once = settle(table(), (Source.FILE, file)).values

    assert settle(table(), (Source.FILE, once)).values == once


@settings(deadline=None)
@given(files, files)
def test_changed_names_are_those_that_differ_in_table_order(file: dict[str, Value], other: dict[str, Value]) -> None:
    former, now = settle(table(), (Source.FILE, file)).values, settle(table(), (Source.FILE, other)).values

    changed = changed_names(table(), former, now)

    assert changed == tuple(name for name in now if now[name] != former[name])
    assert changed == changed_names(table(), now, former)
    assert changed_names(table(), now, now) == ()


def test_a_default_below_what_it_depends_on_is_raised_through_the_whole_chain() -> None:
    found = settle(table(), (Source.FILE, {"leaseTimeoutMs": 90_000, "baseBackoffMs": 90_000}))

    assert [found.values[name] for name in ("suspectAfterMs", "deadAfterMs", "maxBackoffMs")] == [90_000] * 3
    assert found.raised["deadAfterMs"] == Raised(60_000, "suspectAfterMs")
    assert found.sources["deadAfterMs"] is Source.DEFAULT


@settings(deadline=None)
@given(st.data())
def test_what_is_typed_means_what_is_in_a_file(data: st.DataObject) -> None:
    setting = data.draw(st.sampled_from(table()))
    value = data.draw(values_of(setting))
    typed = ",".join(value) if isinstance(value, tuple) else str(value).lower() if value is True else str(value)

    assert parse(setting, typed) == value


@settings(deadline=None)
@given(st.sampled_from(table()), st.text(max_size=30))
def test_any_text_is_a_value_or_one_sentence_with_its_path(setting: Setting, text: str) -> None:
    try:
        value = parse(setting, text)
    except WrongValueError as error:
        assert error.path.startswith(f"$.{setting.name}")
        assert "\n" not in str(error)
    else:
        assert check(setting, list(value) if isinstance(value, tuple) else value) == value


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(WrongValueError, match='"maxAttemts"; did you mean "maxAttempts"'):
        find("maxAttemts", by_name())


def test_the_secret_is_trimmed_and_never_in_a_complaint() -> None:
    secret = by_name()[SECRET]

    assert check(secret, "  hush hush ") == "hush hush"
    with pytest.raises(WrongValueError) as caught:
        check(secret, "hush" * 5000)
    assert "hush" not in str(caught.value)


def test_what_only_a_start_applies_is_kept_from_the_running_process() -> None:
    running, edited = Settings(), Settings(durability="fast", bus_mode="files", max_attempts=9)

    assert edited.with_start_values(running) == Settings(max_attempts=9)


def test_a_wait_that_no_clock_could_hold_is_cut() -> None:
    policy = Settings(base_backoff_ms=LONG_MAX, max_backoff_ms=LONG_MAX).retry_policy

    assert policy.max_backoff_ms < 2**60


def test_variables_of_secrets_are_known_to_those_who_must_not_pass_them_on() -> None:
    assert tuple(setting.variable for setting in table() if setting.secret) == SECRET_VARIABLES


def test_no_variable_is_one_that_agents_get() -> None:
    order = StepOrder(1, "stp", "tsk", "a", 1, "", "", 1, "", "0" * 32, 1)

    given = {*script_environment(order, 0), MARK_VARIABLE, "RELAYMESH_DEBUG"}

    assert given.isdisjoint(setting.variable for setting in table())
