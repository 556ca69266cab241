"""A StoreActor whose own node is not ALIVE, or cut off, claims nothing, says so once, and goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymesh.core.mesh.local import MemberRules
from relaymesh.store.store import Store
from relaymesh.wire.store import LocalVerdict, PollStore, TakeOver, WriteNode
from tests.actors.fakes import PATIENCE_S
from tests.actors.test_store_actor import Desk, demand


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand())
    yield desk
    if desk.actor is not None and desk.actor.thread_alive:
        desk.actor.halt()
        assert desk.actor.wait_ended(PATIENCE_S)


def mark(desk: Desk, status: str, *, for_ms: int = 0) -> None:
    """As another process does."""
    now_ms = desk.needs.now_ms()
    other = Store.open(desk.root, now_ms=now_ms)
    with other.write():
        other.conn.execute(
            "UPDATE mesh_nodes SET status=?, status_changed_at_ms=? WHERE node_id='node-1'", (status, now_ms - for_ms)
        )
    other.close()


def paused_total(desk: Desk) -> list[tuple[object, ...]]:
    return desk.rows("SELECT value FROM counters WHERE name='worker_paused'")


@pytest.mark.parametrize("status", ["SUSPECT", "DEAD"])
def test_a_node_that_others_hold_dead_claims_nothing_until_it_is_alive_again(desk: Desk, status: str) -> None:
    mark(desk, status)
    desk.tell(PollStore())
    desk.submit("a")
    held = desk.claimed()
    mark(desk, "ALIVE")
    desk.tell(PollStore())

    assert held == []
    assert [grant.payload for grant in desk.claimed()] == ["a"]
    assert len(desk.needs.pauses) == 2
    assert status in desk.needs.pauses[0] and desk.needs.pauses[1] == ""
    assert paused_total(desk) == [(1,)]


def test_its_own_heartbeat_tells_it_and_brings_it_back_after_the_dwell(desk: Desk) -> None:
    mark(desk, "DEAD", for_ms=29_999)
    desk.tell(WriteNode("node-1", 1, "ALIVE", "{}"))
    desk.submit("a")
    held = desk.claimed()
    mark(desk, "DEAD", for_ms=30_000)
    desk.tell(WriteNode("node-1", 1, "ALIVE", "{}"))

    assert held == []
    assert len(desk.claimed()) == 1
    assert desk.rows("SELECT status FROM mesh_nodes") == [("ALIVE",)]


def test_a_pause_that_gets_worse_is_counted_once(desk: Desk) -> None:
    for status in ("SUSPECT", "DEAD"):
        mark(desk, status)
        desk.tell(PollStore())

    assert [bool(reason) for reason in desk.needs.pauses] == [True, True]
    assert paused_total(desk) == [(1,)]


def test_what_the_mesh_says_of_the_node_counts_like_what_others_say(desk: Desk) -> None:
    desk.tell(LocalVerdict(False, "nobody answers"))
    desk.submit("a")
    held = desk.claimed()
    desk.tell(LocalVerdict(True))

    assert held == []
    assert len(desk.claimed()) == 1
    assert "nobody answers" in desk.needs.pauses[0]


def test_both_have_to_be_well_before_it_goes_on(desk: Desk) -> None:
    mark(desk, "SUSPECT")
    desk.tell(PollStore(), LocalVerdict(False, "nobody answers"))
    mark(desk, "ALIVE")
    desk.tell(PollStore())
    desk.submit("a")
    held = desk.claimed()
    desk.tell(LocalVerdict(True))

    assert held == []
    assert len(desk.claimed()) == 1
    assert paused_total(desk) == [(1,)]


def test_with_the_setting_off_it_works_whatever_is_thought_of_it(desk: Desk) -> None:
    desk.needs.rules = MemberRules(pauses=False)
    mark(desk, "DEAD")
    desk.tell(PollStore(), LocalVerdict(False, "nobody answers"))

    desk.submit("a")

    assert len(desk.claimed()) == 1
    assert desk.needs.pauses == []


def test_a_node_that_starts_within_its_dwell_is_paused_from_the_start(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "other")
    desk.launch()
    desk.tell(TakeOver())
    mark(desk, "DEAD")
    desk.crash()
    desk.needs.generations.clear()  # as a process that has just started
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand())

    desk.submit("a")

    assert desk.claimed() == []
    assert "DEAD" in desk.needs.pauses[0]
    assert desk.actor is not None
    desk.actor.halt()
    assert desk.actor.wait_ended(PATIENCE_S)


def test_who_asks_for_one_step_only_is_answered_although_there_is_a_pause(desk: Desk) -> None:
    from relaymesh.wire.store import Claimed, Demand

    desk.mail(Claimed)
    mark(desk, "SUSPECT")
    desk.tell(PollStore())

    desk.tell(Demand(desk.last_number, {"inline": 1}, 1, 0, 0, once=True))

    assert [message.grants for message in desk.mail(Claimed)] == [()]
