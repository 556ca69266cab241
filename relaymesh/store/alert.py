"""Alerts of a root: their state, which all its nodes share, and the log of what became of them.

The state is one row of ``cluster_state``, written only over the version that was read: of several nodes that look at
the same moment one decides, and the others learn of it at their next look. Who decided appends to the log, JSON lines,
rotated at 1 MiB, five old files kept. A process that dies between the two leaves the state without its line.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from relaymesh.core.alert import Change, State
from relaymesh.store.counter import SLO_ALERT_FIRED, add_counter

__all__ = ["ALERT_LOG", "Alerts", "append_changes", "load_alerts", "recent_changes", "save_alerts"]

ALERT_LOG = "alerts/alerts.log"
LOG_BYTES_MAX = 1_048_576
LOG_FILES_MAX = 5
_TAIL_BYTES_MAX = 262_144
_KEY = "alerts"


@dataclass(frozen=True, slots=True)
class Alerts:
    """The states of all rules. version: 0 before the first was written."""

    states: Mapping[str, State] = field(default_factory=dict)
    version: int = 0
    written_at_ms: int = 0


_STATES = msgspec.json.Decoder(dict[str, State])  # at import: relaymesh.wire.typed says why


def load_alerts(conn: sqlite3.Connection) -> Alerts:
    """Return the state; what cannot be read, because a later version wrote it, counts as nothing known."""
    row = conn.execute(
        "SELECT state_value, version, updated_at_ms FROM cluster_state WHERE state_key=?", (_KEY,)
    ).fetchone()
    if row is None:
        return Alerts()
    try:
        return Alerts(_STATES.decode(row[0]), row[1], row[2])
    except msgspec.DecodeError:
        return Alerts({}, row[1], row[2])


def encode_states(states: Mapping[str, State]) -> str:
    """Return the text of the row."""
    return msgspec.json.encode(dict(states)).decode()


def save_alerts(conn: sqlite3.Connection, states: str, *, over_version: int, fired: int, now_ms: int) -> bool:
    """Write the state over the version that was read; return False when somebody else was faster.

    fired: alerts that fired, added to the counter of the root.
    """
    changed = conn.execute(
        "INSERT INTO cluster_state(state_key, state_value, version, updated_at_ms) SELECT ?1, ?2, 1, ?3 WHERE ?4=0"
        " ON CONFLICT(state_key) DO NOTHING",
        (_KEY, states, now_ms, over_version),
    ).rowcount
    if not changed and over_version:
        changed = conn.execute(
            "UPDATE cluster_state SET state_value=?, version=version+1, updated_at_ms=?"
            " WHERE state_key=? AND version=?",
            (states, now_ms, _KEY, over_version),
        ).rowcount
    if changed and fired:
        add_counter(conn, SLO_ALERT_FIRED, fired)
    return changed == 1


def append_changes(root: Path, changes: Sequence[Change], *, node_id: str, namespace: str) -> None:
    """Append one line for each change.

    Raises OSError.
    """
    lines = b"".join(
        msgspec.json.encode(
            {
                "timestamp": instant(change.at_ms),
                "namespace": namespace,
                "node_id": node_id,
                "rule": change.rule,
                "event": change.what,
                "severity": change.severity,
                "observed": change.observed,
                "target": change.target,
            }
        )
        + b"\n"
        for change in changes
    )
    path = root / ALERT_LOG
    path.parent.mkdir(exist_ok=True)
    _rotate(path)
    # One write to a file that is open for appending: lines of two nodes do not mix.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
    try:
        os.write(descriptor, lines)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def recent_changes(root: Path, limit: int) -> list[dict[str, object]]:
    """Return the last lines of the log, newest first; reads its end only."""
    try:
        with open(root / ALERT_LOG, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES_MAX))
            lines = file.read(_TAIL_BYTES_MAX).split(b"\n")[1 if size > _TAIL_BYTES_MAX else 0 :]
    except OSError:
        return []
    found: list[dict[str, object]] = []
    for line in reversed(lines):
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=dict[str, object]))
        if len(found) >= limit:
            break
    return found


def instant(at_ms: int) -> str:
    """Return an ISO-8601 instant in UTC with milliseconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rotate(path: Path) -> None:
    with contextlib.suppress(OSError):  # another node has just done it, or reads it on Windows: later, then
        if path.stat().st_size < LOG_BYTES_MAX:
            return
        for number in range(LOG_FILES_MAX - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                os.replace(older, path.with_name(f"{path.name}.{number + 1}"))
        os.replace(path, path.with_name(f"{path.name}.1"))
