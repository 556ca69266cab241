"""The looks of a store that nobody sends anything: often after news, rarely while nothing goes on, at once when due."""

from __future__ import annotations

from typing import Any

import pytest

from actors.store_look import IDLE_POLL_NS, POLL_NS, QUIET_LOOKS, Looks
from relaymesh.wire.codec import decode
from relaymesh.wire.store import PollStore
from tests.actors.fakes import ManualTimers

MS = 1_000_000


class Target:
    """Takes what timers bring, and answers each look as the test says."""

    name = "store"
    closed = False

    def __init__(self, timers: ManualTimers) -> None:
        self.timers = timers
        self.looks = Looks(timers)
        self.at_ms: list[int] = []
        self.news = False
        self.due_at_ms: int | None = None

    def offer_bytes(self, data: bytes) -> bool:
        assert isinstance(decode(data), PollStore)
        now_ms = self.timers.now_ns() // MS
        self.at_ms.append(now_ms)
        self.looks.looked(self.news, None if self.due_at_ms is None else self.due_at_ms - now_ms)
        return True

    def pauses_ms(self) -> list[int]:
        return [after - before for before, after in zip(self.at_ms, self.at_ms[1:], strict=False)]


@pytest.fixture
def target() -> Target:
    target = Target(ManualTimers())
    address: Any = target
    target.looks.begin(address)
    return target


def grow_quiet(target: Target) -> None:
    target.timers.advance(QUIET_LOOKS * POLL_NS + IDLE_POLL_NS)
    target.at_ms.clear()


def test_looks_come_rarely_once_enough_of_them_found_nothing(target: Target) -> None:
    target.timers.advance(2_000 * MS)
    pauses = target.pauses_ms()
    assert pauses[: QUIET_LOOKS - 1] == [POLL_NS // MS] * (QUIET_LOOKS - 1)
    assert set(pauses[QUIET_LOOKS - 1 :]) == {IDLE_POLL_NS // MS}


def test_while_there_is_news_looks_come_often(target: Target) -> None:
    target.news = True
    target.timers.advance(2_000 * MS)
    assert set(target.pauses_ms()) == {POLL_NS // MS}


@pytest.mark.parametrize("by", ["stir", "news"])
def test_whatever_happens_makes_looks_come_often_again(target: Target, by: str) -> None:
    grow_quiet(target)
    if by == "stir":
        target.looks.stir()
    else:
        target.news = True
        target.timers.advance(IDLE_POLL_NS)
        target.news = False
        target.at_ms.clear()
    target.timers.advance(3 * POLL_NS)
    assert len(target.at_ms) == 3


def test_what_is_due_is_looked_at_when_it_is_and_not_with_the_next_look(target: Target) -> None:
    grow_quiet(target)
    target.due_at_ms = target.timers.now_ns() // MS + IDLE_POLL_NS // MS + 70
    target.timers.advance(2 * IDLE_POLL_NS)
    assert target.due_at_ms + 1 in target.at_ms


def test_what_is_overdue_does_not_make_it_look_without_a_pause(target: Target) -> None:
    grow_quiet(target)
    target.due_at_ms = 0
    target.timers.advance(4 * IDLE_POLL_NS)
    assert len(target.at_ms) == 4


def test_nothing_comes_after_the_end(target: Target) -> None:
    grow_quiet(target)
    target.due_at_ms = target.timers.now_ns() // MS + IDLE_POLL_NS // MS + 70
    target.timers.advance(IDLE_POLL_NS)
    target.at_ms.clear()
    target.looks.end()
    target.timers.advance(10_000 * MS)
    assert target.at_ms == []
