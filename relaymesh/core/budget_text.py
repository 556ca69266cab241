"""Budgets as people and agents write them: kinds, amounts, periods, and what was spent.

kind      wall_seconds, cpu_seconds, units:NAME
amount    1200, 0.02, "5.25"                        exact to the millionth
period    30s, 15m, 1h, 1d, 7d
spent     tokens=1200 usd=0.02                      spaces or commas between
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal

from relaymesh.core.budget import CPU, MICROS, UNITS, WALL, BudgetScope
from relaymesh.core.limit import (
    BUDGET_MICROS_MAX,
    BUDGET_PERIOD_MS_MAX,
    BUDGET_PERIOD_MS_MIN,
    BUDGETS_PER_OWNER_MAX,
    CONCURRENCY_KEY_CHARS_MAX,
    UNIT_NAME_CHARS_MAX,
    UNITS_PER_ATTEMPT_MAX,
)
from relaymesh.core.nearest import did_you_mean, quoted

__all__ = [
    "BudgetTextError",
    "amount_text",
    "budgets_of",
    "kind_of",
    "micros_of",
    "owner_of",
    "period_of",
    "period_text",
    "spent_of",
    "units_of",
]

_NAME = re.compile(rf"[a-z][a-z0-9_]{{0,{UNIT_NAME_CHARS_MAX - 1}}}", re.ASCII)
_NUMBER = re.compile(r"\d{1,13}(?:\.\d{1,32})?", re.ASCII)
_PERIOD = re.compile(r"\s*(\d{1,9})\s*(s|m|h|d)\s*", re.ASCII)
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class BudgetTextError(ValueError):
    """It means no budget; the sentence says what to write."""


def kind_of(text: str) -> str:
    """Return a kind in the form in which it is stored.

    Raises:
        BudgetTextError
    """
    kind = text.strip().lower()
    if kind in (WALL, CPU) or (kind.startswith(UNITS) and _NAME.fullmatch(kind[len(UNITS) :])):
        return kind
    hint = did_you_mean(kind, (WALL, CPU))
    raise BudgetTextError(
        f"{quoted(text)} is nothing that can be spent{hint}: write {WALL}, {CPU} or {UNITS}NAME, where the name is of"
        f" 1 to {UNIT_NAME_CHARS_MAX} small letters, digits and _, and begins with a letter"
    )


def micros_of(value: object, what: str = "an amount") -> int:
    """Return a number as micros: to the nearest one, and never to none of them when it is above 0.

    value: int, float (as Python prints it), Decimal, or text with digits and a point.

    Raises:
        BudgetTextError
    """
    exact: Decimal | None = None
    if isinstance(value, str):
        exact = Decimal(value.strip()) if _NUMBER.fullmatch(value.strip()) else None
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        exact = Decimal(value)
    elif isinstance(value, float):
        exact = Decimal(repr(value))
    if exact is None or not exact.is_finite() or exact < 0 or exact > BUDGET_MICROS_MAX // MICROS:
        shown = quoted(str(value)[:40]) if isinstance(value, str | int | float | Decimal) else type(value).__name__
        raise BudgetTextError(
            f"{shown} cannot be {what}: write a number from 0 to {BUDGET_MICROS_MAX // MICROS:,}, such as 1200 or 0.02"
        )
    micros = int((exact * MICROS).to_integral_value(ROUND_HALF_UP))
    return 1 if micros == 0 and exact > 0 else micros


def amount_text(micros: int) -> str:
    """Return micros as ``micros_of`` takes them, without zeros at the end; below 0 with a minus."""
    whole, part = divmod(abs(micros), MICROS)
    text = f"{whole}.{part:06}".rstrip("0").rstrip(".")
    return f"-{text}" if micros < 0 else text


def period_of(text: str) -> int:
    """Return a period in ms.

    Raises:
        BudgetTextError
    """
    found = _PERIOD.fullmatch(text)
    period_ms = int(found[1]) * _UNIT_MS[found[2]] if found is not None else 0
    if not BUDGET_PERIOD_MS_MIN <= period_ms <= BUDGET_PERIOD_MS_MAX:
        raise BudgetTextError(f"{quoted(text)} is no period: write one from 1s to 366d, such as 1h or 1d")
    return period_ms


def period_text(period_ms: int) -> str:
    """Return a period as ``period_of`` takes it."""
    for unit, unit_ms in reversed(_UNIT_MS.items()):
        if period_ms % unit_ms == 0:
            return f"{period_ms // unit_ms}{unit}"
    raise AssertionError("every period is a number of seconds")


def owner_of(scope: str, name: str) -> tuple[BudgetScope, str]:
    """Return whose budget it is.

    Raises:
        BudgetTextError
    """
    known = {str(one): one for one in BudgetScope}
    found = known.get(scope.strip().lower())
    if found is None:
        raise BudgetTextError(f"there is no budget of {quoted(scope)}: write one of {', '.join(known)}")
    if not name.strip() or len(name) > CONCURRENCY_KEY_CHARS_MAX:
        raise BudgetTextError(
            f"the budget of one {found} needs its name, of 1 to {CONCURRENCY_KEY_CHARS_MAX} characters"
        )
    return found, name


def budgets_of(amounts: object) -> tuple[tuple[str, int], ...]:
    """Return the budgets of a task, ``(kind, micros)`` sorted, from kinds and amounts.

    Raises:
        BudgetTextError
    """
    if not isinstance(amounts, Mapping):
        raise BudgetTextError(f'a budget is written such as {{"{UNITS}tokens": 50000, "{WALL}": 600}}')
    if len(amounts) > BUDGETS_PER_OWNER_MAX:
        raise BudgetTextError(f"{len(amounts)} budgets are more than the {BUDGETS_PER_OWNER_MAX} that a task may have")
    found: dict[str, int] = {}
    for name, value in amounts.items():
        kind = kind_of(str(name))
        if kind in found:
            raise BudgetTextError(f"the budget for {kind} is given twice: keep one of them")
        found[kind] = micros_of(value, f"the budget for {kind}")
    return tuple(sorted(found.items()))


def units_of(spent: Mapping[str, object]) -> dict[str, int]:
    """Return what an agent says it spent: names without ``units:``, as kinds, to micros.

    Raises:
        BudgetTextError
    """
    if len(spent) > UNITS_PER_ATTEMPT_MAX:
        raise BudgetTextError(
            f"{len(spent)} units are more than the {UNITS_PER_ATTEMPT_MAX} that an attempt may report"
        )
    return {_unit(name): micros_of(value, f"what was spent of {name}") for name, value in spent.items()}


def _unit(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BudgetTextError(
            f"{quoted(name[:80])} is no name of a unit: write 1 to {UNIT_NAME_CHARS_MAX} small letters, digits and _,"
            " the first one a letter"
        )
    return f"{UNITS}{name}"


def spent_of(text: str) -> dict[str, int]:
    """Return what was spent by the words of a script or of a header, such as ``tokens=1200, usd=0.02``.

    Raises:
        BudgetTextError
    """
    spent: dict[str, object] = {}
    for word in text.replace(",", " ").split():
        name, equals, value = word.partition("=")
        if not equals or name in spent:
            raise BudgetTextError(f"{quoted(word[:80])} does not say what was spent: write it such as tokens=1200")
        spent[name] = value
    if not spent:
        raise BudgetTextError("nothing is said to be spent: write it such as tokens=1200 usd=0.02")
    return units_of(spent)
