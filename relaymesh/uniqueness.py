"""What a caller writes about unique tasks, turned into what travels with the task; and the error of a duplicate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relaymesh.core.concurrency_key import KeyTextError, checked_key
from relaymesh.core.nearest import quoted
from relaymesh.core.uniqueness import PERIOD_MS_MAX, OnDuplicate, UniqueMode
from relaymesh.errors import InputError
from relaymesh.wire.store import NewUnique

if TYPE_CHECKING:
    from relaymesh.wire.store import NewTask

__all__ = ["BadUniqueError", "DuplicateTaskError", "refuse_duplicates", "unique_of"]

_PERIOD = re.compile(r"period=(\d{1,15})", re.ASCII)


class BadUniqueError(InputError):
    """What was asked for about unique tasks makes no sense; nothing was stored."""

    code = "bad_unique"

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class DuplicateTaskError(InputError):
    """Another task with the unique key stands in the way; nothing was stored. ``task_id`` is that one."""

    code = "duplicate_task"

    def __init__(self, task_id: str, started: bool) -> None:
        super().__init__(task_id, started)
        self.task_id, self.started = task_id, started

    def __str__(self) -> str:
        why = "has begun and cannot be replaced" if self.started else "is the same"
        return f"task {self.task_id} {why}: wait for it, or give another --unique-key; nothing was stored"


def unique_of(
    unique: str | None, on_duplicate: str | None, key: str | None, *, default_key: str, delay_ms: int
) -> NewUnique | None:
    """Return what travels with the task, or None when nothing is asked for.

    unique: ``waiting``, ``running`` or ``period=MS``. on_duplicate: ``return`` when None.

    Raises:
        BadUniqueError
    """
    if unique is None:
        if on_duplicate is not None or key is not None:
            raise BadUniqueError("say what makes a task a duplicate: add --unique waiting, running or period=MS")
        return None
    word, period_ms = unique.strip().lower(), 0
    if found := _PERIOD.fullmatch(word):
        word, period_ms = "period", int(found[1])
        if not 1 <= period_ms <= PERIOD_MS_MAX:
            raise BadUniqueError(f"a period of {period_ms} ms cannot be used: take 1 to {PERIOD_MS_MAX:,}")
    elif word not in (UniqueMode.WAITING, UniqueMode.RUNNING):
        raise BadUniqueError(f"{quoted(unique)} is no way to be unique: write waiting, running or period=MS")
    try:
        action = OnDuplicate((on_duplicate or "return").strip().lower())
    except ValueError:
        known = ", ".join(OnDuplicate)
        raise BadUniqueError(f"{quoted(on_duplicate or '')} is nothing to do: write one of {known}") from None
    if action is OnDuplicate.DEBOUNCE and delay_ms <= 0:
        raise BadUniqueError("debounce waits for a pause between submits: say how long with --delay")
    try:
        its_key = checked_key(key) if key is not None and key.strip() else default_key
    except KeyTextError as error:
        raise BadUniqueError(str(error)) from None
    return NewUnique(its_key, word, str(action), period_ms, delay_ms)


def _refused(task: NewTask, result: tuple[str, bool]) -> DuplicateTaskError | None:
    """Return the error for a duplicate whose submitter did not want the other task instead, or None."""
    task_id, deduplicated = result
    if not deduplicated or task.unique is None or task.unique.on_duplicate == OnDuplicate.RETURN:
        return None
    return DuplicateTaskError(task_id, task.unique.on_duplicate != OnDuplicate.REFUSE)


def refuse_duplicates(
    tasks: Sequence[NewTask], results: Sequence[tuple[str, bool] | InputError]
) -> list[tuple[str, bool] | InputError]:
    """Put the error in the place of each such result."""
    return [
        result if isinstance(result, InputError) else _refused(task, result) or result
        for task, result in zip(tasks, results, strict=True)
    ]
