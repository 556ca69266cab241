"""One writer at a time, over all processes: a lock on ``audit/audit.lock``, which the system drops when a process ends.

The file also holds the head (``head.py``). How a file is locked: ``relaymesh.file_lock``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from relaymesh.errors import StoreError
from relaymesh.file_lock import lock, unlock

__all__ = ["LOCK_WAIT_S", "AuditBusyError", "locked"]

LOCK_WAIT_S = 5.0
"""How long a writer waits for its turn. A turn takes well under a millisecond; a stopped process may keep it."""


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
            with contextlib.suppress(OSError):
                unlock(descriptor)
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, wait_s: float) -> None:
    if lock(descriptor, shared=False):
        return
    deadline, pause_s = time.monotonic() + wait_s, 0.0002
    while not lock(descriptor, shared=False):
        if time.monotonic() >= deadline:
            raise AuditBusyError(str(path))
        time.sleep(pause_s)
        pause_s = min(0.005, pause_s * 1.5)
