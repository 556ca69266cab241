"""Whether the audit log knows of tasks that the database does not have: then commits were lost with a removed log file.

Looked for in the last ``TAIL_BYTES`` of the present log, among the tasks that neither retention nor a purge can have
removed. SQLite itself cannot tell: without its write-ahead log a database is whole, and as at its last checkpoint.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Final

from relaymesh.core.plural import counted, verb
from relaymesh.wire.audit import instant

__all__ = ["TAIL_BYTES", "lost_commits"]

TAIL_BYTES: Final = 65_536
_SUBMITS: Final = ("task.submit", "workflow.submit")
_REMOVALS: Final = ("storage.purge", "snapshot.import")


def lost_commits(conn: sqlite3.Connection, log: Path, *, newer_than_ms: int) -> str:
    """Return a sentence about tasks that are recorded and not stored, "" when there are none; a read.

    newer_than_ms: tasks that were submitted since then cannot have been removed for their age.
    """
    submitted = _submitted(log, instant(newer_than_ms))
    there = {
        task_id
        for (task_id,) in conn.execute(
            "SELECT task_id FROM tasks WHERE task_id IN (SELECT value FROM json_each(?))", (json.dumps([*submitted]),)
        )
    }
    lost = [task_id for task_id in submitted if task_id not in there]
    if not lost:
        return ""
    return (
        f"{len(lost)} of the last {counted(len(submitted), 'task')} that the audit log knows of"
        f" {verb(len(lost), 'is', 'are')} not in the database, such as {lost[0]} of {submitted[lost[0]]}: its"
        " write-ahead log was removed, or it is an older copy;"
        " `relaymesh audit-query --action task.submit` names what to submit again"
    )


def _submitted(log: Path, since: str) -> dict[str, str]:
    """Return the tasks of the end of the log and their instants, the newest first, back to the last removal."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).split(b"\n")[1 if file.tell() > TAIL_BYTES else 0 :]
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
            action, at = row["action"], row["timestamp"]
            if action in _REMOVALS or at < since:
                break
            if action in _SUBMITS and row["result"] == "submitted":
                found[row["task_id"]] = at
        except (ValueError, KeyError, TypeError):
            continue  # half a line, or one that somebody changed
    return found
