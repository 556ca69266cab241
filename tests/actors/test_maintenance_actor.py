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
        return NOW_MS + self.timers.now_ns() // 1_000_000

    def reading(self) -> Reading:
        return Reading(self.now_ms(), self.timers.now_ns(), "boot")

    def current_generation(self) -> int:
        return 1

    def member_rules(self) -> MemberRules:
        return self.rules

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

    def tick(self) -> list[Any]:
        """One round; return what the store was asked, the reply with it where there is one."""
        self.timers.advance(TICK_NS)
        assert self.address.ask(Ping(), PATIENCE_S) is True
        found: list[Any] = []
        while self.store.depth:
            mail = self.store.mailbox.queue.get_nowait()
            if isinstance(mail, Asked):
                found.append((codec.decode(mail.data), mail.reply))
            else:
                found.append(codec.decode(mail))  # type: ignore[arg-type]
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


def test_renewals_of_its_own_leases_are_counted(desk: Desk) -> None:
    desk.row(1, "node-1")
    desk.row(2, "node-1")
    desk.tick()
    desk.change("UPDATE steps SET updated_at_ms=updated_at_ms+2000 WHERE id=1")
    desk.tick()

    assert desk.told == [MaintenanceOutcome(node_id="node-1", lease_heartbeats=1)]


def test_without_maintenance_it_takes_nothing_back_and_goes_on_with_heartbeats(idle_desk: Desk) -> None:
    idle_desk.row(1, "gone")
    mark_dead(idle_desk, "gone")

    mail = [found for _ in range(6) for found in idle_desk.tick()]

    assert [type(found) for found in mail] == [WriteNode, WriteNode]
    assert mail[1].clock is not None  # what the next process must know of the clock
