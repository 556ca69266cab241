"""A small file in ``run/`` by which a process tells others where it is, or how: news, and gone with the process.

Readers see the former content or the new one, whole. Nothing is forced to the disk: after a crash of the machine the
process is gone as well.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["put_run_file"]


def put_run_file(path: Path, data: bytes) -> None:
    """Replace the file; only its owner may read it.

    It is written aside and renamed: a rename changes the folder, by which others notice that a node was started anew.

    Raises:
        OSError: the file is as it was.
    """
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
