"""What actors, and the edges of a node, hold of an actor."""

from __future__ import annotations

import threading
import time
from typing import TypeVar, overload

from actors.mailbox import AskTimeoutError, Mailbox, Overflow
from actors.metrics import ActorMetrics, MetricsSnapshot, Undeliverable
from actors.reply import Asked, Reply
from relaymesh.wire.codec import Message, encode

__all__ = ["Address"]

R = TypeVar("R")


class Address:
    """Where to send messages for one actor, whichever incarnation of it is running.

    Make it before the actor: then actors may hold each other's addresses whatever the start order. Mail for an actor
    that has not started, or is being restarted, waits (up to ``capacity``) and is handled by the next incarnation. Lost
    is what a crashed incarnation had in hand; so what must survive is in the store before it is in a mailbox.

    name: unique in the node; the child's name in the supervision tree, metrics and logs.
    capacity, overflow: the mailbox's bound in messages, and what happens at it.
    block_s: how long ``Overflow.BLOCK`` lets a sender wait.
    """

    __slots__ = ("_mailbox", "metrics", "name")

    def __init__(
        self,
        name: str,
        *,
        capacity: int = 4096,
        overflow: Overflow = Overflow.REFUSE,
        block_s: float = 2.0,
    ) -> None:
        self.name = name
        self.metrics = ActorMetrics()
        self._mailbox = Mailbox(name, capacity, overflow, block_s, self.metrics)

    def __repr__(self) -> str:
        return f"<Address {self.name}: {self.depth} of {self._mailbox.capacity} waiting>"

    def tell(self, message: Message) -> bool:
        """Send; return False when the message was dropped: mailbox full and DROP_NEW, or the actor ended for good.

        Raises:
            MailboxFullError: mailbox full and REFUSE, or still full after ``block_s`` and BLOCK.
        """
        return self._mailbox.offer(encode(message))

    def tell_bytes(self, data: bytes) -> bool:
        """Send an envelope that is encoded already; as ``tell``."""
        return self._mailbox.offer(data)

    def offer_bytes(self, data: bytes) -> bool:
        """Send if there is room; never waits and never raises. What is not taken is not counted."""
        return self._mailbox.offer_now(data)

    @overload
    def ask(self, message: Message, timeout_s: float) -> object: ...
    @overload
    def ask(self, message: Message, timeout_s: float, expect: type[R]) -> R: ...

    def ask(self, message: Message, timeout_s: float, expect: type[R] | None = None) -> object:
        """Send and wait for the answer. For people, start-up and tests; actors tell each other.

        expect: the answer's class; gives the answer its static type, and is checked.

        Raises:
            AskTimeoutError: no answer in time. What was asked may still happen.
            ActorGoneError: the actor crashed while it had the question, or has ended.
            MailboxFullError: full, unless BLOCK and there is room within ``block_s``.
            MessageError: the actor does not take this message.
            Exception: what the actor's ``receive`` raised, or settled the reply with.
        """
        answer = self.ask_bytes(encode(message), timeout_s)
        if expect is not None and not isinstance(answer, expect):
            raise TypeError(f"{self.name} answered {type(answer).__name__} instead of {expect.__name__}")
        return answer

    def ask_bytes(self, data: bytes, timeout_s: float) -> object:
        """As ``ask``, with an envelope that is encoded already."""
        if threading.get_ident() == self._mailbox.reader_ident:
            raise AskTimeoutError(self.name, 0.0)  # it would wait for itself
        started = time.monotonic()
        reply = self.ask_later(data)
        try:
            return reply.wait(timeout_s - (time.monotonic() - started))
        except TimeoutError:
            if reply.settled:
                raise  # the actor's own, or settled at the last moment
            raise AskTimeoutError(self.name, timeout_s) from None

    def ask_later(self, message: Message | bytes) -> Reply:
        """Send and return at once; ``reply.wait(timeout_s)`` waits for the answer. Sending raises as in ``ask``."""
        reply = Reply()
        self._mailbox.offer(Asked(message if isinstance(message, bytes) else encode(message), reply))
        return reply

    def ask_into(self, data: bytes, reply: Reply) -> None:
        """Send an envelope whose answer goes to ``reply``. Sending raises as in ``ask``."""
        self._mailbox.offer(Asked(data, reply))

    @property
    def depth(self) -> int:
        """Messages waiting."""
        return self._mailbox.queue.qsize()

    @property
    def closed(self) -> bool:
        """The actor has ended for good."""
        return self._mailbox.closed

    def close(self) -> None:
        """Take no more mail: what waits is dropped and counted, who asked gets ActorGoneError. For supervisors."""
        self._mailbox.close()

    def begin_incarnation(self) -> int:
        """Open for an actor that starts to read here; return its number. For ``Actor.launch``."""
        self._mailbox.closed = False
        self.metrics.starts += 1
        self.metrics.alive = True
        return self.metrics.starts

    def snapshot(self) -> MetricsSnapshot:
        """Return the counters as they are now."""
        now = self.metrics
        return MetricsSnapshot(
            depth=self.depth,
            capacity=self._mailbox.capacity,
            handled=now.handled,
            failed=now.failed,
            refused=now.refused,
            dropped=now.dropped,
            handling_ns_total=now.handling_ns_total,
            handling_ns_max=now.handling_ns_max,
            restarts=max(0, now.starts - 1),
            abandoned=now.abandoned,
            alive=now.alive,
        )

    def undeliverable(self) -> list[Undeliverable]:
        """Return the last envelopes that the actor refused, oldest first."""
        return list(self.metrics.undeliverable)

    @property
    def mailbox(self) -> Mailbox:
        """The queue itself, for the actor that reads it."""
        return self._mailbox
