"""What the database can answer instead of a result, and how a raw SQLite error becomes one of these."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from relaymesh.errors import InputError, RootError, StoreError

__all__ = [
    "BadNumberError",
    "BadTextError",
    "DatabaseGoneError",
    "KeyringError",
    "PragmaMismatchError",
    "RootCorruptError",
    "RootMissingError",
    "RootMovedError",
    "RootPathTooLongError",
    "RootReadOnlyError",
    "SchemaTooNewError",
    "SealError",
    "StoreBusyError",
    "StoreDefectError",
    "StoreFullError",
    "StoreIOError",
    "path_too_long",
    "translate",
]


PATH_BYTES_MAX: Final = 504
"""512 of SQLite on POSIX, less what it adds for the names of its log and its journal."""


class SealError(StoreError):
    """An encrypted text, or the keyring, cannot be used; nothing was changed. The base of those errors."""

    code = "payload_sealed"


class KeyringError(SealError):
    """The keyring cannot be used as it is: who puts the right one back can go on. The base of those errors."""

    code = "payload_keys"


class BadNumberError(InputError):
    """A number that does not fit into 64 bits."""

    code = "bad_number"

    def __str__(self) -> str:
        return "a number is too large to be stored or looked for: use one of at most 18 digits"


class BadTextError(InputError):
    """A text that is not Unicode, such as half of a surrogate pair out of an argument's raw bytes."""

    code = "bad_text_value"

    def __str__(self) -> str:
        return "one of the texts given is not valid Unicode: write it as UTF-8; nothing was changed"


class RootMissingError(RootError):
    """There is no data root at the path."""

    code = "root_missing"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        scoped = Path(self.path)
        if scoped.parent.name == "namespaces":  # named by its path, the folder would become a root of another namespace
            options = f"--root {scoped.parent.parent} --namespace {scoped.name}"
        else:
            options = f"--root {self.path}"
        return f"there is no data root at {self.path}: create it with `relaymesh {options} init`"


class DatabaseGoneError(RootError):
    """The root was in use, and its database is gone or empty. A new one would hide that."""

    code = "database_gone"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"the database {self.path} is gone or empty, though the audit log knows of tasks: restore a snapshot with "
            "`relaymesh snapshot-import --in DIR`, or move the whole root away to begin anew"
        )


class RootReadOnlyError(RootError):
    """The root cannot be written."""

    code = "root_read_only"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the data root {self.path} cannot be written ({self.cause}): make it writable or choose another --root"


class RootMovedError(RootError):
    """The database was removed, moved or replaced since it was opened: what we write nobody else would see."""

    code = "root_moved"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"the data root {self.path} was removed, moved or replaced since it was opened: nothing was written;"
            " see what is there now, and try again"
        )


class RootPathTooLongError(RootError):
    """SQLite takes no path as long as that of the database would be. found: its bytes."""

    code = "root_path_too_long"

    def __init__(self, path: str, found: int) -> None:
        super().__init__(path, found)
        self.path, self.found = path, found

    def __str__(self) -> str:
        return (
            f"the path of the database {self.path} has {self.found} bytes, and SQLite takes {PATH_BYTES_MAX} at most: "
            "choose a --root with a shorter path"
        )


class RootCorruptError(RootError):
    """The file is not a database of ours, or it is damaged."""

    code = "root_corrupt"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the database {self.path} cannot be read ({self.cause}): restore it from a snapshot; it was not changed"


class SchemaTooNewError(RootError):
    """A later release wrote this root."""

    code = "schema_too_new"

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(path, found, known)
        self.path, self.found, self.known = path, found, known

    def __str__(self) -> str:
        return (
            f"the data root {self.path} has schema {self.found}, this release knows up to {self.known}: "
            "upgrade RelayMesh; nothing was changed"
        )


class PragmaMismatchError(RootError):
    """SQLite did not take a setting that the guarantees rest on."""

    code = "pragma_mismatch"

    def __init__(self, pragma: str, wanted: str, found: str) -> None:
        super().__init__(pragma, wanted, found)
        self.pragma, self.wanted, self.found = pragma, wanted, found

    def __str__(self) -> str:
        return (
            f"SQLite answers {self.pragma}={self.found} where {self.wanted} is needed: "
            "put the data root on a local file system that supports WAL"
        )


class StoreBusyError(StoreError):
    """Another process held the write lock for too long.

    waited_ms: how long we waited for it, 0 when SQLite waited, or gave up at once, and did not say.
    """

    code = "store_busy"

    def __init__(self, waited_ms: int) -> None:
        super().__init__(waited_ms)
        self.waited_ms = waited_ms

    def __str__(self) -> str:
        held = f"has held the database for {self.waited_ms} ms" if self.waited_ms else "holds the database"
        return f"another process {held} (is one of them stopped?): nothing was stored, try again"


class StoreFullError(StoreError):
    """No space left for the database."""

    code = "store_full"

    def __str__(self) -> str:
        return "the disk that holds the data root is full: nothing was stored, free some space and try again"


class StoreIOError(StoreError):
    """The disk refused a read or a write."""

    code = "store_io"

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"the disk that holds the data root failed ({self.cause}): nothing was stored, check the disk and try again"
        )


class StoreDefectError(StoreError):
    """SQLite refused a statement of ours: a defect of RelayMesh, not of the disk."""

    code = "store_defect"

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return f"the database refused a statement ({self.cause}): this is a defect of RelayMesh, please report it"


def path_too_long(path: str) -> RootPathTooLongError | None:
    """Return our error for the path of a database that SQLite would not take, None for one that it does."""
    if os.name == "nt":  # it has other bounds there, and says so
        return None
    found = len(os.fsencode(os.path.abspath(path)))
    return RootPathTooLongError(path, found) if found > PATH_BYTES_MAX else None


def translate(error: sqlite3.Error, path: str) -> StoreError | RootError:
    """Return our error for one of SQLite's; the sentence never holds SQL parameters."""
    name = getattr(error, "sqlite_errorname", None) or ""
    text = str(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreBusyError(0)
    # The shared memory of the log is a file: on a full disk the first process fails at making it, with an I/O error.
    if name.startswith("SQLITE_FULL") or (name == "SQLITE_IOERR_SHMSIZE" and _is_full(path)):
        return StoreFullError()
    if name.startswith("SQLITE_READONLY"):
        return RootReadOnlyError(path, "read-only")
    if name.startswith("SQLITE_CANTOPEN"):
        found = path_too_long(path)
        if found is not None:
            return found
        return RootReadOnlyError(path, "cannot be opened")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or "malformed" in text or "not a database" in text:
        return RootCorruptError(path, "not a database or damaged")
    if name.startswith(("SQLITE_IOERR", "SQLITE_PROTOCOL", "SQLITE_NOLFS", "SQLITE_NOMEM", "SQLITE_INTERRUPT")):
        return StoreIOError(name)
    return StoreDefectError(f"{name or type(error).__name__}: {text[:200]}")


def _is_full(path: str) -> bool:
    import shutil  # it loads every compression there is, which a command that works need not pay for

    try:
        return shutil.disk_usage(Path(path).parent).free < _SHM_BYTES
    except OSError:
        return False


_SHM_BYTES = 65_536
"""A page of shared memory, and some."""
