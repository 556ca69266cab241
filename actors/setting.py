"""SettingsActor: looks at the settings of the root now and then, and tells the parts of the node what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, assert_never

from actors.address import Address
from actors.base import Actor
from actors.timer import Timers
from relaymesh.core.lease_change import LeaseTimeouts
from relaymesh.reload import News, SettingsWatch
from relaymesh.wire.setting import SettingsChanged, SettingsTick

__all__ = ["RELOAD_MS_MIN", "SettingsActor", "SettingsNeeds"]

RELOAD_MS_MIN = 1_000
"""The shortest time between two looks."""


class SettingsNeeds(Protocol):
    """What this actor asks of the rest of the node."""

    def now_ms(self) -> int: ...
    def took(self, news: News) -> None: ...
    def lease_bounds(self, owner_ms: int, judge_ms: int) -> SettingsChanged: ...


class SettingsActor(Actor):
    """See the module. every_ms: time between two looks. readers: who is told of SettingsChanged."""

    takes = SettingsTick

    def __init__(
        self,
        watch: SettingsWatch,
        leases: LeaseTimeouts,
        needs: SettingsNeeds,
        timers: Timers,
        readers: Sequence[Address],
        *,
        every_ms: int,
    ) -> None:
        super().__init__()
        self._watch = watch
        self._leases = leases
        self._needs = needs
        self._timers = timers
        self._readers = readers
        self._every_ns = max(RELOAD_MS_MIN, every_ms) * 1_000_000

    def started(self) -> None:
        self._watch.begin()
        self._tell()
        self._timers.every(self._every_ns, self.address, SettingsTick(), key="tick")

    def stopping(self) -> None:
        self._timers.cancel(self.address, "tick")
        self._timers.cancel(self.address, "hold")

    def receive(self, message: SettingsTick) -> None:
        match message:
            case SettingsTick():
                news = self._watch.look(self._needs.now_ms())
                if news is not None:
                    self._leases.change(self._timers.now_ns(), news.settings.lease_timeout_ms)
                    self._needs.took(news)
                self._tell()
            case _:
                assert_never(message)

    def _tell(self) -> None:
        now_ns = self._timers.now_ns()
        holds = self._needs.lease_bounds(self._leases.owner_ms(now_ns), self._leases.judge_ms(now_ns))
        # Each time, whether it changed or not: a full mailbox may have dropped the last one.
        for reader in self._readers:
            reader.tell(holds)
        settles_at_ns = self._leases.settles_at_ns(now_ns)
        if settles_at_ns is not None:
            self._timers.after(settles_at_ns - now_ns, self.address, SettingsTick(), key="hold")
