"""Open a file that somebody else put there: a pipe in its place would keep who opens it waiting, a device for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_plain"]

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe or a device.
    """
    file = open(path, "rb", opener=_opener)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "It is a pipe or a device", str(path))
    return file


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_WAIT)
