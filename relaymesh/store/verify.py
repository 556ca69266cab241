"""Prove that a snapshot is whole, without changing it.

manifest   its own hash, its sums, no path that leads out of the folder
files      each one there, with the length and SHA-256 of the manifest, and nothing else beside them
database   the schema is one of ours, ``integrity_check``, foreign keys, epochs as the manifest says
payloads   each file that a row names is there, unless the manifest says that it was missing at the export
keyring    it holds the keys that texts are encrypted with
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from relaymesh.errors import InputError
from relaymesh.outcome import SnapshotVerifyOutcome
from relaymesh.plain_file import open_plain
from relaymesh.store.durable import copy_file, hash_file, sync_tree
from relaymesh.store.error import KeyringError, SchemaTooNewError, StoreFullError
from relaymesh.store.keyring import load_keyring
from relaymesh.store.root import DATABASE
from relaymesh.store.schema import SCHEMA_VERSION
from relaymesh.store.seal import KEYRING, PayloadKeyringWrongError, check_keyring, has_sealed
from relaymesh.store.snapshot import COPY, MANIFEST, Image, settle
from relaymesh.wire.manifest import MANIFEST_BYTES_MAX, Manifest, decode_manifest

__all__ = [
    "PROBLEMS_MAX",
    "SnapshotDamagedError",
    "SnapshotMissingError",
    "open_image",
    "read_manifest",
    "stage",
    "verify_snapshot",
]

PROBLEMS_MAX: Final = 100
"""Problems that are told one by one; the others are counted."""
_SPARE_BYTES = 64 * 1024 * 1024


class SnapshotMissingError(InputError):
    """There is no snapshot in the folder."""

    code = "snapshot_missing"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is no snapshot in {self.path}: name the folder that snapshot-export was given as --out"


class SnapshotDamagedError(InputError):
    """A snapshot is not what its manifest says."""

    code = "snapshot_damaged"

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"the snapshot in {self.path} is damaged ({self.problem}): use another one; nothing was changed"


def read_manifest(source: Path) -> Manifest:
    """Return the manifest of a snapshot.

    Raises:
        SnapshotMissingError: there is no folder, or none with a snapshot.
        SnapshotDamagedError: the manifest, or the folder of the copy, is not as it was written.
        SchemaTooNewError: a later release wrote it.
    """
    try:
        settle(source)
        with open_plain(source / MANIFEST) as file:
            data = file.read(MANIFEST_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        if (source / COPY).is_dir():
            raise SnapshotDamagedError(str(source), f"{MANIFEST} is missing") from error
        raise SnapshotMissingError(str(source)) from error
    except OSError as error:
        raise SnapshotDamagedError(str(source), error.strerror or type(error).__name__) from error
    try:
        manifest = decode_manifest(data)
    except ValueError as error:
        raise SnapshotDamagedError(str(source), f"{MANIFEST}: {error}") from error
    if manifest.database_schema > SCHEMA_VERSION:
        raise SchemaTooNewError(str(source), manifest.database_schema, SCHEMA_VERSION)
    if not (source / COPY).is_dir():
        raise SnapshotDamagedError(str(source), f"{COPY} is missing")
    return manifest


def verify_snapshot(source: Path) -> SnapshotVerifyOutcome:
    """Check everything about a snapshot.

    Raises:
        SnapshotMissingError, SchemaTooNewError: there is nothing that this release could check.
    """
    source = source.absolute()
    try:
        manifest = read_manifest(source)
    except SnapshotDamagedError as error:
        return SnapshotVerifyOutcome(
            input_dir=str(source),
            ok=False,
            file_count=0,
            total_bytes=0,
            database_schema=0,
            cluster_epoch=0,
            created_at_ms=0,
            missing_payloads=0,
            problem_count=1,
            problems=(error.problem,),
        )
    count, shown = 0, []
    for problem in _problems(source / COPY, manifest):
        count += 1
        if count <= PROBLEMS_MAX:
            shown.append(problem)
    return SnapshotVerifyOutcome(
        input_dir=str(source),
        ok=count == 0,
        file_count=manifest.file_count,
        total_bytes=manifest.bytes,
        database_schema=manifest.database_schema,
        cluster_epoch=manifest.cluster_epoch,
        created_at_ms=manifest.created_at_ms,
        missing_payloads=len(manifest.missing_payloads),
        problem_count=count,
        problems=tuple(shown),
    )


def stage(copy: Path, new: Path, manifest: Manifest, source: Path) -> None:
    """Copy a snapshot to ``new``, which is not there yet, and prove the copy; synced when this returns.

    Raises:
        SnapshotDamagedError: the snapshot is damaged; ``new`` is to be dropped.
        StoreFullError: the disk has no room for it.
        OSError: it refused.
    """
    if shutil.disk_usage(new.parent).free < manifest.bytes + _SPARE_BYTES:
        raise StoreFullError
    new.mkdir(mode=0o700)
    for file in manifest.files:
        target = new / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (copy / file.path).is_symlink():
            raise SnapshotDamagedError(str(source), f"{file.path} is a link")
        try:
            done = copy_file(copy / file.path, target, mode=file.mode & 0o777)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise SnapshotDamagedError(str(source), f"{file.path} is missing") from error
        if done != (file.bytes, file.sha256):
            raise SnapshotDamagedError(str(source), f"{file.path} was changed")
    for problem in islice((*_strangers(copy, manifest), *_database_problems(new / DATABASE, manifest)), 1):
        raise SnapshotDamagedError(str(source), problem)
    for folder, folders, _ in os.walk(new):
        for name in folders:
            # Private folders stay private: what the files in them may be read by is their own mode.
            (Path(folder) / name).chmod(0o700 if name == "security" else 0o755)
    sync_tree(new)


def open_image(path: Path) -> sqlite3.Connection:
    """Open a database that nobody writes, without leaving a trace beside it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)


def _problems(copy: Path, manifest: Manifest) -> Iterator[str]:
    whole = True
    for file in manifest.files:
        path = copy / file.path
        if path.is_symlink() or not path.is_file():
            whole = whole and file.path != DATABASE
            yield f"{file.path} is missing"
            continue
        try:
            found = hash_file(path)
        except OSError as error:
            yield f"{file.path} cannot be read ({error.strerror})"
            continue
        if found != (file.bytes, file.sha256):
            whole = whole and file.path != DATABASE
            yield f"{file.path} was changed"
        elif os.name != "nt" and file.mode & 0o077 == 0 and path.stat().st_mode & 0o077:
            yield f"{file.path} is private and can be read by others"
    yield from _strangers(copy, manifest)
    if whole:
        yield from _database_problems(copy / DATABASE, manifest)


def _strangers(copy: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what lies in the copy and is not in the manifest."""
    known = {file.path for file in manifest.files}
    for folder, folders, names in os.walk(copy):
        below = Path(folder).relative_to(copy)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted((*names, *links)):
            path = (below / name).as_posix()
            if path not in known:
                yield f"{path} does not belong to it"


def _database_problems(path: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with a database whose bytes are those of the manifest."""
    if DATABASE not in {file.path for file in manifest.files}:
        yield f"{DATABASE} is missing"
        return
    try:
        conn = open_image(path)
        try:
            for (answer,) in conn.execute("PRAGMA integrity_check(10)"):
                if answer != "ok":
                    yield f"{DATABASE}: {answer}"
            for table, *_ in islice(conn.execute("PRAGMA foreign_key_check"), 10):
                yield f"{DATABASE}: a row of {table} has no parent"
            yield from _keyring_problems(conn, path.parent)
        finally:
            conn.close()
        image = Image(path)
    except (sqlite3.Error, TypeError) as error:  # a TypeError is a row that is not there
        yield f"{DATABASE} cannot be read ({error})"
        return
    said = (manifest.database_schema, manifest.cluster_epoch, manifest.lease_epoch_max)
    if (image.schema, image.cluster_epoch, image.lease_epoch_max) != said:
        yield f"{DATABASE} has other epochs or another schema than the manifest says"
    there = {file.path for file in manifest.files} | set(manifest.missing_payloads)
    for name in sorted(image.payloads - there):
        yield f"{name} is named by a step and missing"


def _keyring_problems(conn: sqlite3.Connection, copy: Path) -> Iterator[str]:
    """Yield why the encrypted texts of a copy could not be read: its keyring has to open them."""
    try:
        ring = load_keyring(copy)
        if ring is not None:
            check_keyring(conn, ring, KEYRING)
        elif has_sealed(conn):
            yield f"{KEYRING} is missing, and texts are encrypted"
    except PayloadKeyringWrongError as error:
        yield f"{KEYRING} does not hold the key {error.kid} that texts are encrypted with"
    except KeyringError:
        yield f"{KEYRING} cannot be used"
