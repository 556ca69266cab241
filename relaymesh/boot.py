"""Which boot of the machine this is: what the clocks and the page cache of an earlier one said counts no more."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

__all__ = ["boot_id"]


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return a name of this boot of the machine, or of this process where the platform has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"process-{os.getpid()}"
