"""SettingsActor: what it hands on, to whom, and when; with real files and a clock that is set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.address import Address
from actors.setting import SettingsActor
from relaymesh.agents.agent_file import load_retry_file
from relaymesh.core.lease_change import HOLD_MS_MIN, LeaseTimeouts
from relaymesh.reload import News, SettingsWatch
from relaymesh.settings import SETTINGS_FILE, load
from relaymesh.store.root import create_layout
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.setting import SettingsChanged
from tests.actors.fakes import PATIENCE_S, ManualTimers

SECOND_NS = 1_000_000_000
NOW_MS = 4_000_000_000_000


class Desk:
    """A SettingsActor with one reader, an address that nobody reads."""

    def __init__(self, root: Path) -> None:
        create_layout(root)
        self.root = root
        self.news: list[News] = []
        self.timers = ManualTimers()
        self.reader, self.address = Address("reader"), Address("settings")
        watch = SettingsWatch(root, "default", load(root), load_retry_file(root), node_id="n")
        leases = LeaseTimeouts(15_000, reload_ms=1)
        self.limit = 32
        self.actor = SettingsActor(watch, leases, self, self.timers, [self.reader], every_ms=1)
        self.actor.launch(self.address)
        assert self.actor.wait_up(PATIENCE_S)

    def now_ms(self) -> int:
        return NOW_MS

    def took(self, news: News) -> None:
        self.news.append(news)
        self.limit = news.settings.retry_dispatch_limit

    def lease_bounds(self, owner_ms: int, judge_ms: int) -> SettingsChanged:
        return SettingsChanged(owner_ms, judge_ms, self.limit)

    def write(self, text: str) -> None:
        (self.root / SETTINGS_FILE).write_text(text)

    def after(self, seconds: float) -> list[SettingsChanged]:
        """Let time pass; return what the reader was told."""
        self.timers.advance(round(seconds * SECOND_NS))
        assert self.address.ask(Ping(), PATIENCE_S) is True
        found = []
        while self.reader.depth:
            told = codec.decode(self.reader.mailbox.queue.get_nowait())  # type: ignore[arg-type]
            assert isinstance(told, SettingsChanged)
            found.append(told)
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.actor.halt()
    assert desk.actor.wait_ended(PATIENCE_S)


def test_it_looks_once_a_second_at_most_and_hands_on_what_changed(desk: Desk) -> None:
    desk.after(0)
    desk.write(json.dumps({"leaseTimeoutMs": 4_000, "retryDispatchLimit": 7}))

    assert desk.after(0.9) == []
    told = desk.after(0.2)

    assert told == [SettingsChanged(4_000, 15_000, 7)]
    assert [news.outcome.changed_fields for news in desk.news] == [("leaseTimeoutMs", "retryDispatchLimit")]


def test_it_ends_the_hold_of_a_former_lease_by_itself(desk: Desk) -> None:
    desk.write(json.dumps({"leaseTimeoutMs": 4_000}))
    desk.after(1)

    desk.after(HOLD_MS_MIN / 1000)
    told = desk.after(1)

    assert told[-1] == SettingsChanged(4_000, 4_000, 32)


def test_a_bad_file_hands_on_what_held_before(desk: Desk) -> None:
    desk.after(0)
    desk.write('{"retryDispatchLimit": "many"}')

    assert set(desk.after(1)) == {SettingsChanged(15_000, 15_000, 32)}
    assert desk.news == []
