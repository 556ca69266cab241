"""Write tasks and dead letters to files that other programs read. A file is complete or not there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from relaymesh.errors import InputError
from relaymesh.store import read
from relaymesh.store.database import Database
from relaymesh.store.output_place import root_of_own_file
from relaymesh.store.spending import spending_of_task
from relaymesh.view import DeadExportOutcome, TaskExportOutcome

__all__ = ["OutputFileError", "export_dead", "export_task", "file_at", "write_whole"]


class OutputFileError(InputError):
    """The file that was asked for cannot be written."""

    code = "output_file"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"{self.path} cannot be written ({self.cause}): choose another --out"


def export_task(
    store: Database, task_id: str, out: Path, *, audit_rows: Callable[[], Sequence[str]] = tuple, now_ms: int
) -> TaskExportOutcome:
    """Write one task, its steps, what it spent and its audit rows, as they stand, to ``out``.

    audit_rows: asked if there is the task.

    Raises:
        OutputFileError: it cannot be written; what was there is left as it was.
    """
    out = file_at(out)
    with store.snapshot():
        task = read.task_view(store.conn, task_id, store.payloads.text)
        workflow = read.workflow_detail(store.conn, task_id)
        spending = spending_of_task(store.conn, task_id)
    if task is None or workflow is None:
        return TaskExportOutcome(task_id=task_id, exported=False, step_count=0, audit_events=0, output="task not found")
    instant = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    events = list(audit_rows())
    document = {
        "task": msgspec.to_builtins(task),
        "workflow": msgspec.to_builtins(workflow),
        "spending": spending,
        "audit_events": events,
        "exported_at": instant,
    }
    write_whole(out, [json.dumps(document, ensure_ascii=False, indent=2), "\n"])
    return TaskExportOutcome(
        task_id=task_id,
        exported=True,
        step_count=len(workflow.steps),
        audit_events=len(events),
        output=str(out),
    )


def export_dead(store: Database, out: Path, limit: int) -> DeadExportOutcome:
    """Write the dead-lettered steps, oldest message first, as a JSON array.

    Raises:
        OutputFileError: it cannot be written; what was there is left as it was.
    """
    out = file_at(out)
    with store.reading():
        rows = store.conn.execute(
            "SELECT m.msg_id, m.task_id, m.step_id, m.to_agent, m.priority, m.created_at_ms, m.meta_path, s.last_error"
            " FROM steps s JOIN messages m ON m.step_id=s.step_id"
            " WHERE s.status='DEAD_LETTER' AND m.state='DEAD' ORDER BY m.created_at_ms, m.msg_id LIMIT ?",
            (limit,),
        ).fetchall()
    names = ("msgId", "taskId", "stepId", "toAgent", "priority", "createdAtMs", "metaPath", "lastError")
    letters = [dict(zip(names, row, strict=True)) for row in rows]
    write_whole(out, [json.dumps(letters, ensure_ascii=False, indent=2), "\n"])
    return DeadExportOutcome(exported=len(letters), output_path=str(out))


def write_whole(out: Path, pieces: Iterable[str]) -> None:
    """Write a file aside and rename it.

    Raises:
        OutputFileError: it cannot be written; what was there is left as it was.
    """
    aside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, out)
    except (OSError, ValueError) as error:  # a ValueError is a path that no file can have
        raise OutputFileError(str(out), getattr(error, "strerror", None) or str(error)) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            aside.unlink()


def file_at(out: Path) -> Path:
    """Return the absolute path of the file that is to be written.

    What is written aside and renamed takes the place of what was there: of a link, so that is followed, and of a
    device or a pipe too where the user may. Root loses /dev/full that way.

    Raises:
        OutputFileError: something is there that is no file, or one that a data root lives from.
    """
    # Those of os.path, for they answer no where a Path raises: for a name that is too long, for example.
    path = Path(os.path.realpath(out)) if os.path.islink(out) else out.absolute()
    if os.path.isdir(path):
        raise OutputFileError(str(path), "it is a folder")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OutputFileError(str(path), "it is a device or a pipe, and an export would take its place")
    if (root := root_of_own_file(path)) is not None:
        raise OutputFileError(str(path), f"it is a place of the data root {root} itself")
    return path
