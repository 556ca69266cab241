"""What happened to the nodes, in sentences: told by comparing one look at the member table with the one before.

No query is needed for it. What comes and goes between two looks is not seen; the audit log has all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from relaymesh.core.plural import counted, verb

__all__ = ["FIRST_LOOK_MS", "ITEMS_MAX", "Item", "News", "Standing"]

ITEMS_MAX: Final = 100
"""Sentences that are kept; the oldest gives way."""
FIRST_LOOK_MS: Final = 600_000
"""The first look tells what became of each node within so long; before that it is no news."""

_SENTENCES: Final = {
    "SUSPECT": "does not answer: others ask it too before it counts as dead",
    "DEAD": "is dead: nobody hears from it",
    "ENDED": "is gone: its process has ended without a word",
    "LEFT": "has ended in order",
    "DRAINED": "was told to take nothing new",
    "STOPPING": "is stopping: it takes nothing new, and waits for what runs",
}
_STARTED: Final = "was started again"


@dataclass(frozen=True, slots=True)
class Standing:
    """One node at one look. word: as ``member_word`` says. since_ms: wall time of its last change, as far as known."""

    word: str
    since_ms: int
    generation: int
    running: int = 0


@dataclass(frozen=True, slots=True)
class Item:
    """number: tells it from all others. at_ms: wall time. word: how the node stood then."""

    number: int
    at_ms: int
    node_id: str
    word: str
    sentence: str


class News:
    """The last sentences about nodes, ``ITEMS_MAX`` at most."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque(maxlen=ITEMS_MAX)
        self._before: Mapping[str, Standing] | None = None
        self._whole = False
        self._numbers = 0

    def take(self, now_ms: int, nodes: Mapping[str, Standing], *, whole: bool = True) -> tuple[Item, ...]:
        """Compare with the last look; return all that is kept, newest first.

        whole: no node was cut from the list. Where one may have been, who appears or is missing is no news.
        """
        if self._before is None:
            recent = [
                (one.since_ms, name)
                for name, one in nodes.items()
                # Since when a node is drained, or stops, is not known.
                if now_ms - one.since_ms <= FIRST_LOOK_MS and one.word not in ("DRAINED", "STOPPING")
            ]
            for at_ms, name in sorted(recent):
                self._tell(at_ms, name, nodes[name], _sentence(nodes[name], "is there"))
        else:
            for name, node in nodes.items():
                before = self._before.get(name)
                if before is not None:
                    self._compare(now_ms, name, before, node)
                elif whole and self._whole:
                    self._tell(now_ms, name, node, _sentence(node, "has joined"))
            if whole and self._whole:
                for name in self._before.keys() - nodes.keys():
                    self._tell(now_ms, name, self._before[name], "was removed from the list")
        self._before, self._whole = dict(nodes), whole
        return tuple(reversed(self._items))

    def _compare(self, now_ms: int, name: str, before: Standing, node: Standing) -> None:
        again = node.generation > before.generation
        if again and node.word == "ALIVE":
            self._tell(now_ms, name, node, f"{_STARTED}, and is there")
        elif again and node.word in ("SUSPECT", "DEAD"):
            self._tell(now_ms, name, node, f"{_STARTED}; it waits a while before it takes steps")
        elif node.word != before.word:
            back = "takes work again" if before.word == "DRAINED" else "is back"
            self._tell(now_ms, name, node, _sentence(node, back))

    def _tell(self, at_ms: int, name: str, node: Standing, sentence: str) -> None:
        self._numbers += 1
        self._items.append(Item(self._numbers, at_ms, name, node.word, sentence))


def _sentence(node: Standing, alive: str) -> str:
    said = _SENTENCES.get(node.word, alive if node.word == "ALIVE" else f"is {node.word}")
    if node.word in ("DEAD", "ENDED") and node.running:
        steps = f"{counted(node.running, 'step')} that it ran {verb(node.running, 'is', 'are')}"
        return f"{said}; {steps} taken over"
    return said
