"""Cron expressions as a calendar of instants in a time zone. The zone is handed in; this module opens no file.

Five fields as in Debian's cron: minute, hour, day of month, month, day of week. On the days on which clocks change, a
job at a fixed time of day is made exactly once: what falls into the gap at its end, what comes twice the first time.
A job whose minute or hour begins with ``*`` goes by elapsed time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from cronsim import CronSim, CronSimError

from relaymesh.core.nearest import quoted
from relaymesh.errors import InputError

__all__ = ["CRON_CHARS_MAX", "CRON_FIELDS", "BadCronError", "Cron", "normalize_cron"]

CRON_CHARS_MAX: Final = 256
CRON_FIELDS: Final = ("minute", "hour", "day-of-month", "month", "day-of-week")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NICKNAMES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class BadCronError(InputError):
    """A cron expression that cannot be read. field: the one at fault, or None when the expression as a whole is."""

    code = "bad_cron"

    def __init__(self, expression: str, cause: str, field: str | None = None) -> None:
        super().__init__(expression, cause, field)
        self.expression, self.cause, self.field = expression, cause, field

    def __str__(self) -> str:
        return f"the cron expression {quoted(self.expression)} {self.cause}"


@dataclass(frozen=True, slots=True)
class Cron:
    """The instants of an expression that ``normalize_cron`` has passed, in the time of ``zone``."""

    expression: str
    zone: tzinfo

    def after(self, at_ms: int) -> int | None:
        try:
            local = (_EPOCH + timedelta(seconds=at_ms // 1000)).astimezone(self.zone)
            for tick in CronSim(self.expression, local):
                # In an hour that comes twice, a fixed time of day is told in its first pass, which may be over.
                tick_ms = round((tick - _EPOCH).total_seconds()) * 1000
                if tick_ms > at_ms:
                    return tick_ms
        except (OverflowError, ValueError):  # behind the year 9999
            return None
        return None


def normalize_cron(expression: str) -> str:
    """Return the expression with single blanks between its fields, a nickname such as ``@daily`` written out.

    Raises:
        BadCronError: names the field that cannot be read.
    """
    if len(expression) > CRON_CHARS_MAX:
        raise BadCronError(f"{expression[:20]}...", f"is longer than {CRON_CHARS_MAX} characters: shorten it")
    text = " ".join(expression.split())
    text = _NICKNAMES.get(text.lower(), text)
    parts = text.split()
    if len(parts) != len(CRON_FIELDS):
        raise BadCronError(
            expression,
            f"has {len(parts)} fields: write five (minute, hour, day of month, month, day of week), such as"
            ' "30 7 * * MON-FRI", or one of @hourly, @daily, @weekly, @monthly, @yearly',
        )
    for index, field in enumerate(CRON_FIELDS):
        try:
            # With the others open, so that the field is the one that is at fault.
            CronSim(" ".join(part if index == other else "*" for other, part in enumerate(parts)), _EPOCH)
        except (CronSimError, ValueError) as error:
            raise BadCronError(
                expression,
                f"has {quoted(parts[index])} as its {field}, which cannot be read: {_HELP[field]}",
                field,
            ) from error
    try:
        comes = next(CronSim(text, _EPOCH), None) is not None
    except CronSimError:
        comes = False
    if not comes:
        raise BadCronError(expression, "names days that never come: check its day-of-month and month", "day-of-month")
    return text


_HELP: Final = {
    "minute": "write 0 to 59, *, lists, ranges and steps such as */15",
    "hour": "write 0 to 23, *, lists, ranges and steps such as 8-18/2",
    "day-of-month": "write 1 to 31, *, L for the last day, lists, ranges and steps",
    "month": "write 1 to 12 or JAN to DEC, *, lists, ranges and steps",
    "day-of-week": "write 0 to 7 (0 and 7 are Sunday) or SUN to SAT, *, lists, ranges, 5L or 1#2",
}
