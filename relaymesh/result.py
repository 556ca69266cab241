"""What a task came to, for a program: the output that it was submitted for, as text or as a value of a type.

    step named ──────────────────────────▶ the output of that step
    no step named, one last step ────────▶ the output of that one: a join, or the only step
    no step named, several last steps ───▶ StepNotNamedError

A last step is one that no other depends on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from relaymesh.core.ident import workflow_step_id
from relaymesh.errors import InputError, RelayMeshError
from relaymesh.store.payload import ReadText
from relaymesh.wire.typed import decoder

__all__ = ["BadResultError", "StepNotFoundError", "StepNotNamedError", "decoded", "output_of"]

_NAMES_SHOWN = 5


class StepNotFoundError(InputError):
    """The task has no step of this name."""

    code = "step_not_found"

    def __init__(self, task_id: str, step: str) -> None:
        super().__init__(task_id, step)
        self.task_id, self.step = task_id, step

    def __str__(self) -> str:
        return (
            f"task {self.task_id} has no step {self.step[:128]!r}: `relaymesh workflow {self.task_id}` lists its steps"
        )


class StepNotNamedError(InputError):
    """The task has several last steps, so it is not clear whose output is meant. ``steps``: the first of them."""

    code = "step_not_named"

    def __init__(self, task_id: str, steps: Sequence[str]) -> None:
        super().__init__(task_id, tuple(steps))
        self.task_id, self.steps = task_id, tuple(steps)

    def __str__(self) -> str:
        names = ", ".join(self.steps[:_NAMES_SHOWN]) + (", ..." if len(self.steps) > _NAMES_SHOWN else "")
        return f"no one step ends task {self.task_id}: name the step whose output you want, such as {names}"


class BadResultError(RelayMeshError):
    """The output is not what the caller said it would be."""

    code = "bad_result"

    def __init__(self, task_id: str, cause: str) -> None:
        super().__init__(task_id, cause)
        self.task_id, self.cause = task_id, cause

    def __str__(self) -> str:
        return f"the output of task {self.task_id} does not fit the type that was asked for: {self.cause}"


def output_of(conn: sqlite3.Connection, task_id: str, step: str | None, read_text: ReadText) -> str | None:
    """Return one output of a task that exists, None as long as there is none.

    Raises:
        StepNotFoundError, StepNotNamedError
    """
    if step is None:
        step_id = _last_step(conn, task_id)
    else:
        # A full step id, as `relaymesh workflow` prints it, will do as well.
        step_id = step if step.startswith("stp_") else workflow_step_id(task_id, step)
    row = conn.execute(
        "SELECT result_payload, result_path FROM steps WHERE task_id=? AND step_id=?", (task_id, step_id)
    ).fetchone()
    if row is None:
        raise StepNotFoundError(task_id, step or "")
    text, path = row
    return read_text("output", step_id, text, path)


def decoded(task_id: str, text: str | None, kind: Any) -> Any:
    """Return the output as a value of the type ``kind``; as it stands for ``str``.

    Raises:
        BadResultError: it is not JSON, or not of this shape.
    """
    if kind is str:
        return text or ""
    try:
        return decoder(kind).decode(text or "")
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadResultError(task_id, str(error)) from error


def _last_step(conn: sqlite3.Connection, task_id: str) -> str:
    rows = conn.execute(
        "SELECT step_id FROM steps WHERE task_id=? AND map_parent IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM step_dependencies d WHERE d.depends_on_step_id=steps.step_id) ORDER BY id LIMIT ?",
        (task_id, _NAMES_SHOWN + 1),
    ).fetchall()
    found = [str(step_id) for (step_id,) in rows]
    if len(found) != 1:
        raise StepNotNamedError(task_id, [step_id.removeprefix(f"stp_{task_id}_") for step_id in found])
    return found[0]
