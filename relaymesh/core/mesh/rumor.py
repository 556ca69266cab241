"""News that wait to be passed on: those that were sent least go first, of these the newest.

    news[0] ──sent──▶ news[1] ──sent──▶ … ──sent transmit_limit times──▶ forgotten

A member has one place in it: what is newer about it replaces what waited.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from relaymesh.core.mesh.packet import Update, update_bytes

__all__ = ["SENDS_MAX", "Rumors", "transmit_limit"]

SENDS_MAX: Final = 24
_RETRANSMIT: Final = 4


@lru_cache(maxsize=8192)
def hundredths_of_log10(number: int) -> int:
    """Return 100 x log10(number), rounded down; counted in digits, so that it is the same on every machine."""
    return len(str(number**100)) - 1


@lru_cache(maxsize=8192)
def transmit_limit(members: int) -> int:
    """Return how often one piece of news is sent by each node: 4 x log10(n + 1)."""
    return min(SENDS_MAX, -(-_RETRANSMIT * max(hundredths_of_log10(members + 1), 30) // 100))


class Rumors:
    """The news of one node. At most one per member, so bounded by the size of the view."""

    __slots__ = ("_levels", "_place", "limit")

    def __init__(self) -> None:
        self.limit = transmit_limit(1)
        self._levels: list[dict[str, Update]] = [{} for _ in range(SENDS_MAX)]
        self._place: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def put(self, update: Update) -> None:
        """Add news, in place of what waited about that member."""
        node_id = update.member.node_id
        old = self._place.get(node_id)
        if old is not None:
            del self._levels[old][node_id]
        self._levels[0][node_id] = update
        self._place[node_id] = 0

    def drop(self, node_id: str) -> None:
        old = self._place.pop(node_id, None)
        if old is not None:
            del self._levels[old][node_id]

    def take(self, room_bytes: int, most: int, but: str = "") -> tuple[tuple[Update, ...], int]:
        """Return news that fit into so many bytes, and their size; they count as sent once more.

        but: not about this member, because the packet says so already.
        """
        room_bytes -= 2
        taken: list[Update] = []
        moves: list[tuple[int, Update]] = []
        used = 0
        for level, waiting in enumerate(self._levels):
            if not waiting:
                continue
            for update in reversed(waiting.values()):
                if len(taken) >= most:
                    break
                if update.member.node_id == but:
                    continue
                size = update_bytes(update)
                if used + size > room_bytes:
                    break
                used += size
                taken.append(update)
                moves.append((level, update))
            else:
                continue
            break
        for level, update in moves:
            node_id = update.member.node_id
            del self._levels[level][node_id]
            if level + 1 >= self.limit:
                del self._place[node_id]
            else:
                self._levels[level + 1][node_id] = update
                self._place[node_id] = level + 1
        return tuple(taken), used + (2 if len(taken) > 15 else 0)
