"""What a MaintenanceActor asks of the store and tells of it; with a clock that is set, on a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.address import Address
from actors.maintenance import TICK_NS, MaintenanceActor
from actors.reply import Asked
from actors.store_needs import NodeFacts
from relaymesh.core.clock_guard import Reading
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.mesh.placement import ranked
from relaymesh.core.mesh.silence import Patience
from relaymesh.core.reclaim import TURN_MS
from relaymesh.core.retry import RetryPolicy
from relaymesh.node_view import MaintenanceOutcome
from relaymesh.store.store import Store
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.store import MaintenanceDone, RunMaintenance, WriteNode
from tests.actors.fakes import PATIENCE_S, ManualTimers

NOW_MS = 1_700_000_000_000


class Desk:
    """A MaintenanceActor whose store is an address that nobody reads."""

    def __init__(self, root: Path, *, reclaims: bool) -> None:
        self.root = root
        self.told: list[MaintenanceOutcome] = []
        self.timers = ManualTimers()
        self.rules = MemberRules()
        self.jumped_ms = self.renewed = 0
        self.store, self.address = Address("store"), Address("maintenance")
        self.reads = Store.open(root, now_ms=NOW_MS)
        facts = NodeFacts(
            root=root,
            namespace="default",
            node_id="node-1",
            host="here",
            pid=1,
            agents="{}",
            pools={},
            limits={},
            policy_of=lambda _: RetryPolicy(),
        )
        self.actor = MaintenanceActor(
            facts, self, self.timers, self.store, lease_timeout_ms=15_000, reclaim_max=32, reclaims=reclaims
        )
        self.actor.launch(self.address)
        assert self.actor.wait_up(PATIENCE_S)

    def now_ms(self) -> int:
        return NOW_MS + self.jumped_ms + self.timers.now_ns() // 1_000_000

    def reading(self) -> Reading:
        return Reading(self.now_ms(), self.timers.now_ns(), "boot")

    def current_generation(self) -> int:
        return 1

    def member_rules(self) -> MemberRules:
        return self.rules

    def renewals(self) -> int:
        return self.renewed

    def maintained(self, done: MaintenanceOutcome) -> None:
        self.told.append(done)

    def row(self, number: int, owner: str, *, status: str = "RUNNING") -> None:
        with self.reads.write():
            self.reads.conn.execute(
                "INSERT INTO tasks(task_id, status, created_at_ms, updated_at_ms) VALUES (?, 'RUNNING', ?, ?)",
                (f"t{number}", NOW_MS, NOW_MS),
            )
            self.reads.conn.execute(
                "INSERT INTO steps(id, step_id, task_id, agent_id, status, lease_owner, lease_token, lease_epoch,"
                " created_at_ms, updated_at_ms) VALUES (?, ?, ?, 'echo', ?, ?, 'lse', 1, ?, ?)",
                (number, f"s{number}", f"t{number}", status, owner, NOW_MS, NOW_MS),
            )

    def change(self, sql: str) -> None:
        with self.reads.write():
            self.reads.conn.execute(sql)

    def tick(self, after_ns: int = TICK_NS) -> list[Any]:
        """One round; return what the store was asked, the reply with it where there is one."""
        self.timers.advance(after_ns)
        assert self.address.ask(Ping(), PATIENCE_S) is True
        return [
            (codec.decode(mail.data), mail.reply) if isinstance(mail, Asked) else codec.decode(mail)
            for mail in self.mail()
        ]

    def mail(self) -> list[Any]:
        """Return what has come to the store."""
        found: list[Any] = []
        while self.store.depth:
            found.append(self.store.mailbox.queue.get_nowait())
        return found

    def end(self) -> None:
        self.actor.halt()
        assert self.actor.wait_ended(PATIENCE_S)
        self.reads.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, reclaims=True)
    yield desk
    desk.end()


@pytest.fixture
def idle_desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, reclaims=False)
    yield desk
    desk.end()


def mark_dead(desk: Desk, node_id: str) -> None:
    desk.change(
        "INSERT INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms)"
        f" VALUES ('{node_id}', 'DEAD', {NOW_MS}, {NOW_MS}, {NOW_MS})"
    )


def test_what_the_store_took_back_is_told_with_what_it_became(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.row(number, "gone")
    mark_dead(desk, "gone")

    ((order, reply),) = [mail for mail in desk.tick() if isinstance(mail, tuple)]
    assert isinstance(order, RunMaintenance) and len(order.dead) == 3
    desk.change("UPDATE steps SET status='RETRYING' WHERE id=1")
    desk.change("UPDATE steps SET status='DEAD_LETTER' WHERE id=2")
    desk.change("UPDATE steps SET status='CANCELLED' WHERE id=3")
    reply.answer(MaintenanceDone(0, 3, 0, 0))
    desk.tick()
    desk.tick()

    assert desk.told == [
        MaintenanceOutcome(
            node_id="node-1", dead_owner_reclaimed=3, dead_owner_retry_scheduled=1, dead_owner_dead_lettered=1
        )
    ]


def test_a_store_that_has_not_answered_is_told_of_later(desk: Desk) -> None:
    desk.row(1, "gone")
    mark_dead(desk, "gone")
    ((_, reply),) = [mail for mail in desk.tick() if isinstance(mail, tuple)]
    desk.change("UPDATE steps SET status='RETRYING' WHERE id=1")

    desk.tick()
    assert desk.told == []
    reply.answer(MaintenanceDone(0, 1, 0, 0))
    desk.tick()

    assert [done.dead_owner_reclaimed for done in desk.told] == [1]


def test_a_lease_of_its_own_that_nobody_renews_is_taken_back_and_young_ones_are_not_looked_at(desk: Desk) -> None:
    desk.row(1, "node-1")
    for _ in range(17):
        assert orders(desk.tick()) == []
        desk.change("DELETE FROM steps WHERE id>1")
        desk.change(
            "INSERT INTO steps(step_id, task_id, agent_id, status, lease_owner, lease_token, lease_epoch,"
            " created_at_ms, updated_at_ms)"
            f" VALUES ('young', 't1', 'echo', 'RUNNING', 'node-1', 'lse', 1, 1, {desk.now_ms()})"
        )
    found = [order for _ in range(3) for order in orders(desk.tick())]

    assert {lease.step_id for order in found for lease in order.expired} == {"s1"}


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_lease_of_its_own_is_watched_when_the_wall_clock_was_set(desk: Desk, hours: int) -> None:
    desk.row(1, "node-1")
    desk.tick()
    desk.jumped_ms = hours * 3_600_000

    found = [order for _ in range(20) for order in orders(desk.tick())]

    assert {lease.step_id for order in found for lease in order.expired} == {"s1"}


def test_renewals_of_its_own_leases_are_counted(desk: Desk) -> None:
    desk.tick()
    desk.renewed += 3
    desk.tick()
    desk.tick()

    assert desk.told == [MaintenanceOutcome(node_id="node-1", lease_heartbeats=3)]


def test_without_maintenance_it_takes_nothing_back_and_goes_on_with_heartbeats(idle_desk: Desk) -> None:
    idle_desk.row(1, "gone")
    mark_dead(idle_desk, "gone")

    mail = [found for _ in range(6) for found in idle_desk.tick()]

    assert [type(found) for found in mail] == [WriteNode, WriteNode]
    assert mail[1].clock is not None  # what the next process must know of the clock


def member(desk: Desk, node_id: str, *, status: str = "ALIVE", silent_ms: int = 0) -> None:
    at_ms = desk.now_ms() - silent_ms
    desk.change(
        "INSERT OR REPLACE INTO mesh_nodes(node_id, status, last_heartbeat_ms, updated_at_ms, status_changed_at_ms,"
        f" generation, host) VALUES ('{node_id}', '{status}', {at_ms}, {at_ms}, {at_ms}, 1, 'elsewhere')"
    )


def orders(mail: list[Any]) -> list[RunMaintenance]:
    return [found[0] for found in mail if isinstance(found, tuple)]


def run_in(desk: Desk) -> None:
    """Let the time pass in which a node that has started judges nobody."""
    for _ in range(15):
        desk.tick()


def test_members_that_fell_silent_are_judged_by_the_store_and_what_it_marked_is_told(desk: Desk) -> None:
    run_in(desk)
    member(desk, "quiet", silent_ms=31_000)

    ((order, reply),) = [mail for mail in desk.tick() if isinstance(mail, tuple)]
    assert (order.judge_members, order.prune_members) == (True, False)
    member(desk, "quiet", status="SUSPECT")
    reply.answer(MaintenanceDone(0, 0, 0, 0, suspected=1, dead=2, pruned=3))
    desk.tick()

    assert desk.told == [
        MaintenanceOutcome(node_id="node-1", suspected_nodes_marked=1, dead_nodes_marked=2, dead_nodes_pruned=3)
    ]


def test_a_node_that_has_just_started_or_stood_still_gives_the_others_time_for_a_heartbeat(desk: Desk) -> None:
    def judged() -> list[bool]:
        return [order.judge_members for order in orders(desk.tick())]

    member(desk, "quiet", silent_ms=3_600_000)
    started = [judged() for _ in range(16)]
    desk.timers.jump(40_000_000_000)  # as if this process had been stopped
    assert desk.address.ask(Ping(), PATIENCE_S) is True
    desk.mail()
    stood_still = [judged() for _ in range(16)]

    assert started == [[]] * 14 + [[True]] * 2
    assert stood_still == [[]] * 14 + [[True]] * 2


def test_nobody_is_judged_by_a_clock_that_has_just_jumped(desk: Desk) -> None:
    run_in(desk)
    member(desk, "well")
    desk.tick()
    desk.jumped_ms = 3_600_000

    assert orders(desk.tick()) == []


def test_members_that_are_long_gone_are_pruned_once_a_minute_at_most(desk: Desk) -> None:
    desk.rules = MemberRules(prune_older_than_ms=5_000, prune_interval_ms=1)
    member(desk, "gone", status="DEAD", silent_ms=9_000)

    asked = [order.prune_members for _ in range(5) for order in orders(desk.tick())]

    assert asked == [True] * 5  # the interval is shorter than a round
    desk.rules = MemberRules(prune_older_than_ms=5_000, prune_interval_ms=3_600_000)
    asked = [order.prune_members for _ in range(60) for order in orders(desk.tick())]
    assert asked == [True, True] or asked == [True]


def test_heartbeats_come_often_enough_for_a_short_patience(desk: Desk) -> None:
    def beats(every_ns: int) -> int:
        return sum(isinstance(mail, WriteNode) for _ in range(10) for mail in desk.tick(every_ns))

    assert beats(TICK_NS) == 2
    desk.rules = MemberRules(patience=Patience(suspect_after_ms=1_500, dead_after_ms=3_000))
    desk.tick()
    assert beats(TICK_NS // 2) == 10


def test_a_step_whose_reclaimer_is_another_node_is_left_to_it_for_a_turn(desk: Desk) -> None:
    mark_dead(desk, "gone")
    number = next(n for n in range(1, 99) if ranked(f"s{n}", ("node-1", "node-2"))[0] == "node-2")
    desk.row(number, "gone")

    def alive() -> None:
        for node_id in ("node-1", "node-2"):
            member(desk, node_id)

    taken = []
    for _ in range(4):
        alive()
        taken.append([lease.step_id for order in orders(desk.tick()) for lease in order.dead])

    # Seen with the first round, and ours once its turn has passed.
    assert taken == [[], [], [f"s{number}"], [f"s{number}"]]
    assert TURN_MS == 2_000


def test_an_expiry_is_looked_for_at_its_instant_and_not_with_the_next_round(desk: Desk) -> None:
    desk.row(1, "elsewhere")
    for _ in range(16):
        assert orders(desk.tick()) == []

    # 1.03 leases of 15 s after it was first seen, at 1 s.
    desk.timers.advance(500_000_000)
    assert desk.address.ask(Ping(), PATIENCE_S) is True

    found = [codec.decode(mail.data) for mail in desk.mail() if isinstance(mail, Asked)]
    assert [[lease.row_id for lease in order.expired] for order in found] == [[1]]
