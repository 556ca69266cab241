"""Put a snapshot in the place of a root.

    snapshot ──(copied, each hash checked)──▶ <root>/.import/new      nothing of the root has changed
             ──(integrity, references, epochs)──▶ the same
             ──(nobody has the database open, no node lives)──▶ <root>/.import/journal.json      decided
             ──(renames)──▶ the root; what was there ──▶ <root>/replaced/<instant>, a root of its own

A crash before the journal leaves the root as it was, and a folder that the next import drops. A crash after it is
finished by whoever opens the root next, before he sees anything of it.

The present database must be free: it is taken out of WAL mode, which SQLite does only when nobody else has it open, and
stays locked until the swap has been made. Who waits for that lock finds the file replaced and opens the new one
(relaymesh.store.database). So no commit can be acknowledged that goes into the replaced root.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from relaymesh.audit import AuditTrail
from relaymesh.core.restoration import epoch_after_import
from relaymesh.errors import InputError, RootError
from relaymesh.file_lock import Hold, holding
from relaymesh.outcome import SnapshotImportOutcome
from relaymesh.store import adapt
from relaymesh.store.durable import remove_tree, sync_tree
from relaymesh.store.error import RootReadOnlyError, StoreFullError
from relaymesh.store.payload import NO_SPACE
from relaymesh.store.presence import living_nodes
from relaymesh.store.root import DATABASE, IMPORTS, REPLACED, create_layout
from relaymesh.store.snapshot import COPY, SnapshotPlaceError, is_within
from relaymesh.store.snapshot_file import NOT_COPIED
from relaymesh.store.swap import Swap, begin, finish
from relaymesh.store.verify import read_manifest, stage
from relaymesh.wire.manifest import Manifest

__all__ = ["KEPT_MAX", "RootInUseError", "SnapshotNamespaceError", "finish_import", "import_snapshot"]

KEPT_MAX: Final = 3
"""How many replaced roots are kept; an import drops older ones after it has ended."""
_GUARD = "import.guard"
_WAIT_S = 10.0
_FREE_MS = 2_000
_DATABASE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")


class RootInUseError(RootError):
    """Somebody works on the root that an import is to replace."""

    code = "root_in_use"

    def __init__(self, path: str, user: str) -> None:
        super().__init__(path, user)
        self.path, self.user = path, user

    def __str__(self) -> str:
        return f"the data root {self.path} is in use by {self.user}: stop that and try again; nothing was changed"


class ImportJournalError(RootError):
    """The journal of an import that was killed cannot be read, so nobody can say how far it came."""

    code = "import_journal"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"the journal of an import in {self.path} is damaged: move that folder out of the data root and import the"
            " snapshot again"
        )


class SnapshotNamespaceError(InputError):
    """A snapshot of one namespace is to replace another one, whose rows it would not be."""

    code = "snapshot_namespace"

    def __init__(self, path: str, theirs: str, ours: str) -> None:
        super().__init__(path, theirs, ours)
        self.path, self.theirs, self.ours = path, theirs, ours

    def __str__(self) -> str:
        return (
            f"the snapshot in {self.path} is of the namespace {self.theirs}, and this is {self.ours}: import it with"
            f" --namespace {self.theirs}, into another --root if need be; nothing was changed"
        )


def import_snapshot(root: Path, source: Path, *, namespace: str = "default", now_ms: int) -> SnapshotImportOutcome:
    """Replace what a root holds by a snapshot; what it held is kept below ``replaced/``.

    Raises:
        SnapshotPlaceError, SnapshotDamagedError, SnapshotMissingError: the snapshot cannot be used.
        SnapshotNamespaceError: it is of another namespace.
        SchemaTooNewError: a later release wrote it.
        RootInUseError: a node or another command works on the root.
        ImportJournalError: an earlier import was killed, and nobody can say how far it came.
        StoreFullError, RootReadOnlyError: the disk refused.
    """
    source = source.absolute()
    if is_within(source, root) or is_within(root, source / COPY):
        raise SnapshotPlaceError(str(source), str(root))
    manifest = read_manifest(source)
    if manifest.namespace != namespace:
        raise SnapshotNamespaceError(str(source), manifest.namespace, namespace)
    create_layout(root)
    try:
        with _guarded(root) as work:
            _refuse_nodes(root)
            new = work / "new"
            stage(source / COPY, new, manifest, source)
            with _free_database(root) as present:
                # Now that no other process can open it: a node may have come since.
                _refuse_nodes(root)
                _adapt(new / DATABASE, present, manifest, now_ms=now_ms)
                sync_tree(new)
                note = {"input": str(source), "files": manifest.file_count, "bytes": manifest.bytes}
                begin(work, _plan(root, new, now_ms, {**note, "namespace": namespace}))
                if sys.platform == "win32" and present.conn is not None:
                    present.conn.close()  # an open file cannot be moved there, by others neither
                _finish(root)
            create_layout(root)
            _drop_old(root)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StoreFullError from error
        raise RootReadOnlyError(str(root), error.strerror or type(error).__name__) from error
    return SnapshotImportOutcome(
        input_dir=str(source),
        snapshot_root=str(source / COPY),
        restored_files=manifest.file_count,
        restored_bytes=manifest.bytes,
        restored_at_ms=now_ms,
    )


def finish_import(root: Path) -> None:
    """Finish an import that a crash interrupted, or wait for one that is at work.

    Raises:
        RootInUseError: it is at work for too long.
        RootReadOnlyError: the disk refused.
        ImportJournalError: nobody can say how far the import came.
    """
    try:
        with holding(root / "run" / _GUARD, Hold.EXCLUSIVE, wait_s=_WAIT_S) as ours:
            if not ours:
                raise RootInUseError(str(root), "an import")
            _finish(root)
    except OSError as error:
        raise RootReadOnlyError(str(root), error.strerror or type(error).__name__) from error


def _finish(root: Path) -> None:
    """Finish a swap, if one is pending, and say so in the audit log that came in, which it belongs to."""

    def tell(swap: Swap) -> None:
        create_layout(root)  # a snapshot has no folder in which there was nothing
        note = dict(swap.note)
        AuditTrail(root, str(note.pop("namespace", "default"))).record(
            "snapshot.import", actor="cli", resource="runtime/snapshot", result="ok", details=note
        )

    try:
        finish(root, root / IMPORTS, tell)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImportJournalError(str(root / IMPORTS)) from error


@contextlib.contextmanager
def _guarded(root: Path) -> Iterator[Path]:
    """Yield the empty work folder of the one import into a root."""
    work = root / IMPORTS
    with holding(root / "run" / _GUARD, Hold.EXCLUSIVE) as ours:
        if not ours:
            raise RootInUseError(str(root), "another import")
        _finish(root)
        remove_tree(work)
        work.mkdir(mode=0o700)
        try:
            yield work
        except BaseException:
            if not (work / "journal.json").exists():
                remove_tree(work)
            raise


def _refuse_nodes(root: Path) -> None:
    alive = living_nodes(root / "run")
    if alive:
        raise RootInUseError(str(root), f"the node {alive[0]}" + (f" and {len(alive) - 1} more" if alive[1:] else ""))


class Present:
    """The database that is to be replaced.

    conn: None when there is none, or none that SQLite can open. epoch: 0 when there is none, None when it cannot be
    read.
    """

    def __init__(self, conn: sqlite3.Connection | None, epoch: int | None, version: int = 0) -> None:
        self.conn, self.epoch, self.version = conn, epoch, version


@contextlib.contextmanager
def _free_database(root: Path) -> Iterator[Present]:
    """Yield the present database, which no other process can open meanwhile.

    Raises:
        RootInUseError: another process has it open.
    """
    path = root / DATABASE
    if not path.exists():
        yield Present(None, 0)
        return
    conn = sqlite3.connect(path, isolation_level=None, timeout=_FREE_MS / 1000)
    try:
        yield _taken(root, conn)
    finally:
        conn.close()


def _taken(root: Path, conn: sqlite3.Connection) -> Present:
    try:
        # In this locking mode the first access takes the file for us alone, and a commit does not give it back.
        conn.execute("PRAGMA locking_mode=EXCLUSIVE").fetchone()
        conn.execute("PRAGMA journal_mode=DELETE").fetchone()
        conn.execute("BEGIN EXCLUSIVE")
        conn.execute("COMMIT")
        if conn.execute("PRAGMA journal_mode").fetchone() != ("delete",):
            raise RootInUseError(str(root), "another command")
        row = conn.execute(
            "SELECT CAST(state_value AS INTEGER), version FROM cluster_state WHERE state_key='cluster_epoch'"
        ).fetchone()
        return Present(conn, int(row[0]), int(row[1])) if row else Present(conn, 0)
    except sqlite3.DatabaseError as error:
        if (getattr(error, "sqlite_errorname", None) or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise RootInUseError(str(root), "another command") from error
        # An import is there for what is damaged, too; an empty file is a root that was never filled.
        return Present(None, 0 if (root / DATABASE).stat().st_size == 0 else None)


def _adapt(image: Path, present: Present, manifest: Manifest, *, now_ms: int) -> None:
    """Make the staged database fit for its new place."""
    conn = sqlite3.connect(image, isolation_level=None)
    try:
        conn.execute("PRAGMA synchronous=FULL").fetchone()
        conn.execute("BEGIN IMMEDIATE")
        if present.conn is not None:
            try:
                adapt.raise_epochs(conn, present.conn)
            except sqlite3.DatabaseError:
                present.epoch = None  # damaged further behind
        epoch = epoch_after_import(manifest.cluster_epoch, present.epoch, can_run_again=adapt.runnable(conn))
        adapt.set_cluster_epoch(conn, epoch, version=present.version, now_ms=now_ms)
        adapt.give_back_leases(conn, now_ms=now_ms)
        adapt.relative_paths(conn, manifest.source_root)
        adapt.count_rows(conn)
        conn.execute("COMMIT")
    finally:
        conn.close()


def _plan(root: Path, new: Path, now_ms: int, note: dict[str, object]) -> Swap:
    # The journal is that of our own lock, and empty.
    present = {name for name in os.listdir(root) if name not in NOT_COPIED and name != f"{DATABASE}-journal"}
    instant = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]
    number, aside = 1, f"{REPLACED}/{instant}Z"
    while (root / aside).exists():
        number += 1
        aside = f"{REPLACED}/{instant}Z-{number}"
    # The files of the database first: a log must not meet a database that it does not belong to.
    order = {name: at for at, name in enumerate(reversed(_DATABASE_FILES), -len(_DATABASE_FILES))}
    return Swap(
        leaving=tuple(sorted(present, key=lambda name: (order.get(name, 0), name))),
        arriving=tuple(sorted(os.listdir(new))),
        aside=aside,
        note=note,
    )


def _drop_old(root: Path) -> None:
    """Drop all but the newest replaced roots; their names sort by age."""
    for folder in sorted((root / REPLACED).iterdir())[:-KEPT_MAX]:
        remove_tree(folder)
