"""What one snapshot has other than another: tasks, steps, payload files, settings, other files.

Both databases are read side by side in the order of their ids, so that memory does not grow with them. All differences
are counted; the first of each kind are told.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from relaymesh.outcome import SnapshotChange, SnapshotDiffOutcome
from relaymesh.settings import SETTINGS_FILE
from relaymesh.store.root import DATABASE
from relaymesh.store.snapshot import COPY
from relaymesh.store.verify import SnapshotDamagedError, open_image, read_manifest
from relaymesh.wire.manifest import Manifest, SnapshotFile

__all__ = ["SHOWN_MAX", "diff_snapshots"]

SHOWN_MAX: Final = 50
"""Differences of a kind that are told one by one."""
_TASKS = "SELECT task_id, status, updated_at_ms, coalesce(last_error, '') FROM tasks ORDER BY task_id"
_STEPS = (
    "SELECT step_id, status, attempt, lease_epoch, coalesce(result_path, ''), length(coalesce(result_payload, ''))"
    " FROM steps ORDER BY step_id"
)
_SECRET = ("secret", "password", "token")
Row = tuple[Any, ...]


class _Found:
    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.changes: list[SnapshotChange] = []

    def add(self, kind: str, name: str, before: str | None, after: str | None) -> None:
        change = "added" if before is None else "removed" if after is None else "changed"
        self.counts[kind, change] += 1
        if sum(count for (of, _), count in self.counts.items() if of == kind) <= SHOWN_MAX:
            self.changes.append(SnapshotChange(kind=kind, name=name, change=change, before=before, after=after))

    def count(self, kind: str, change: str) -> int:
        return self.counts[kind, change]


def diff_snapshots(a: Path, b: Path) -> SnapshotDiffOutcome:
    """Compare two snapshots; what B has and A has not is added.

    Trusts the hashes of both: ``verify_snapshot`` proves them.

    Raises:
        SnapshotMissingError, SnapshotDamagedError, SchemaTooNewError
    """
    a, b = a.absolute(), b.absolute()
    ours, theirs = read_manifest(a), read_manifest(b)
    found = _Found()
    _diff_databases(a, b, found)
    _diff_settings(a, b, found)
    _diff_files(ours, theirs, found)
    return SnapshotDiffOutcome(
        a=str(a),
        b=str(b),
        identical=not found.counts,
        tasks_added=found.count("task", "added"),
        tasks_removed=found.count("task", "removed"),
        tasks_changed=found.count("task", "changed"),
        steps_added=found.count("step", "added"),
        steps_removed=found.count("step", "removed"),
        steps_changed=found.count("step", "changed"),
        payloads_added=found.count("payload", "added"),
        payloads_removed=found.count("payload", "removed"),
        payloads_changed=found.count("payload", "changed"),
        settings_changed=sum(found.count("setting", change) for change in ("added", "removed", "changed")),
        files_added=found.count("file", "added"),
        files_removed=found.count("file", "removed"),
        files_changed=found.count("file", "changed"),
        changes=tuple(found.changes),
    )


def _diff_databases(a: Path, b: Path, found: _Found) -> None:
    try:
        with _image(a) as ours, _image(b) as theirs:
            for kind, query in (("task", _TASKS), ("step", _STEPS)):
                for before, after in _side_by_side(ours.execute(query), theirs.execute(query)):
                    if before != after:
                        name = (before or after or ("",))[0]
                        found.add(kind, name, _text(before), _text(after))
    except sqlite3.Error as error:
        raise SnapshotDamagedError(f"{a} or {b}", f"{DATABASE} cannot be read: {error}") from error


class _image:
    """A context that closes the connection, which sqlite3's own does not."""

    def __init__(self, snapshot: Path) -> None:
        self._conn = open_image(snapshot / COPY / DATABASE)

    def __enter__(self) -> sqlite3.Connection:
        return self._conn

    def __exit__(self, *_: object) -> None:
        self._conn.close()


def _side_by_side(ours: Iterator[Row], theirs: Iterator[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """Pair the rows of two queries, both in the order of their first column, by that column."""
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            yield left, None
            left = next(ours, None)
        elif left is None or right[0] < left[0]:
            yield None, right
            right = next(theirs, None)
        else:
            yield left, right
            left, right = next(ours, None), next(theirs, None)


def _text(row: Row | None) -> str | None:
    """Return what a row says in short: the status, and what may differ behind it."""
    return None if row is None else " ".join(str(value) for value in row[1:] if value not in ("", None))[:200]


def _diff_settings(a: Path, b: Path, found: _Found) -> None:
    ours, theirs = _settings(a), _settings(b)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            found.add("setting", key, _shown(key, ours), _shown(key, theirs))


def _settings(snapshot: Path) -> dict[str, object]:
    try:
        document = json.loads((snapshot / COPY / SETTINGS_FILE).read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _shown(key: str, settings: dict[str, object]) -> str | None:
    if key not in settings:
        return None
    if any(word in key.lower() for word in _SECRET):
        return "(not shown)"
    return json.dumps(settings[key])[:200]


def _diff_files(ours: Manifest, theirs: Manifest, found: _Found) -> None:
    before = {file.path: file for file in ours.files}
    after = {file.path: file for file in theirs.files}
    for path in sorted(before.keys() | after.keys()):
        if path in (DATABASE, SETTINGS_FILE):
            continue  # told row by row and key by key
        left, right = before.get(path), after.get(path)
        if (left and left.sha256) != (right and right.sha256):
            kind = "payload" if path.startswith("payload/") else "file"
            found.add(kind, path, _size(left), _size(right))


def _size(file: SnapshotFile | None) -> str | None:
    return None if file is None else f"{file.bytes} bytes"
