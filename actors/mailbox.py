"""The bounded queue in front of an actor.

A mailbox belongs to the address, not to one incarnation of the actor: what was queued when the actor crashed waits for
its successor. Only the message that was being handled is gone. An ``Inbox`` is one incarnation's way to read it; it is
what Pykka's loop calls.

    tell, ask ──▶ Mailbox (bounded) ──▶ Inbox of incarnation 1 (ended)
                                   └──▶ Inbox of incarnation 2 ──▶ Pykka's loop

The queue is ``queue.SimpleQueue``: one lock, in C. The bound is checked before the put without a lock of its own, so a
mailbox may exceed its capacity by at most one message per sending thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar

from actors.metrics import ActorMetrics
from actors.reply import Asked
from relaymesh.errors import ActorError

__all__ = [
    "ActorGoneError",
    "AskTimeoutError",
    "Inbox",
    "Item",
    "Mail",
    "Mailbox",
    "MailboxFullError",
    "Overflow",
    "StopMark",
]


class Overflow(Enum):
    """What happens to a message for which the mailbox has no room. An ask is never dropped in silence: it raises."""

    REFUSE = "refuse"  # the sender gets MailboxFullError at once: for what clients send
    DROP_NEW = "drop_new"  # the message is dropped and counted: for hints and ticks
    DROP_OLDEST = "drop_oldest"  # the oldest is dropped and counted: where only the newest state matters
    BLOCK = "block"  # the sender waits for room, then gets MailboxFullError: for work that is bounded by credit


class MailboxFullError(ActorError):
    """The actor has more mail than it may keep."""

    code = "mailbox_full"

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(name, capacity)
        self.name, self.capacity = name, capacity

    def __str__(self) -> str:
        return f"{self.name} has {self.capacity} messages waiting and takes no more: try again shortly, or send less"


class ActorGoneError(ActorError):
    """The actor has ended and will not answer."""

    code = "actor_gone"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name, self.why = name, why

    def __str__(self) -> str:
        return f"{self.name} gave no answer because it {self.why}: ask again if it is still wanted"


class AskTimeoutError(ActorError):
    """The actor did not answer in time. What was asked may still happen."""

    code = "ask_timeout"

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__(name, timeout_s)
        self.name, self.timeout_s = name, timeout_s

    def __str__(self) -> str:
        return f"{self.name} did not answer within {self.timeout_s:g} s: what was asked may still happen, so look first"


class StopMark:
    """In the queue: end in order when you come to this (``incarnation``), or just look up (None)."""

    __slots__ = ("incarnation",)

    def __init__(self, incarnation: int | None) -> None:
        self.incarnation = incarnation


_LOOK_UP = StopMark(None)

Item = bytes | Asked | StopMark


class Mailbox:
    """What waits for one actor, over all its incarnations.

    capacity: messages; marks of the kernel are not bound by it.
    block_s: how long BLOCK lets a sender wait. It also bounds a deadlock of two actors that fill each other's mailbox.
    """

    def __init__(self, name: str, capacity: int, overflow: Overflow, block_s: float, metrics: ActorMetrics) -> None:
        if capacity < 1 or block_s < 0:
            raise ValueError(f"mailbox of {name}: capacity must be at least 1 and block_s not negative")
        self.name = name
        self.capacity = capacity
        self.overflow = overflow
        self.closed = False
        self.queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        # Whose thread reads: a reader that waits for room in its own mailbox would wait for itself.
        self.reader_ident: int | None = None
        self._block_s = block_s
        self._metrics = metrics
        self._room = threading.Condition()
        self.waiting = 0  # senders in _wait_for_room; written under _room, read without
        self._low_water = capacity // 2

    def offer(self, item: bytes | Asked) -> bool:
        """Put ``item``; return False when it was dropped.

        Raises:
            MailboxFullError: no room, and the mailbox's overflow behaviour (or an ask) says so.
        """
        if self.closed or self.queue.qsize() >= self.capacity:
            return self._overflow(item)
        return self._put(item)

    def offer_now(self, item: bytes) -> bool:
        """Put ``item`` if there is room. Never waits, never raises, drops nothing else; False is not counted."""
        if self.closed or self.queue.qsize() >= self.capacity:
            return False
        self.queue.put(item)
        return True

    def post(self, item: Item) -> None:
        """Put ``item`` whatever the bound: for the kernel's own few."""
        self.queue.put(item)

    def close(self) -> None:
        """Take no more; what waits is dropped and counted, who asked is told."""
        self.closed = True
        self.drain("has ended")
        with self._room:
            self._room.notify_all()

    def drain(self, why: str) -> None:
        """Empty the queue of a closed mailbox."""
        while True:
            try:
                item = self.queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(item, Asked):
                item.reply.fail(ActorGoneError(self.name, why))
            elif isinstance(item, bytes):
                self._count_dropped()

    def made_room(self) -> None:
        """Wake senders that wait. The reader calls this after each get while ``waiting`` is not 0.

        Only from the low-water mark down, so that senders come back for a batch and not for one place each.
        """
        if self.queue.qsize() <= self._low_water:
            with self._room:
                self._room.notify_all()

    def _overflow(self, item: bytes | Asked) -> bool:
        if self.closed:
            if isinstance(item, Asked):
                raise ActorGoneError(self.name, "has ended")
            self._count_dropped()
            return False
        match self.overflow:
            case Overflow.BLOCK:
                self._wait_for_room()
                return self._put(item)
            case Overflow.DROP_OLDEST:
                self._drop_oldest()
                return self._put(item)
            case Overflow.DROP_NEW if not isinstance(item, Asked):
                self._count_dropped()
                return False
            case _:
                raise MailboxFullError(self.name, self.capacity)

    def _put(self, item: bytes | Asked) -> bool:
        self.queue.put(item)
        if self.closed:  # since we looked; nobody else would empty it any more
            self.drain("has ended")
            return False
        return True

    def _wait_for_room(self) -> None:
        if threading.get_ident() == self.reader_ident:
            raise MailboxFullError(self.name, self.capacity)
        deadline = time.monotonic() + self._block_s
        with self._room:
            self.waiting += 1
            try:
                # The reader looks at ``waiting`` after each get, we look at the depth after raising it: one of the two
                # sees the other. Who comes while the depth is between low-water mark and capacity does not wait.
                while not self.closed and self.queue.qsize() >= self.capacity:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        raise MailboxFullError(self.name, self.capacity)
                    self._room.wait(left)
            finally:
                self.waiting -= 1

    def _drop_oldest(self) -> None:
        for _ in range(8):  # marks are put back; there are never that many
            try:
                oldest = self.queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(oldest, StopMark):
                self.queue.put(oldest)
                continue
            if isinstance(oldest, Asked):
                oldest.reply.fail(MailboxFullError(self.name, self.capacity))
            self._count_dropped()
            return

    def _count_dropped(self) -> None:
        with self._room:
            self._metrics.dropped += 1


class Mail:
    """What Pykka's loop calls an envelope. One object per inbox, used again for each message."""

    __slots__ = ("message",)
    reply_to: ClassVar[None] = None  # answers go through Reply, so that they may come later

    def __init__(self) -> None:
        self.message: Any = None


class Inbox:
    """One incarnation's end of the mailbox, in the form that Pykka's loop expects (``put``, ``get``, ``empty``).

    What Pykka itself puts (the order to stop) overtakes the mail: the actor ends after the message in hand, and the
    rest waits for the next incarnation. ``stop_after_mail`` is the other way to end: after what is queued now.
    """

    def __init__(self) -> None:
        self.ended = False
        self.on_idle: Callable[[], None] | None = None
        self.on_stop_mark: Callable[[], None] | None = None
        self._mailbox: Mailbox | None = None
        self._incarnation = 0
        self._orders: deque[Any] = deque()
        self._mail = Mail()

    def attach(self, mailbox: Mailbox, incarnation: int) -> None:
        """Read from ``mailbox`` from now on; once, before the actor's loop runs."""
        assert self._mailbox is None, "an actor object runs once; its supervisor makes a new one"
        self._mailbox, self._incarnation = mailbox, incarnation

    @property
    def mailbox(self) -> Mailbox:
        assert self._mailbox is not None, "an actor is started with launch"
        return self._mailbox

    def put(self, envelope: Any, /) -> None:
        self._orders.append(envelope)
        self.mailbox.post(_LOOK_UP)

    def stop_after_mail(self) -> None:
        self.mailbox.post(StopMark(self._incarnation))

    def get(self) -> Any:
        """Return the next envelope; wait for it."""
        box, mail = self.mailbox, self._mail
        items = box.queue
        while not self._orders:
            if self.on_idle is not None and items.empty():
                self.on_idle()
                if self.ended:
                    mail.message = None
                    return mail
            item = items.get()
            if box.waiting:
                box.made_room()
            if item.__class__ is not StopMark:
                mail.message = item
                return mail
            if item.incarnation == self._incarnation and self.on_stop_mark is not None:
                self.on_stop_mark()  # puts the order to stop
        return self._orders.popleft()

    def empty(self) -> bool:
        """Nothing waits. Pykka empties the inbox of a dead actor until this is True, and ours is to be kept."""
        return self.ended or (not self._orders and self.mailbox.queue.empty())
