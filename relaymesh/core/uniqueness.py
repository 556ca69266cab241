"""Whether a new task is one too many beside another with the same unique key, and what becomes of the two.

waiting   a duplicate while the other waits for its first start
running   a duplicate until the other has ended
period    a duplicate for so long after the other was submitted, whatever became of it

return    answer with the other
refuse    answer with an error that names the other
replace   cancel the other, when it has not started, and store the new one in its place; else refuse
debounce  the same, and the new one waits its whole delay again; but a row of such submits is put off no longer than
          DEBOUNCE_FACTOR times the delay after its first, so that a stream of submits cannot put it off for ever
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from relaymesh.core.status import TaskStatus

__all__ = [
    "DEBOUNCE_FACTOR",
    "PERIOD_MS_MAX",
    "Debounce",
    "Holder",
    "OnDuplicate",
    "Outcome",
    "Replace",
    "Return",
    "Store",
    "Unique",
    "UniqueMode",
    "judge",
]

DEBOUNCE_FACTOR: Final = 10
PERIOD_MS_MAX: Final = 31_536_000_000
"""The longest period: 365 days."""


class UniqueMode(StrEnum):
    """For how long another task stands in the way."""

    WAITING = "waiting"
    RUNNING = "running"
    PERIOD = "period"


class OnDuplicate(StrEnum):
    """What happens to a duplicate."""

    RETURN = "return"
    REFUSE = "refuse"
    REPLACE = "replace"
    DEBOUNCE = "debounce"


@dataclass(frozen=True, slots=True)
class Unique:
    """What a submit asks for. period_ms: with ``PERIOD``. delay_ms: of the new task, with ``DEBOUNCE``."""

    key: str
    mode: UniqueMode
    on_duplicate: OnDuplicate
    period_ms: int = 0
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """The newest task with the key. debounced_since_ms: the first submit of its row of debounced ones, or None."""

    task_id: str
    status: TaskStatus
    created_at_ms: int
    debounced_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """Nothing stands in the way."""


@dataclass(frozen=True, slots=True)
class Return:
    """Store nothing and name the holder; whoever asked to be refused then is."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Cancel the holder, which waits, and store the new task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Debounce:
    """Cancel the holder, which waits, and store the new task, not to be started before ``not_before_ms``."""

    task_id: str
    not_before_ms: int
    since_ms: int


Outcome = Store | Return | Replace | Debounce

_OPEN: Final = frozenset({TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.RETRYING})


def judge(unique: Unique, holder: Holder | None, now_ms: int) -> Outcome:
    """Decide about a new task. holder: the newest task with the key, whatever became of it."""
    if holder is None or not _in_the_way(unique, holder, now_ms):
        return Store()
    waits = holder.status is TaskStatus.PENDING
    match unique.on_duplicate:
        case OnDuplicate.RETURN | OnDuplicate.REFUSE:
            return Return(holder.task_id)
        case OnDuplicate.REPLACE:
            return Replace(holder.task_id) if waits else Return(holder.task_id)
        case OnDuplicate.DEBOUNCE:
            if not waits:
                return Return(holder.task_id)
            since_ms = holder.created_at_ms if holder.debounced_since_ms is None else holder.debounced_since_ms
            # A clock that was set back must not stretch the row.
            since_ms = min(since_ms, now_ms)
            latest_ms = since_ms + DEBOUNCE_FACTOR * unique.delay_ms
            return Debounce(holder.task_id, min(now_ms + unique.delay_ms, latest_ms), since_ms)
    assert_never(unique.on_duplicate)


def _in_the_way(unique: Unique, holder: Holder, now_ms: int) -> bool:
    match unique.mode:
        case UniqueMode.WAITING:
            return holder.status is TaskStatus.PENDING
        case UniqueMode.RUNNING:
            return holder.status in _OPEN
        case UniqueMode.PERIOD:
            return now_ms < holder.created_at_ms + unique.period_ms
    assert_never(unique.mode)
