"""One writer at a time, over all processes: a lock on ``audit/audit.lock``, which the system drops when a process ends.

The file also holds the head (``head.py``). The byte that is locked lies far behind it, so that on Windows a lock does
not keep others from reading.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from relaymesh.errors import StoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LOCK_WAIT_S", "AuditBusyError", "locked"]

LOCK_WAIT_S = 5.0
"""How long a writer waits for its turn. A turn takes well under a millisecond; a stopped process may keep it."""
_LOCK_BYTE = 1 << 30


class AuditBusyError(StoreError):
    """Another process has kept the audit log for too long."""

    code = "audit_busy"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"another process keeps {self.path} locked for {LOCK_WAIT_S:g} s: look for a stopped relaymesh process"


@contextlib.contextmanager
def locked(path: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[int]:
    """Hold the lock; gives the file's descriptor. Not reentrant.

    Raises:
        AuditBusyError: it was not to be had in time.
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        _wait(descriptor, path, wait_s)
        try:
            yield descriptor
        finally:
            _unlock(descriptor)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, wait_s: float) -> None:
    if _try_lock(descriptor):
        return
    deadline, pause_s = time.monotonic() + wait_s, 0.0002
    while not _try_lock(descriptor):
        if time.monotonic() >= deadline:
            raise AuditBusyError(str(path))
        time.sleep(pause_s)
        pause_s = min(0.005, pause_s * 1.5)


if sys.platform == "win32":

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCK_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCK_BYTE, os.SEEK_SET)
        with contextlib.suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
