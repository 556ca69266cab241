"""Messages, actors and a clock for tests of actors."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from actors.base import Actor
from actors.reply import Reply
from actors.timer import Target, Timer, TimerHeap
from relaymesh.wire.codec import Message, encode, message
from relaymesh.wire.kernel import ChildEnded

__all__ = [
    "PATIENCE_S",
    "Break",
    "Ends",
    "Foreign",
    "HowMany",
    "Keep",
    "Later",
    "ManualTimers",
    "Note",
    "Notebook",
    "Wait",
]

# Never reached when all is well.
PATIENCE_S = 10.0

T = TypeVar("T")


@message("test.note")
class Note(Message, frozen=True):
    """Write ``text`` down."""

    text: str


@message("test.how_many")
class HowMany(Message, frozen=True):
    """Asked: how many notes?"""


@message("test.break")
class Break(Message, frozen=True):
    """Raise an error of this class."""

    error: str = "ValueError"


@message("test.wait")
class Wait(Message, frozen=True):
    """Stand still until the test opens the gate."""


@message("test.later")
class Later(Message, frozen=True):
    """Asked: answer ``text`` at the next Keep."""

    text: str


@message("test.keep")
class Keep(Message, frozen=True):
    """Answer all that is to be answered later."""


@message("test.foreign")
class Foreign(Message, frozen=True):
    """In the catalogue, and taken by no actor."""


class Ends(queue.SimpleQueue[ChildEnded]):
    """Where an actor's last word goes in a test: pass ``ends.put`` as ``on_end``."""

    def last_word(self) -> ChildEnded:
        return self.get(timeout=PATIENCE_S)


class Notebook(Actor):
    """Writes down what it is told, and every step of its life, into lists that outlive it."""

    takes = Note | HowMany | Break | Wait | Later | Keep

    def __init__(self, notes: list[str] | None = None, life: list[str] | None = None, name: str = "") -> None:
        super().__init__()
        self.notes = notes if notes is not None else []
        self.life = life if life is not None else []
        self.gate = threading.Event()
        self.waiting = threading.Event()
        self._prefix = f"{name} " if name else ""
        self._kept: list[tuple[str, Reply]] = []

    def started(self) -> None:
        self.life.append(f"{self._prefix}started")

    def stopping(self) -> None:
        self.life.append(f"{self._prefix}stopping")

    def crashed(self) -> None:
        self.life.append(f"{self._prefix}crashed")

    def receive(self, message: Note | HowMany | Break | Wait | Later | Keep) -> object:
        match message:
            case Note(text):
                self.notes.append(text)
            case HowMany():
                return len(self.notes)
            case Break(error):
                errors = {"ValueError": ValueError, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}
                raise errors[error]("told to break")
            case Wait():
                self.waiting.set()
                self.gate.wait(PATIENCE_S)
            case Later(text):
                self._kept.append((text, self.reply_later()))
            case Keep():
                for text, reply in self._kept:
                    reply.answer(text)
                self._kept.clear()
        return None


class ManualTimers:
    """Timers that run when the test says so. The heap is the real one."""

    def __init__(self) -> None:
        self.heap = TimerHeap()
        self._now_ns = 0

    def now_ns(self) -> int:
        return self._now_ns

    def after(self, delay_ns: int, target: Target, message: Message, *, key: str) -> Timer:
        return self.heap.set(target, key, encode(message), self._now_ns + max(0, delay_ns), 0)[0]

    def every(self, period_ns: int, target: Target, message: Message, *, key: str) -> Timer:
        return self.heap.set(target, key, encode(message), self._now_ns + period_ns, period_ns)[0]

    def cancel(self, target: Target, key: str) -> bool:
        return self.heap.cancel_key(target, key)

    def advance(self, by_ns: int) -> None:
        """Let time pass; send what falls due at its own instant."""
        until_ns = self._now_ns + by_ns
        while (due_ns := self.heap.next_due_ns()) is not None and due_ns <= until_ns:
            self._now_ns = max(self._now_ns, due_ns)
            self.heap.fire(self._now_ns)
        self._now_ns = until_ns

    def jump(self, by_ns: int) -> None:
        """Let time pass as if the process had been stopped meanwhile: all that is due is sent now."""
        self._now_ns += by_ns
        self.heap.fire(self._now_ns)


def eventually(claim: Callable[[], bool]) -> bool:
    """Return whether ``claim`` became true within PATIENCE_S; for what another thread does and nobody reports."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.005)):
        if claim():
            return True
        pause.wait(0.005)
    return claim()
