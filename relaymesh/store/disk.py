"""How much room the file system of a root has."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["free_disk_bytes"]


def free_disk_bytes(root: Path) -> int:
    """Return the bytes that can still be written, -1 when that cannot be found out."""
    try:
        return shutil.disk_usage(root if root.exists() else root.parent).free
    except OSError:
        return -1
