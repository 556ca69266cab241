"""Replace a file in one step: a reader, also after a crash, sees the old content or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path

__all__ = ["PRIVATE", "replace_file"]

PRIVATE = 0o600
"""The mode of a file that holds a secret."""
_REPLACE_TRIES = 20
_PAUSE_S = 0.05


def replace_file(path: Path, data: bytes, *, private: bool) -> None:
    """Write ``data`` beside the file, flush it to the disk, and rename it over the file. One writer at a time.

    A file that is there keeps its owner and its mode, but one with a secret (private) is read by its owner only. What
    an earlier writer left beside the file, because it was killed, is overwritten. A link is followed.

    Raises:
        OSError: the file is as it was.
    """
    target = Path(os.path.realpath(path))
    former = _stat(target)
    aside = target.with_name(f".{target.name}.aside")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()  # its mode would stay as it is
    mode = PRIVATE if private else stat.S_IMODE(former.st_mode) if former is not None else 0o644
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(aside, flags, PRIVATE)
    try:
        with open(descriptor, "wb") as file:
            if sys.platform != "win32":
                if former is not None and former.st_uid != os.geteuid():
                    with contextlib.suppress(PermissionError):  # else root's edit locks the node's own user out
                        os.fchown(descriptor, former.st_uid, former.st_gid)
                os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        _replace(aside, target)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    _sync_folder(target.parent)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _replace(aside: Path, target: Path) -> None:
    for left in reversed(range(_REPLACE_TRIES)):
        try:
            os.replace(aside, target)
        except PermissionError:
            # Windows refuses while somebody reads the file, which takes an instant.
            if os.name != "nt" or not left:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
