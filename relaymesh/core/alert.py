"""When a reading that is too high becomes an alert, and when the alert is over.

    OK ──too high──▶ PENDING ──too high at every look for sustain_ms──▶ FIRING
     ▲                  │ not too high                                     │ low at every look for recover_ms
     └──────────────────┴──────────────────────────────────────────────────┘

"Low" is at or below ``clear_percent`` of the target, so a reading that dances around the target changes nothing:
between firing and being over lies at least ``recover_ms``, and before firing again ``sustain_ms``. An alert that fires
as a warning becomes critical once it was critical for ``sustain_ms``, and stays so until it is over.

Nobody looked for longer than ``LOOK_GAP_MS`` (no node ran), or the clock was set back: what was seen before proves
nothing about the time between, so both windows begin anew. The phase stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from relaymesh.core.slo import Objective, Severity

__all__ = ["LOOK_GAP_MS", "OK", "Change", "Phase", "Rule", "State", "evaluate", "look"]

LOOK_GAP_MS: Final = 30_000
"""Looks that are further apart do not belong to one window. They are made every 5 s."""


class Phase(Enum):
    """Where a rule stands."""

    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"


@dataclass(frozen=True, slots=True)
class Rule:
    """How patient an alert is.

    sustain_ms: how long a reading must be too high before it fires; 0 fires at once. recover_ms: how long it must be
    low before it is over. clear_percent: of the target; at or below it a reading is low, 1 to 100.
    """

    name: str
    sustain_ms: int
    recover_ms: int
    clear_percent: int = 90

    def __post_init__(self) -> None:
        if self.sustain_ms < 0 or self.recover_ms < 0 or not 1 <= self.clear_percent <= 100:
            raise ValueError(f"windows must not be negative, and the percentage within 1..100: {self}")


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered of one rule between two looks. ``*_since_ms`` are None while their window is not open.

    since_ms: when the phase began. looked_at_ms: the last look.
    """

    phase: Phase = Phase.OK
    since_ms: int = 0
    looked_at_ms: int = 0
    high_since_ms: int | None = None
    critical_since_ms: int | None = None
    low_since_ms: int | None = None
    severity: Severity = "warning"


OK = State()


@dataclass(frozen=True, slots=True)
class Change:
    """An alert ``fired``, became ``critical`` (``escalated``), or is over (``recovered``)."""

    rule: str
    what: str
    severity: Severity
    observed: int
    target: int
    at_ms: int


def look(rule: Rule, state: State, seen: Objective, now_ms: int) -> tuple[State, Change | None]:
    """Take one reading; return what is to be remembered, and what has changed."""
    if not state.looked_at_ms <= now_ms <= state.looked_at_ms + LOOK_GAP_MS:
        state = replace(state, high_since_ms=None, critical_since_ms=None, low_since_ms=None)
    critical = seen.missed and seen.severity == "critical"
    low = seen.observed * 100 <= max(1, seen.target) * rule.clear_percent
    state = replace(
        state,
        looked_at_ms=now_ms,
        high_since_ms=_window(state.high_since_ms, now_ms, is_open=seen.missed),
        critical_since_ms=_window(state.critical_since_ms, now_ms, is_open=critical),
        low_since_ms=_window(state.low_since_ms, now_ms, is_open=low),
    )
    if state.phase is Phase.FIRING:
        if _held(state.low_since_ms, now_ms, rule.recover_ms):
            over = replace(state, phase=Phase.OK, since_ms=now_ms)
            return replace(over, severity="warning"), _change(rule, "recovered", over.severity, seen, now_ms)
        if state.severity == "warning" and _held(state.critical_since_ms, now_ms, rule.sustain_ms):
            return replace(state, severity="critical"), _change(rule, "escalated", "critical", seen, now_ms)
        return state, None
    if _held(state.high_since_ms, now_ms, rule.sustain_ms):
        severity: Severity = "critical" if _held(state.critical_since_ms, now_ms, rule.sustain_ms) else "warning"
        fired = replace(state, phase=Phase.FIRING, since_ms=now_ms, severity=severity)
        return fired, _change(rule, "fired", severity, seen, now_ms)
    phase = Phase.PENDING if seen.missed else Phase.OK
    return (state if phase is state.phase else replace(state, phase=phase, since_ms=now_ms)), None


def evaluate(
    rules: Sequence[Rule], states: Mapping[str, State], seen: Mapping[str, Objective], now_ms: int
) -> tuple[dict[str, State], list[Change]]:
    """Take one reading of every rule. A rule without a reading stays as it is; one that is no more is forgotten."""
    after: dict[str, State] = {}
    changes: list[Change] = []
    for rule in rules:
        state = states.get(rule.name, OK)
        if rule.name in seen:
            state, change = look(rule, state, seen[rule.name], now_ms)
            if change is not None:
                changes.append(change)
        after[rule.name] = state
    return after, changes


def _window(since_ms: int | None, now_ms: int, *, is_open: bool) -> int | None:
    if not is_open:
        return None
    return now_ms if since_ms is None else since_ms


def _held(since_ms: int | None, now_ms: int, for_ms: int) -> bool:
    return since_ms is not None and now_ms - since_ms >= for_ms


def _change(rule: Rule, what: str, severity: Severity, seen: Objective, now_ms: int) -> Change:
    return Change(rule.name, what, severity, seen.observed, max(1, seen.target), now_ms)
