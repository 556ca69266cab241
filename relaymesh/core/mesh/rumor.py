"""News that wait to be passed on: those that were sent least go first, of these the newest.

    news[0] ──sent──▶ news[1] ──sent──▶ … ──sent transmit_limit times──▶ forgotten

A member has one place in it: what is newer about it replaces what waited. What was replaced stays in its stack until it
comes up there, and is left out then.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from relaymesh.core.mesh.packet import Update, update_bytes

__all__ = ["SENDS_MAX", "Rumors", "transmit_limit"]

SENDS_MAX: Final = 24
_RETRANSMIT: Final = 4
_STALE_MAX: Final = 256

Entry = tuple[Update, int, str]
"""The news, their size in bytes, and the id of the member that they are about."""


@lru_cache(maxsize=8192)
def hundredths_of_log10(number: int) -> int:
    """Return 100 x log10(number), rounded down; counted in digits, so that it is the same on every machine."""
    return len(str(number**100)) - 1


@lru_cache(maxsize=8192)
def transmit_limit(members: int) -> int:
    """Return how often one piece of news is sent by each node: 4 x log10(n + 1)."""
    return min(SENDS_MAX, -(-_RETRANSMIT * max(hundredths_of_log10(members + 1), 30) // 100))


class Rumors:
    """The news of one node. At most one per member, so bounded by the size of the view.

    waiting: the news by member; for reading only.
    """

    __slots__ = ("_stacks", "_stale", "limit", "waiting")

    def __init__(self) -> None:
        self.limit = transmit_limit(1)
        self.waiting: dict[str, Entry] = {}
        self._stacks: list[list[Entry]] = [[] for _ in range(SENDS_MAX)]
        self._stale = 0

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def __len__(self) -> int:
        return len(self.waiting)

    def put(self, update: Update) -> None:
        """Add news, in place of what waited about that member."""
        node_id = update.member.node_id
        if node_id in self.waiting:
            self._outdated()
        entry = (update, update_bytes(update), node_id)
        self.waiting[node_id] = entry
        self._stacks[0].append(entry)

    def drop(self, node_id: str) -> None:
        if self.waiting.pop(node_id, None) is not None:
            self._outdated()

    def take(self, room_bytes: int, most: int, but: str = "") -> tuple[tuple[Update, ...], int]:
        """Return news that fit into so many bytes, and their size; they count as sent once more.

        but: not about this member, because the packet says so already.
        """
        room_bytes -= 2
        waiting = self.waiting
        kept = waiting.get(but) if but else None
        sent: list[tuple[int, list[Entry]]] = []
        taken, used = 0, 0
        full = most <= 0
        for level, stack in enumerate(self._stacks):
            if full:
                break
            if not stack:
                continue
            moved: list[Entry] = []
            left_in = False
            while stack and not full:
                looked = 0
                for entry in reversed(stack[taken + len(moved) - most :]):
                    size = entry[1]
                    if waiting.get(entry[2]) is not entry:
                        self._stale -= 1
                    elif used + size > room_bytes:
                        full = True
                        break
                    elif entry is kept:
                        left_in = True
                    else:
                        used += size
                        moved.append(entry)
                    looked += 1
                if looked:
                    del stack[-looked:]
                if taken + len(moved) == most:
                    full = True
            if left_in and kept is not None:
                stack.append(kept)
            if moved:
                taken += len(moved)
                sent.append((level, moved))
        updates = tuple([entry[0] for _, moved in sent for entry in moved])
        for level, moved in sent:
            if level + 1 >= self.limit:
                for entry in moved:
                    del waiting[entry[2]]
            else:
                self._stacks[level + 1] += moved
        return updates, used + (2 if taken > 15 else 0)

    def _outdated(self) -> None:
        self._stale += 1
        if self._stale > _STALE_MAX + len(self.waiting):
            waiting = self.waiting
            self._stacks = [[entry for entry in stack if waiting.get(entry[2]) is entry] for stack in self._stacks]
            self._stale = 0
