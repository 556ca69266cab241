"""The looks of the StoreActor: its timers, and what the last look has found.

When to look is decided in ``relaymesh.core.look``.
"""

from __future__ import annotations

from typing import assert_never

from actors.address import Address
from actors.store_needs import StoreNeeds
from actors.timer import Timers
from relaymesh.core.look import Checkpoint, LookEffect, LookEvery, LookIn, StoreLooks, VerifyLong
from relaymesh.store.store import Store
from relaymesh.wire.store import PollStore, StoreChanged

__all__ = ["Looks"]


class Looks:
    """What one StoreActor sees of others and of time.

    data_version: of the last look. tick_queued: a schedule has a tick that waits for the end of the run before it.
    lease: told when others have committed something, now and then.
    """

    def __init__(self, timers: Timers, lease: Address, needs: StoreNeeds) -> None:
        self.data_version = -1
        self.tick_queued = False
        self._timers = timers
        self._lease = lease
        self._needs = needs
        self._machine = StoreLooks()
        self._due_ms: int | None = None
        self._due_known = False
        self._address: Address | None = None

    def begin(self, address: Address) -> None:
        """Start; ``address`` is sent PollStore."""
        self._address = address
        self._set(self._machine.begin(self._timers.now_ns()))

    def end(self) -> None:
        """Stop."""
        if self._address is not None:
            self._timers.cancel(self._address, "poll")
            self._timers.cancel(self._address, "due")

    def stir(self) -> None:
        """Look often again: something happened."""
        often = self._machine.stirred()
        if often is not None:
            self._set(often)

    def wrote(self) -> None:
        """A transaction has committed."""
        self._machine.wrote()

    def forget_due(self) -> None:
        """What is due next may have changed."""
        self._due_known = False

    @property
    def is_due(self) -> bool:
        """Whether a delay, a retry or a tick is due that is known from the last look."""
        return self._due_ms is not None and self._due_ms <= self._needs.now_ms()

    def for_news(self, store: Store) -> bool:
        """Begin a look; return whether another connection has committed since the last one."""
        with store.reading():
            version = store.data_version()
        if version == self.data_version:
            return False
        self.data_version = version
        self._due_known = False
        self._machine.found_news()
        return True

    def for_due(self, store: Store) -> None:
        """End a look: see what is due next, and do what is to be done now and then."""
        if not self._due_known:
            self._due_ms = store.next_due_ms()
            self.tick_queued = store.has_queued_tick()
            self._due_known = True
        due_in_ms = None if self._due_ms is None else self._due_ms - self._needs.now_ms()
        for effect in self._machine.looked(self._timers.now_ns(), due_in_ms=due_in_ms):
            self._perform(effect, store)

    def _perform(self, effect: LookEffect, store: Store) -> None:
        match effect:
            case VerifyLong():
                self._lease.tell(StoreChanged())
            case LookEvery() | LookIn():
                self._set(effect)
            case Checkpoint(idle):
                # Cutting a long log waits for nobody, but others may wait for it: only while nothing is going on.
                store.checkpoint(idle=idle)
            case _:
                assert_never(effect)

    def _set(self, look: LookEvery | LookIn) -> None:
        assert self._address is not None
        match look:
            case LookEvery(period_ns):
                self._timers.every(period_ns, self._address, PollStore(), key="poll")
            case LookIn(delay_ns):
                self._timers.after(delay_ns, self._address, PollStore(), key="due")
            case _:
                assert_never(look)
