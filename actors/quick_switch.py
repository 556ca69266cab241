"""How soon a waiting thread gets the interpreter while nodes run in this process."""

from __future__ import annotations

import sys
import threading
from typing import Final

__all__ = ["QUICK_SWITCHES", "QuickSwitches"]

_SWITCH_S: Final = 0.0005


class QuickSwitches:
    """The switch interval of the interpreter while a node runs; the program around it gets its own back at the end.

    Python gives a waiting thread the interpreter only after this long; the default of 5 ms is many commits. It holds
    for the whole process, so the nodes that run in it are remembered.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: set[object] = set()
        self._former_s = self._ours_s = 0.0

    def begin(self, node: object) -> None:
        """A node starts."""
        with self._lock:
            if not self._nodes:
                self._former_s = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH_S)
                self._ours_s = sys.getswitchinterval()
            self._nodes.add(node)

    def end(self, node: object) -> None:
        """It has ended, or has not come up; twice is harmless."""
        with self._lock:
            if node not in self._nodes:
                return
            self._nodes.remove(node)
            # What the program has chosen meanwhile is its own business.
            if not self._nodes and sys.getswitchinterval() == self._ours_s:
                sys.setswitchinterval(self._former_s)


QUICK_SWITCHES: Final = QuickSwitches()
