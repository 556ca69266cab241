"""A root that cannot be written, and that nobody works on: its database is read as it lies there.

SQLite reads a database with a write-ahead log only where it can make the files beside it, or finds those of a process
that works on it. A root on a read-only disk has neither. Without a log the file is whole, so it may be read without
locks, as long as nobody who can write opens it. Whoever does makes the log, and is seen by that at the next look.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["lies_still"]


def lies_still(path: Path) -> bool:
    """Return whether this process could not change the database, and no other has it open."""
    return not os.access(path.parent, os.W_OK) and not any(
        os.path.exists(f"{path}{suffix}") for suffix in ("-wal", "-journal")
    )
