"""Which files of a root go into a snapshot, and each of them copied as it is at one moment.

The audit log is written while it is copied, by whoever does something: its closed segments first, without keeping
anybody waiting; then, with its lock held for a moment, what was closed meanwhile, the open segment and the head.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from relaymesh.audit.lock import AuditBusyError, locked
from relaymesh.audit.place import Place
from relaymesh.store.durable import copy_file
from relaymesh.store.root import DATABASE, IMPORTS, REPLACED
from relaymesh.wire.manifest import SnapshotFile

__all__ = ["NOT_COPIED", "copy_audit", "copy_one", "copy_others"]

NOT_COPIED = frozenset({"namespaces", "dr", "run", "tmp", REPLACED, IMPORTS, "control-room-layouts.json"})
"""Entries of a root that belong to the folder or to this machine, and not to the namespace's data."""
_DATABASE_FILES = frozenset({DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal"})
_APART = frozenset({"payload", "audit"})
"""Folders that are copied in a way of their own."""
# A line may be half written while we read: what follows the last line feed is left to the next export.
_LINES = (".log", ".jsonl")


def copy_audit(root: Path, copy: Path) -> list[SnapshotFile]:
    """Copy the audit trail such that its chain is whole.

    A log that somebody keeps locked for too long is copied without: its reader finds the last whole row.
    """
    done: dict[str, SnapshotFile] = {}
    for name in _below(root / "audit" / "segments", root):
        file = copy_one(root, name, copy)
        if file is not None:
            done[name] = file
    try:
        with locked(Place(root).lock):
            return _copy_end_of_audit(root, copy, done)
    except AuditBusyError:
        return _copy_end_of_audit(root, copy, done)


def _copy_end_of_audit(root: Path, copy: Path, done: dict[str, SnapshotFile]) -> list[SnapshotFile]:
    now = set(_below(root / "audit", root))
    for name in set(done) - now:  # packed or dropped meanwhile
        (copy / name).unlink()
    new = [copy_one(root, name, copy) for name in sorted(now - set(done))]
    return [*(done[name] for name in sorted(now & set(done))), *(file for file in new if file is not None)]


def copy_others(root: Path, copy: Path) -> list[SnapshotFile]:
    """Copy what is neither database, payload nor audit."""
    found = (copy_one(root, name, copy) for name in _other_files(root))
    return [file for file in found if file is not None]


def _other_files(root: Path) -> Iterator[str]:
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name in NOT_COPIED or entry.name in _DATABASE_FILES or entry.name in _APART:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), root)
        else:
            yield entry.name


def _below(top: Path, root: Path) -> Iterator[str]:
    """Yield the files below a folder, as paths below the root. Links are not followed."""
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            if not (name.startswith(".") and name.endswith(".tmp")):  # what somebody is writing aside
                yield (Path(folder) / name).relative_to(root).as_posix()


def copy_one(root: Path, name: str, copy: Path) -> SnapshotFile | None:
    """Copy one file; None for one that is gone by now, or is no plain file."""
    source, target = root / name, copy / name
    try:
        mode = os.lstat(source).st_mode
        if not stat.S_ISREG(mode):
            return None
        length = _whole_lines(source) if name.endswith(_LINES) else None
        target.parent.mkdir(parents=True, exist_ok=True)
        done = copy_file(source, target, mode=stat.S_IMODE(mode) & 0o777, length=length)
    except FileNotFoundError:
        return None
    return SnapshotFile(path=name, bytes=done.length, sha256=done.sha256, mode=stat.S_IMODE(mode) & 0o777)


def _whole_lines(path: Path) -> int:
    """Return up to where the last whole line of a file goes."""
    with open(path, "rb") as file:
        at = file.seek(0, os.SEEK_END)
        while at > 0:
            start = max(0, at - 65_536)
            file.seek(start)
            found = file.read(at - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            at = start
    return 0
