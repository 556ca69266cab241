"""Which packets were seen before: per sender its generation, the highest sequence, and a window of bits below it.

    generation above the one known ──▶ FRESH, the window starts anew
    the same, sequence above the highest, or in the window and not seen ──▶ FRESH
    the same, seen or below the window ──▶ REPLAYED
    generation below ──▶ FORMER: an earlier run, or a second node with this id; no more than told so

No clock is asked. The marks (generation, highest) survive a restart of the receiver when they are kept on its disk.
Marks may be old, and at a first start there are none: what was recorded before is then not known as seen. So when a
sender proves itself, its window is closed (``close``): what is below the highest counts as seen.

Source: RFC 6479. Ours is one whole number instead of a ring of words.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Final

__all__ = ["WINDOWS_MAX", "WINDOW_BITS", "Freshness", "Windows"]

WINDOW_BITS: Final = 1_024
WINDOWS_MAX: Final = 8_192
_MASK: Final = (1 << WINDOW_BITS) - 1


class Freshness(Enum):
    FRESH = "fresh"
    REPLAYED = "replayed"
    FORMER = "former"


class _Window:
    __slots__ = ("generation", "highest", "seen")

    def __init__(self, generation: int, highest: int, seen: int) -> None:
        self.generation = generation
        self.highest = highest
        self.seen = seen


class Windows:
    """The windows of all senders, the oldest forgotten above the cap."""

    def __init__(self) -> None:
        self._windows: dict[int, _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def take(self, sender: int, generation: int, sequence: int) -> Freshness:
        """Note a packet that is authenticated; return whether it is to be taken. sender: the hash of its id."""
        window = self._windows.get(sender)
        if window is None:
            if len(self._windows) >= WINDOWS_MAX:
                del self._windows[next(iter(self._windows))]
            self._windows[sender] = _Window(generation, sequence, 1)
            return Freshness.FRESH
        if generation < window.generation:
            return Freshness.FORMER
        if generation > window.generation:
            window.generation, window.highest, window.seen = generation, sequence, 1
            return Freshness.FRESH
        ahead = sequence - window.highest
        if ahead > 0:
            window.seen = ((window.seen << ahead) | 1) & _MASK if ahead < WINDOW_BITS else 1
            window.highest = sequence
            return Freshness.FRESH
        bit = 1 << -ahead if -ahead < WINDOW_BITS else 0
        if not bit or window.seen & bit:
            return Freshness.REPLAYED
        window.seen |= bit
        return Freshness.FRESH

    def close(self, sender: int, generation: int) -> None:
        """Let nothing up to the highest sequence be fresh: the sender has proved itself with a packet of just now."""
        window = self._windows.get(sender)
        if window is not None and window.generation == generation:
            window.seen = _MASK

    def marks(self) -> list[tuple[int, int, int]]:
        """Return (sender, generation, highest) of all, to be kept over a restart."""
        return [(sender, window.generation, window.highest) for sender, window in self._windows.items()]

    def restore(self, marks: Iterable[tuple[int, int, int]]) -> None:
        """Take marks of before a restart: nothing up to them is fresh."""
        for sender, generation, highest in marks:
            if len(self._windows) < WINDOWS_MAX:
                self._windows[sender] = _Window(generation, highest, _MASK)
