"""An answer that comes once, now or later."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Asked", "Reply"]


class Reply:
    """Where the answer to one ``ask`` goes.

    An actor that cannot answer yet (a store that commits in groups) keeps ``self.reply_later()`` and settles it when it
    can, from any thread. The first settlement counts, later ones return False. The asker waits on the same object, so
    nothing is nested.
    """

    __slots__ = ("_error", "_latch", "_on_settled", "_once", "_value")

    def __init__(self) -> None:
        self._once = threading.Lock()  # taken for ever by who settles first
        self._latch = threading.Lock()  # held until settled; cheaper than an Event, which is built of two
        self._latch.acquire()
        self._value: object = None
        self._error: BaseException | None = None
        self._on_settled: Callable[[Reply], object] | None = None  # one is enough: the actor that keeps it

    @property
    def settled(self) -> bool:
        return not self._latch.locked()

    def answer(self, value: object = None) -> bool:
        """Settle with a value. Return False when it was settled before."""
        return self._settle(value, None)

    def fail(self, error: BaseException) -> bool:
        """Settle with an error, which the asker's ``ask`` raises. Return False when it was settled before."""
        return self._settle(None, error)

    def wait(self, timeout_s: float) -> object:
        """Return the answer, or raise the error that it was settled with.

        Raises:
            TimeoutError: not settled in time; it may still be later.
        """
        if not self._latch.acquire(timeout=max(0.0, timeout_s)):
            raise TimeoutError(f"no answer within {timeout_s:g} s")
        self._latch.release()  # for the next who waits
        if self._error is not None:
            raise self._error
        return self._value

    def on_settled(self, call: Callable[[Reply], object]) -> None:
        """Have ``call`` called, once, in the thread that settles; at once when that has happened."""
        self._on_settled = call
        if self.settled:
            call(self)

    def _settle(self, value: object, error: BaseException | None) -> bool:
        if not self._once.acquire(blocking=False):
            return False
        self._value, self._error = value, error
        on_settled = self._on_settled
        self._latch.release()
        if on_settled is not None:
            on_settled(self)
        return True


class Asked:
    """A message with somebody waiting for the answer, as it lies in a mailbox."""

    __slots__ = ("data", "reply")

    def __init__(self, data: bytes, reply: Reply) -> None:
        self.data = data
        self.reply = reply
