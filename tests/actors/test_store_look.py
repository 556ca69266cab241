"""The timers of the store's looks, and what it makes of each look. When to look: tests/core/test_look.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from actors.address import Address
from actors.store_look import Looks
from relaymesh.core.look import CHECKPOINT_NS, IDLE_POLL_NS, POLL_NS, QUIET_LOOKS
from relaymesh.wire.codec import decode
from relaymesh.wire.store import PollStore, StoreChanged
from tests.actors.fakes import ManualTimers

MS = 1_000_000


class FakeStore:
    """What a look reads."""

    def __init__(self) -> None:
        self.version = 1
        self.due_at_ms: int | None = None
        self.queued = False
        self.due_reads = 0
        self.checkpoints: list[bool] = []

    def reading(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def data_version(self) -> int:
        return self.version

    def next_due_ms(self) -> int | None:
        self.due_reads += 1
        return self.due_at_ms

    def has_queued_tick(self) -> bool:
        return self.queued

    def checkpoint(self, *, idle: bool) -> None:
        self.checkpoints.append(idle)


class Target:
    """Looks whenever a timer says so."""

    name = "store"
    closed = False

    def __init__(self) -> None:
        self.timers = ManualTimers()
        self.lease = Address("lease")
        needs: Any = self
        self.looks = Looks(self.timers, self.lease, needs)
        self.store: Any = FakeStore()
        self.at_ms: list[int] = []
        self.news: list[bool] = []

    def now_ms(self) -> int:
        return self.timers.now_ns() // MS

    def offer_bytes(self, data: bytes) -> bool:
        assert isinstance(decode(data), PollStore)
        self.at_ms.append(self.now_ms())
        self.news.append(self.looks.for_news(self.store))
        self.looks.for_due(self.store)
        return True

    def told(self) -> list[object]:
        mail = []
        while self.lease.depth:
            mail.append(decode(self.lease.mailbox.queue.get_nowait()))
        return mail


@pytest.fixture
def target() -> Iterator[Target]:
    target = Target()
    address: Any = target
    target.looks.begin(address)
    yield target
    target.looks.end()


def grow_quiet(target: Target) -> None:
    target.timers.advance((QUIET_LOOKS + 1) * POLL_NS + IDLE_POLL_NS)
    target.at_ms.clear()
    target.news.clear()


def test_looks_come_at_the_pace_of_the_rule(target: Target) -> None:
    grow_quiet(target)
    target.timers.advance(4 * IDLE_POLL_NS)
    assert len(target.at_ms) == 4

    target.looks.stir()
    target.at_ms.clear()
    target.timers.advance(3 * POLL_NS)

    assert len(target.at_ms) == 3


def test_a_commit_of_others_is_news_once_and_the_lease_actor_is_told(target: Target) -> None:
    grow_quiet(target)
    target.told()

    target.store.version += 1
    target.timers.advance(IDLE_POLL_NS + POLL_NS)

    assert target.news == [True, False]
    assert target.told() == [StoreChanged()]


def test_what_is_due_is_looked_at_when_it_is_and_not_with_the_next_look(target: Target) -> None:
    grow_quiet(target)
    target.store.due_at_ms = target.now_ms() + IDLE_POLL_NS // MS + 70
    target.looks.forget_due()

    target.timers.advance(2 * IDLE_POLL_NS)

    assert target.store.due_at_ms + 1 in target.at_ms
    assert target.looks.is_due


def test_what_is_due_is_asked_again_only_when_it_may_have_changed(target: Target) -> None:
    grow_quiet(target)
    reads = target.store.due_reads

    target.timers.advance(4 * IDLE_POLL_NS)
    assert target.store.due_reads == reads

    target.store.queued = True
    target.looks.forget_due()
    target.timers.advance(4 * IDLE_POLL_NS)
    assert target.store.due_reads == reads + 1
    assert target.looks.tick_queued


def test_the_log_is_cut_only_after_a_time_without_writes(target: Target) -> None:
    target.looks.wrote()
    target.timers.advance(2 * CHECKPOINT_NS + 2 * IDLE_POLL_NS)
    assert target.store.checkpoints == [False, True]


def test_nothing_comes_after_the_end(target: Target) -> None:
    grow_quiet(target)
    target.store.due_at_ms = target.now_ms() + IDLE_POLL_NS // MS + 70
    target.looks.forget_due()
    target.timers.advance(IDLE_POLL_NS)
    target.at_ms.clear()

    target.looks.end()
    target.timers.advance(10_000 * MS)

    assert target.at_ms == []
