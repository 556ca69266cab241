"""The texts of a root: in a row, in a file when they are too long for one, and encrypted when the settings say so.

    text ≤ 64 KiB ──▶ in the row          longer ──▶ payload/<2 hex>/<BLAKE2b-256 hex>, named in the row

A file is complete and on disk before the row that names it is committed: written aside, synced, renamed, folder synced.
Two rows with one text share one file. A crash in between leaves a file that nothing names.

An encrypted text (relaymesh.store.seal) is told by what no text can be: a BLOB in the row, or a file that the row names
with the ending ``.sealed``. Both are written by this module alone, so no text is ever taken for a ciphertext.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from relaymesh.core.limit import SPILL_BYTES
from relaymesh.errors import StoreError
from relaymesh.store.error import StoreFullError, StoreIOError

if TYPE_CHECKING:
    from relaymesh.store.seal import Seal

__all__ = [
    "NO_SPACE",
    "SEALED",
    "PayloadFiles",
    "PayloadMissingError",
    "ReadText",
    "Stored",
    "is_sealed",
    "log_place",
    "payload_name",
]

SEALED = ".sealed"
"""How the name of a file ends whose content is encrypted."""

NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class PayloadMissingError(StoreError):
    """A row names a payload file that is gone or was changed."""

    code = "payload_missing"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the payload file {self.name} is missing or damaged: restore it from a snapshot, or cancel the task"


class Stored(NamedTuple):
    """How a text is kept: as text or sealed bytes in the row, or in a file; exactly one of them."""

    text: str | None
    sealed: bytes | None
    path: str | None

    @property
    def value(self) -> str | bytes | None:
        """What the column of the row takes."""
        return self.text if self.sealed is None else self.sealed


class ReadText(Protocol):
    """Returns the text of a place, from what its row says: see ``PayloadFiles.text``."""

    def __call__(self, kind: str, owner: str, value: str | bytes | None, path: str | None) -> str | None: ...


class PayloadFiles:
    """The texts of one root. conn: of its database; without one no text can be encrypted for the first time."""

    def __init__(self, root: Path, conn: sqlite3.Connection | None = None) -> None:
        self._root = root
        self._conn = conn

    @cached_property
    def seal(self) -> Seal:
        """What encrypts and decrypts; most commands only read, of a root that encrypts nothing, and do not load it."""
        from relaymesh.store.seal import Seal

        return Seal(self._root, self._conn)

    def keep(self, kind: str, owner: str, text: str) -> Stored:
        """Write a text to its file if it is too long for a row, and encrypt it if the settings say so.

        kind, owner: the place that it belongs to; it can be read from there only, if it is encrypted.

        Raises:
            StoreFullError, StoreIOError: the disk refused.
            SealError: the keyring cannot be used.
        """
        if not self.seal.on():
            path = self.spill(text)
            return Stored(None if path else text, None, path)
        return self.keep_sealed(kind, owner, text)

    def keep_sealed(self, kind: str, owner: str, text: str) -> Stored:
        """The same, encrypted whatever the settings say."""
        return self._kept(self.seal.seal(kind, owner, text))

    def keep_result(self, kind: str, owner: str, text: str) -> Stored:
        """The same for what was worked out already: see ``Seal.seal_result``."""
        return self._kept(self.seal.seal_result(kind, owner, text))

    def _kept(self, data: bytes) -> Stored:
        if len(data) <= SPILL_BYTES:
            return Stored(None, data, None)
        return Stored(None, None, self._write(data, SEALED))

    def in_row(self, kind: str, owner: str, text: str) -> str | bytes:
        """Return what a column takes that has no file beside it: the text, encrypted if the settings say so.

        Raises:
            SealError: the keyring cannot be used.
        """
        return self.seal.seal(kind, owner, text) if self.seal.on() else text

    def result_in_row(self, kind: str, owner: str, text: str) -> str | bytes:
        """The same for what was worked out already: see ``Seal.seal_result``."""
        return self.seal.seal_result(kind, owner, text) if self.seal.on() else text

    def text(self, kind: str, owner: str, value: str | bytes | None, path: str | None) -> str | None:
        """Return the text of a place. value, path: the two columns of its row.

        Raises:
            PayloadMissingError: the file is not there, or its content is not what its name says.
            SealError: it is encrypted and cannot be opened.
        """
        if path:
            data = self._read(path)
            if path.endswith(SEALED):
                return self.seal.open(kind, owner, data)
            return data.decode("utf-8", "surrogatepass")
        if isinstance(value, bytes):
            return self.seal.open(kind, owner, value)
        return value

    def spill(self, text: str) -> str | None:
        """Write ``text`` to its file if it is too long for a row; return the file's name relative to the root.

        Raises:
            StoreFullError, StoreIOError: the disk refused.
        """
        if len(text) * 4 <= SPILL_BYTES:
            return None
        data = text.encode("utf-8", "surrogatepass")
        if len(data) <= SPILL_BYTES:
            return None
        return self._write(data, "")

    def kid_of_file(self, name: str) -> str:
        """Return the key that a file is encrypted with, ``?`` when that cannot be found out."""
        from relaymesh.wire.sealed import KID_BYTES_MAX, kid_of

        path = payload_name(name)
        if path is None:
            return "?"
        try:
            with open(self._root / path, "rb") as file:
                return kid_of(file.read(2 + KID_BYTES_MAX)) or "?"
        except OSError:
            return "?"

    def _write(self, data: bytes, ending: str) -> str:
        from relaymesh.store.durable import sync_folder  # most commands meet no such file

        digest = _digest(data)
        name = f"payload/{digest[:2]}/{digest}{ending}"
        target = self._root / name
        try:
            if not _claim_again(target, data):
                _write_durably(target, data)
            # Also when file and folder were there: whoever made them may not have come to this yet.
            sync_folder(target.parent)
            sync_folder(target.parent.parent)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise StoreFullError from error
            raise StoreIOError(type(error).__name__) from error
        return name

    def read(self, name: str) -> str:
        """Return the text of a file that ``spill`` named.

        Raises:
            PayloadMissingError: it is not there, or its content is not what its name says.
        """
        return self._read(name).decode("utf-8", "surrogatepass")

    def _read(self, name: str) -> bytes:
        path = payload_name(name)
        if path is None:
            raise PayloadMissingError(name[:120])
        digest = path.rsplit("/", 1)[-1].removesuffix(SEALED)
        try:
            data = (self._root / path).read_bytes()
        except OSError as error:
            raise PayloadMissingError(name) from error
        if _digest(data) != digest:
            raise PayloadMissingError(name)
        return data


def is_sealed(kept: Stored) -> bool:
    """Return whether this text is kept encrypted."""
    return kept.sealed is not None or (kept.path or "").endswith(SEALED)


def log_place(step_id: str, lease_epoch: int, line: int) -> str:
    """Return the owner of one line of an attempt's log."""
    return f"{step_id}/{lease_epoch}/{line}"


def payload_name(name: str | None) -> str | None:
    """Return the file that a row means, as a path below the root; None for what cannot be one.

    The name comes from a row that anybody may have written: it must not lead anywhere else.
    """
    file = (name or "").rsplit("/", 1)[-1]
    digest = file.removesuffix(SEALED)
    if len(digest) != 64 or any(c not in "0123456789abcdef" for c in digest):
        return None
    return f"payload/{digest[:2]}/{file}"


def _holds(target: Path, data: bytes) -> bool:
    try:
        return target.stat().st_size == len(data) and target.read_bytes() == data
    except FileNotFoundError:
        return False


def _claim_again(target: Path, data: bytes) -> bool:
    """Return whether the file is there, marked as in use now: who deletes unused files spares it for its age.

    A deleter moves the file away, looks at its age, and brings it back when it is young (relaymesh.store.sweep): so
    it either sees our mark, or we find no file to mark.
    """
    if not _holds(target, data):
        return False
    try:
        os.utime(target)
    except FileNotFoundError:
        return False
    return True


def _write_durably(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Other threads and processes may be writing the same text.
    aside = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _digest(data: bytes) -> str:
    import hashlib  # most commands meet no such file

    return hashlib.blake2b(data, digest_size=32).hexdigest()
