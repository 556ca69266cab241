"""Texts that are too long for a row: content-addressed files under the root.

    text ≤ 64 KiB ──▶ in the row          longer ──▶ payload/<2 hex>/<BLAKE2b-256 hex>, named in the row

A file is complete and on disk before the row that names it is committed: written aside, synced, renamed, folder synced.
Two rows with one text share one file. A crash in between leaves a file that nothing names.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

from relaymesh.core.limit import SPILL_BYTES
from relaymesh.errors import StoreError
from relaymesh.store.error import StoreFullError, StoreIOError

__all__ = ["NO_SPACE", "PayloadFiles", "PayloadMissingError", "payload_name"]

NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class PayloadMissingError(StoreError):
    """A row names a payload file that is gone or was changed."""

    code = "payload_missing"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the payload file {self.name} is missing or damaged: restore it from a snapshot, or cancel the task"


class PayloadFiles:
    """The payload files of one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

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
        digest = _digest(data)
        name = f"payload/{digest[:2]}/{digest}"
        target = self._root / name
        try:
            if not _claim_again(target, data):
                _write_durably(target, data)
            # Also when file and folder were there: whoever made them may not have come to this yet.
            _sync_folder(target.parent)
            _sync_folder(target.parent.parent)
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
        path = payload_name(name)
        if path is None:
            raise PayloadMissingError(name[:120])
        digest = path.rsplit("/", 1)[-1]
        try:
            data = (self._root / path).read_bytes()
        except OSError as error:
            raise PayloadMissingError(name) from error
        if _digest(data) != digest:
            raise PayloadMissingError(name)
        return data.decode("utf-8", "surrogatepass")


def payload_name(name: str | None) -> str | None:
    """Return the file that a row means, as a path below the root; None for what cannot be one.

    The name comes from a row that anybody may have written: it must not lead anywhere else.
    """
    digest = (name or "").rsplit("/", 1)[-1]
    if len(digest) != 64 or any(c not in "0123456789abcdef" for c in digest):
        return None
    return f"payload/{digest[:2]}/{digest}"


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


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # Windows cannot open a folder; its rename is durable with the file's own flush
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(data: bytes) -> str:
    import hashlib  # most commands meet no such file

    return hashlib.blake2b(data, digest_size=32).hexdigest()
