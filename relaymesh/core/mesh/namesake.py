"""The other live node of this node's id, for as long as it has the better right to the id.

    NONE ──it answers, or a member says that it lives──▶ HELD: this node takes no steps, and asks the other now and then
      ▲                                                   │
      └──no answer to ``ASKED_MIN`` questions in a row, ──┘  or a member says that it is gone
         and none for ``patience_ns``                        this node goes on, in a generation above the other's

A node that is dead and one behind a broken link look the same from here. So the silence has to last as long as any in
the mesh, and who goes on outranks the other: if that was only cut off, it gives way as soon as the two meet again, by
the rule by which this one gave way before. A node that stood still has heard nobody, which is no silence of others.
"""

from __future__ import annotations

from typing import Final

from relaymesh.core.mesh.member import Member
from relaymesh.core.mesh.tuning import MS, NEVER_NS, SECOND

__all__ = ["ASKED_MIN", "GAP_NS_MAX", "GAP_NS_MIN", "Namesake"]

ASKED_MIN: Final = 3
GAP_NS_MIN: Final = 200 * MS
GAP_NS_MAX: Final = 10 * SECOND
_QUESTIONS: Final = 8
"""So many questions fit into the patience, unless that is very short or very long."""


class Namesake:
    """See the module. other: the node with the better right, None while there is none. due_ns: when to ask it next."""

    __slots__ = ("_asked", "_heard_ns", "due_ns", "other")

    def __init__(self) -> None:
        self.other: Member | None = None
        self.due_ns = NEVER_NS
        self._heard_ns = 0
        self._asked = 0

    def lives(self, now_ns: int, other: Member) -> bool:
        """Note that it is alive; return whether it is another one than before, or was started again."""
        self._heard_ns = max(now_ns, self._heard_ns)
        self._asked = 0
        if self.other is None:
            self.due_ns = now_ns
        elif other.generation <= self.other.generation:
            return False
        self.other = other
        return True

    def ask(self, now_ns: int, patience_ns: int) -> str:
        """Return the address at which to ask it now; it is asked again when ``due_ns`` has come."""
        assert self.other is not None
        self._asked += 1
        gap_ns = max(GAP_NS_MIN, min(patience_ns // _QUESTIONS, GAP_NS_MAX))
        self.due_ns = now_ns + gap_ns
        silent_ns = self._heard_ns + patience_ns
        if self._asked >= ASKED_MIN and now_ns < silent_ns:
            self.due_ns = min(self.due_ns, silent_ns)
        return self.other.address

    def silent(self, now_ns: int, patience_ns: int) -> bool:
        """Whether it counts as gone."""
        return self.other is not None and self._asked >= ASKED_MIN and now_ns - self._heard_ns >= patience_ns

    def stood_still(self, by_ns: int) -> None:
        """This node did not run for so long, and heard nobody: what it asked before does not count."""
        self._heard_ns += by_ns
        self._asked = 0

    def forget(self) -> Member | None:
        """Return the other one, which from now on is none."""
        other, self.other = self.other, None
        self.due_ns = NEVER_NS
        return other
