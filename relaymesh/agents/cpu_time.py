"""Processor time of this process and of all that it has started: what a budget of CPU seconds is charged for.

    this process  +  children that ended and were waited for, with what those had waited for   (getrusage)
                  +  what lives below it                                                       (/proc, elsewhere psutil)

A process that ends moves from the last term into the one before, so nothing is counted twice or forgotten. On Windows
there is no such account of the dead: there each process counts as much as was last seen of it, so that what it used
since the last look, half a second at most, is not counted. On macOS what a living grandchild has waited for is missing
until it ends.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from relaymesh.agents.process_tree import descendants, has_children

__all__ = ["CpuClock"]

_NS: Final = 1_000_000_000


class CpuClock:
    """Reads the time used since it was made. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], int] = {}
        self._most_ns = 0
        self._base_ns = 0
        self._base_ns = self._sample_ns()

    def used_ns(self) -> int:
        """Return the time used since the start, in ns; never less than it said before."""
        self._most_ns = max(self._most_ns, self._sample_ns() - self._base_ns)
        return self._most_ns

    def _sample_ns(self) -> int:
        total_ns = time.process_time_ns() + _ended_children_ns()
        if sys.platform == "win32":
            self._look()
            return total_ns + sum(self._seen.values())
        if not has_children():
            return total_ns
        return total_ns + sum(_living_ns(process.pid) for process in descendants(os.getpid()))

    def _look(self) -> None:
        for process in descendants(os.getpid()):
            of = (process.pid, process.started)
            self._seen[of] = max(self._seen.get(of, 0), _living_ns(process.pid))


def _ended_children_ns() -> int:
    if sys.platform == "win32":
        return 0
    else:
        import resource

        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return int((used.ru_utime + used.ru_stime) * _NS)


def _living_ns(pid: int) -> int:
    """Return the time of one process, with that of the children that it has waited for; 0 when it is gone."""
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                data = file.read(4096)
        except OSError:
            return 0
        # utime, stime, cutime, cstime; the name in parentheses may hold anything.
        fields = data[data.rfind(b")") + 2 :].split()[11:15]
        return sum(map(int, fields)) * _NS // os.sysconf("SC_CLK_TCK")
    else:
        import psutil

        try:
            used = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return 0
        return int((used.user + used.system) * _NS)
