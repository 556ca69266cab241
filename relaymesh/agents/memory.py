"""How much memory this process holds."""

from __future__ import annotations

import os
import sys

__all__ = ["Memory"]


class Memory:
    """Reads the resident size of this process; on Linux in a few microseconds, so that it can be asked often."""

    def __init__(self) -> None:
        # Opening it is what costs, a hundred times as much as reading it.
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if sys.platform == "linux" else -1

    def resident_mib(self) -> float:
        if sys.platform == "linux":
            return int(os.pread(self._statm, 128, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)
        else:
            import psutil

            return float(psutil.Process().memory_info().rss) / (1024 * 1024)
