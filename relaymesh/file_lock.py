"""Locks on files that the operating system drops when their holder ends, however it ends.

node lock      run/<node>.lock            one live node (relaymesh.store.presence)
audit lock     audit/audit.lock           one writer of the audit log at a time (relaymesh.audit.lock)
import lock    run/import.guard           one import into a root at a time, exclusive
payload lock   run/payload.guard          shared by exports, exclusive for who deletes payload files
output lock    <out>/.snapshot/guard      one export into a folder at a time, exclusive
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Hold", "holding", "lock", "unlock"]

_LOCK_BYTE = 1 << 30  # far behind the content, so that a Windows lock does not keep others from reading it
_PAUSE_S = 0.02


class Hold(Enum):
    """How a lock is held. Windows knows EXCLUSIVE only: there, who shares waits."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"


@contextlib.contextmanager
def holding(path: Path, hold: Hold, *, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a file in the body; yields False when others held it for ``wait_s``.

    Raises OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + wait_s
        while not (taken := lock(descriptor, shared=hold is Hold.SHARED)) and time.monotonic() < until:
            time.sleep(_PAUSE_S)
        try:
            yield taken
        finally:
            if taken:
                with contextlib.suppress(OSError):
                    unlock(descriptor)
    finally:
        os.close(descriptor)


if sys.platform == "win32":

    def lock(descriptor: int, *, shared: bool) -> bool:
        """Try to lock an open file; return whether that worked."""
        # Windows has no shared byte lock in msvcrt; a look takes and drops the exclusive one.
        os.lseek(descriptor, _LOCK_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def unlock(descriptor: int) -> None:
        """Let go of the lock."""
        os.lseek(descriptor, _LOCK_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:

    def lock(descriptor: int, *, shared: bool) -> bool:
        """Try to lock an open file; return whether that worked."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Let go of the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
