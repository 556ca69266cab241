"""Copy a root while nodes work on it.

    database   one image of one moment: a read transaction is held while its pages are copied in bounded steps
    payload    the files that rows of this image name; who deletes payload files leaves them alone meanwhile
    the rest   agents, settings, keys, audit, message folders: file by file, each as it is when it is read
    manifest   sizes, SHA-256 hashes, modes, schema, epochs

    <out>/.snapshot/new/…  ──(complete and synced, then two renames)──▶  <out>/relaymesh-root, <out>/manifest.json

In WAL mode a reader keeps no writer waiting. What the open read transaction costs is that the log cannot be reused
before it ends: it grows by what is written meanwhile. A copy that a crash left half done is finished or dropped by the
next look at the folder, and is never taken for a snapshot.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from relaymesh import __version__
from relaymesh.audit import AuditTrail
from relaymesh.errors import InputError
from relaymesh.file_lock import Hold, holding
from relaymesh.outcome import SnapshotExportOutcome
from relaymesh.plain_file import open_plain
from relaymesh.store.admin import cluster_epoch
from relaymesh.store.database import Database
from relaymesh.store.durable import hash_file, remove_tree, sync_folder, sync_tree, write_file
from relaymesh.store.error import RootCorruptError, StoreFullError, translate
from relaymesh.store.migration import schema_number
from relaymesh.store.output_place import root_of_own_file
from relaymesh.store.payload import NO_SPACE, payload_name
from relaymesh.store.root import DATABASE
from relaymesh.store.snapshot_file import copy_audit, copy_one, copy_others
from relaymesh.store.swap import Swap, begin, finish
from relaymesh.wire.manifest import Manifest, SnapshotFile, encode_manifest

__all__ = [
    "COPY",
    "MANIFEST",
    "PAYLOAD_GUARD",
    "Image",
    "SnapshotBusyError",
    "SnapshotOutputError",
    "SnapshotPlaceError",
    "export_snapshot",
    "is_within",
    "settle",
]

COPY = "relaymesh-root"
MANIFEST = "manifest.json"
PAYLOAD_GUARD = "payload.guard"
STEP_PAGES: Final = 512
"""Pages that are copied between two pauses: 2 MiB."""
_WORK = ".snapshot"
_BEGINNING_BYTES = 4_096
_WAIT_S = 30.0


class SnapshotPlaceError(InputError):
    """The folder of a snapshot lies where it cannot."""

    code = "snapshot_place"

    def __init__(self, path: str, root: str) -> None:
        super().__init__(path, root)
        self.path, self.root = path, root

    def __str__(self) -> str:
        return f"{self.path} and the data root {self.root} lie within one another: choose a folder outside of it"


class SnapshotOutputError(InputError):
    """The snapshot cannot be written."""

    code = "snapshot_output"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the snapshot cannot be written at {self.path} ({self.cause}): mend that or choose another --out"


class SnapshotBusyError(InputError):
    """Somebody else is at work on the same folder."""

    code = "snapshot_busy"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"another process is at work on {self.path}: wait until it has ended and try again"


def export_snapshot(database: Database, out: Path, *, now_ms: int) -> SnapshotExportOutcome:
    """Copy the root of an open database to ``out``; an older snapshot there is replaced at once.

    Raises:
        SnapshotPlaceError: ``out`` is inside the root or another one, or the root inside the copy.
        SnapshotBusyError: another export writes there.
        SnapshotOutputError, StoreFullError: it cannot be written; an older snapshot is left as it was, and so is what
            is none and has one of the two names.
        StoreError, RootError: the database cannot be read.
    """
    root, out = database.root, out.absolute()
    if is_within(out, root) or is_within(root, out / COPY):
        raise SnapshotPlaceError(str(out), str(root))
    if (owner := root_of_own_file(out / COPY)) is not None:
        raise SnapshotPlaceError(str(out), str(owner))
    if not (out / _WORK).is_dir():  # else an export that was killed may have left it between two states
        _refuse_foreign(out)
    try:
        with _working_in(out) as work:
            _refuse_foreign(out)
            manifest = _copy(database, out, work / "new", now_ms)
            leaving = tuple(name for name in (COPY, MANIFEST) if os.path.lexists(out / name))
            begin(work, Swap(leaving=leaving, arriving=(COPY, MANIFEST), aside=f"{_WORK}/old"))
            finish(out, work)
    except RootCorruptError as error:  # found in the copy, but the damage is where it was copied from
        raise RootCorruptError(str(database.path), error.cause) from error
    except sqlite3.Error as error:
        told = translate(error, str(out / COPY / DATABASE))
        if isinstance(told, RootCorruptError):
            told = RootCorruptError(str(database.path), told.cause)
        raise told from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in NO_SPACE:
            raise StoreFullError from error
        raise SnapshotOutputError(str(out), getattr(error, "strerror", None) or str(error)) from error
    AuditTrail(root, database.namespace).record(
        "snapshot.export",
        actor="cli",
        resource="runtime/snapshot",
        result="ok",
        details={"output": str(out), "files": manifest.file_count, "bytes": manifest.bytes},
    )
    return SnapshotExportOutcome(
        output_dir=str(out),
        snapshot_root=str(out / COPY),
        file_count=manifest.file_count,
        total_bytes=manifest.bytes,
        created_at_ms=manifest.created_at_ms,
    )


def _refuse_foreign(out: Path) -> None:
    """Leave alone what has the names of a snapshot and is none: many a program keeps a ``manifest.json``."""
    copy, manifest = out / COPY, out / MANIFEST
    is_copy = os.path.lexists(copy / DATABASE)
    if os.path.lexists(copy) and not is_copy and not _is_ours(manifest):
        raise SnapshotOutputError(str(out), f"the {COPY} there is no snapshot")
    if os.path.lexists(manifest) and not is_copy and not _is_ours(manifest):
        raise SnapshotOutputError(str(out), f"the {MANIFEST} there is of something else")


def _is_ours(manifest: Path) -> bool:
    """Whether a manifest was written by an export, however damaged it is by now."""
    try:
        with open_plain(manifest) as file:
            return b'"relaymesh.snapshot.' in file.read(_BEGINNING_BYTES)
    except OSError:
        return False


def settle(out: Path) -> None:
    """Finish what an export that crashed had decided. Raises OSError, SnapshotBusyError."""
    if (out / _WORK).is_dir():
        with _working_in(out):
            pass


def is_within(path: Path, root: Path) -> bool:
    """Return whether a folder of a snapshot is part of a root; ``dr/`` below it is there for snapshots."""
    path, root = Path(os.path.realpath(path)), Path(os.path.realpath(root))
    return path.is_relative_to(root) and not path.is_relative_to(root / "dr")


@contextmanager
def _working_in(out: Path) -> Iterator[Path]:
    """Yield the empty work folder of ``out``, which nobody else uses meanwhile."""
    work = out / _WORK
    with holding(out / f"{_WORK}.guard", Hold.EXCLUSIVE) as ours:
        if not ours:
            raise SnapshotBusyError(str(out))
        finish(out, work)
        remove_tree(work)
        try:
            yield work
        finally:
            if not (work / "journal.json").exists():
                remove_tree(work)


def _copy(database: Database, out: Path, new: Path, now_ms: int) -> Manifest:
    """Write copy and manifest below ``new``, synced."""
    root, copy = database.root, new / COPY
    copy.mkdir(parents=True)
    copy.chmod(0o700)
    files: list[SnapshotFile] = []
    # Shared, and before the image: whoever deletes payload files after the rows that named them waits for our end.
    with holding(root / "run" / PAYLOAD_GUARD, Hold.SHARED, wait_s=_WAIT_S) as ours:
        if not ours:
            raise SnapshotBusyError(str(root))
        image = _copy_database(database, copy / DATABASE)
        found = hash_file(copy / DATABASE)
        mode = stat.S_IMODE(database.path.stat().st_mode) & 0o777
        (copy / DATABASE).chmod(mode)
        files.append(SnapshotFile(path=DATABASE, bytes=found.length, sha256=found.sha256, mode=mode))
        missing = []
        for name in sorted(image.payloads):
            file = copy_one(root, name, copy)
            if file is None:
                missing.append(name)
            else:
                files.append(file)
        # With the guard held, and after the image: until then nobody removes a payload key that its texts need.
        files += copy_others(root, copy)
    files += copy_audit(root, copy)
    manifest = Manifest(
        created_at=datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        source_root=str(root),
        snapshot_root=str(out / COPY),
        file_count=len(files),
        bytes=sum(file.bytes for file in files),
        created_at_ms=now_ms,
        namespace=database.namespace,
        database_schema=image.schema,
        cluster_epoch=image.cluster_epoch,
        lease_epoch_max=image.lease_epoch_max,
        release=__version__,
        missing_payloads=tuple(missing),
        files=tuple(files),
    )
    sync_tree(copy)
    write_file(new / MANIFEST, encode_manifest(manifest))
    sync_folder(new.parent)
    return manifest


class Image:
    """What the image of a database says about itself. payloads: the files that its rows name."""

    def __init__(self, path: Path) -> None:
        conn = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            self.schema = schema_number(conn)
            self.cluster_epoch = cluster_epoch(conn)
            self.lease_epoch_max, self.payloads = 0, set[str]()
            for epoch, payload, result in conn.execute("SELECT lease_epoch, payload_path, result_path FROM steps"):
                self.lease_epoch_max = max(self.lease_epoch_max, epoch)
                self.payloads.update(name for name in (payload_name(payload), payload_name(result)) if name)
        finally:
            conn.close()


def _copy_database(database: Database, target: Path) -> Image:
    target.touch(0o600)
    image = sqlite3.connect(target, isolation_level=None)
    try:
        with database.snapshot():
            # The first read fixes the moment: commits of others neither change nor restart the copy from here on.
            database.conn.execute("SELECT 1 FROM cluster_state LIMIT 1").fetchone()
            database.conn.backup(image, pages=STEP_PAGES, progress=_breathe)
        # One file, and no log beside it that could be lost.
        image.execute("PRAGMA journal_mode=DELETE").fetchone()
        # A copy of a damaged database must not take the place of an older one that is whole.
        (answer,) = image.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise RootCorruptError(str(target), str(answer).splitlines()[-1])
    finally:
        image.close()
    with open(target, "rb+") as file:
        os.fsync(file.fileno())
    return Image(target)


def _breathe(_status: int, left: int, _total: int) -> None:
    if left:
        time.sleep(0.001)  # the disk and the interpreter are for the nodes first
