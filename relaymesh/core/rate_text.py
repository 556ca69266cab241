"""A rate as people write it: ``100/m``, ``5/2s``, ``1000/24h``."""

from __future__ import annotations

import re

from relaymesh.core.nearest import quoted
from relaymesh.core.token_bucket import Rate

__all__ = ["RateTextError", "parse_rate", "rate_text"]

_FORM = re.compile(r"\s*(\d{1,12})\s*/\s*(\d{0,12})\s*(ms|s|m|h|d)\s*", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class RateTextError(ValueError):
    """It is no rate; the sentence says what to write."""


def parse_rate(text: str, burst: int | None = None) -> Rate:
    """Return the rate that a text names. burst: starts at once after a pause; None is as many as in one period.

    Raises:
        RateTextError
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise RateTextError(f"{quoted(text)} is no rate: write a number of starts and a time, such as 100/m or 5/2s")
    count = int(found[1])
    period_ms = int(found[2] or 1) * _UNIT_MS[found[3]]
    try:
        return Rate(count, period_ms, count if burst is None else burst)
    except ValueError as error:
        raise RateTextError(f"{quoted(text)} cannot be used: {error}") from None


def rate_text(rate: Rate) -> str:
    """Return a rate as ``parse_rate`` takes it."""
    for unit, unit_ms in reversed(_UNIT_MS.items()):
        if rate.period_ms % unit_ms == 0:
            times = rate.period_ms // unit_ms
            return f"{rate.count}/{'' if times == 1 else times}{unit}"
    raise AssertionError("every period is a number of milliseconds")
