"""What the StoreActor does around a crash of itself or of the queue, and when the database refuses."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.address import Address
from actors.store import NodeFacts, StoreActor
from relaymesh.core.ident import Ids
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.draft import draft_task
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from relaymesh.wire import codec
from relaymesh.wire.codec import Message
from relaymesh.wire.kernel import Crash, Ping
from relaymesh.wire.store import (
    Claimed,
    Demand,
    FinishedStep,
    FinishSteps,
    Grant,
    LeaseRef,
    PollStore,
    StoreAnswer,
    SubmitTasks,
    TakeOver,
    TookOver,
    WriteNode,
)
from relaymesh.wire.work import StepReport
from tests.actors.fakes import PATIENCE_S, Ends, ManualTimers

POLICY = RetryPolicy()


class Needs:
    """The rest of the node."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self.lost = 0
        self._tokens = 0

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def lease_token(self) -> str:
        self._tokens += 1
        return f"lse_{self._tokens}"

    def generation(self, number: int) -> None:
        self.generations.append(number)

    def current_generation(self) -> int:
        return self.generations[-1] if self.generations else 0

    def lost_generation(self) -> None:
        self.lost += 1


class Desk:
    """A StoreActor on a real database, between addresses that nobody reads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.queue, self.lease = Address("queue"), Address("lease")
        self.address = Address("store")
        self.needs = Needs()
        self.timers = ManualTimers()
        self.ends = Ends()
        self.actor: StoreActor | None = None
        self.ids = Ids(self.needs.now_ms, random.Random(1))
        Store.open(root, now_ms=self.needs.now_ms()).close()

    def launch(self) -> None:
        facts = NodeFacts(
            root=self.root,
            namespace="default",
            node_id="node-1",
            host="here",
            pid=1,
            agents="{}",
            pools={"echo": "inline"},
            limits={},
            policy_of=lambda _: POLICY,
        )
        self.actor = StoreActor(facts, self.needs, self.timers, self.queue, self.lease)
        self.actor.launch(self.address, on_end=self.ends.put)
        assert self.actor.wait_up(PATIENCE_S)

    def tell(self, *messages: Message) -> None:
        """Send; return when all was handled and committed."""
        for message in messages:
            self.address.tell(message)
        self.settle()

    def settle(self) -> None:
        # The second answer comes after the mailbox was empty once, so what came before the first is committed.
        for _ in range(2):
            assert self.address.ask(Ping(), PATIENCE_S) is True

    def crash(self) -> None:
        self.address.tell(Crash("now"))
        assert self.ends.last_word().crashed

    def submit(self, payload: str) -> None:
        files = Store.open(self.root, now_ms=self.needs.now_ms())
        task = draft_task(self.ids, files.payloads, "echo", payload, priority="NORMAL", key=payload)
        files.close()
        self.address.ask(SubmitTasks((task,)), PATIENCE_S, StoreAnswer)

    def claimed(self) -> list[Grant]:
        return [grant for message in self.mail(Claimed) for grant in message.grants]

    def mail(self, kind: type[Message]) -> list[Any]:
        found = []
        while self.queue.depth:
            found.append(codec.decode(self.queue.mailbox.queue.get_nowait()))  # type: ignore[arg-type]
        return [message for message in found if isinstance(message, kind)]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        conn = sqlite3.connect(self.root / DATABASE)
        try:
            return conn.execute(sql).fetchall()
        finally:
            conn.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    if desk.actor is not None and desk.actor.thread_alive:
        desk.actor.halt()
        assert desk.actor.wait_ended(PATIENCE_S)


def finished(grant: Grant) -> FinishedStep:
    return FinishedStep(grant.lease, StepReport(grant.lease.row_id, grant.lease.lease_token, "succeeded", "out"), "w")


def demand(after: int = 0, slots: int = 8) -> Demand:
    return Demand(after, {"inline": slots}, 8, 0, 0)


def test_a_heartbeat_from_before_a_restart_of_our_own_does_not_end_the_node(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.crash()

    desk.address.tell(WriteNode("node-1", 1, "ALIVE", "{}"))
    desk.address.tell(TakeOver())
    desk.launch()
    desk.settle()

    assert desk.needs.generations == [1, 2]
    assert desk.needs.lost == 0


def test_a_later_generation_of_another_process_ends_the_node(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    other = Store.open(desk.root, now_ms=desk.needs.now_ms())
    with other.write():
        other.register_node("node-1", pid=2, host="here", agents="{}", now_ms=desk.needs.now_ms())
    other.close()

    desk.tell(WriteNode("node-1", 1, "ALIVE", "{}"))

    assert desk.needs.lost == 1


def test_nothing_is_claimed_before_the_node_has_a_generation(desk: Desk) -> None:
    desk.launch()
    desk.submit("a")

    desk.tell(demand())
    early = desk.claimed()
    desk.tell(TakeOver())
    desk.tell(demand())

    assert early == []
    assert len(desk.claimed()) == 1
    assert desk.rows("SELECT owner_generation FROM steps") == [(1,)]


def test_a_submit_that_a_slot_waits_for_is_claimed_by_the_transaction_that_stores_it(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand(0, 2))

    desk.submit("first")

    # Nobody has told the store of a free slot since, and the answer says that the task is on disk.
    assert [grant.payload for grant in desk.claimed()] == ["first"]
    assert desk.rows("SELECT s.status, t.status, lease_epoch FROM steps s JOIN tasks t USING(task_id)") == [
        ("RUNNING", "RUNNING", 1)
    ]


def test_what_a_claim_leaves_of_a_demand_stands(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand(0, 2))

    for payload in ("first", "second", "third"):
        desk.submit(payload)

    assert [grant.payload for grant in desk.claimed()] == ["first", "second"]


def test_a_result_gives_its_slot_to_the_next_step_in_the_transaction_that_commits_it(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand(0, 1))
    desk.submit("first")
    desk.submit("second")
    (grant,) = desk.claimed()

    desk.tell(FinishSteps((finished(grant),)))

    assert [grant.payload for grant in desk.claimed()] == ["second"]


def test_a_demand_from_before_the_last_claim_changes_nothing(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand(0, 1))
    desk.submit("first")

    desk.tell(demand(0, 5))
    desk.submit("second")

    assert [grant.payload for grant in desk.claimed()] == ["first"]
    desk.tell(demand(1, 1))
    assert [grant.payload for grant in desk.claimed()] == ["second"]


def test_results_that_came_before_the_queue_crashed_are_committed_and_not_run_again(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("a")
    desk.tell(demand())
    (grant,) = desk.claimed()

    desk.address.tell(FinishSteps((finished(grant),)))
    desk.address.tell(TakeOver())
    desk.settle()

    assert desk.rows("SELECT status, attempt FROM steps") == [("SUCCESS", 1)]
    (took_over,) = desk.mail(TookOver)
    assert took_over.requeued == 0


def test_a_database_that_cannot_be_read_for_a_while_crashes_nothing_and_loses_no_result(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("a")
    desk.tell(demand())
    (grant,) = desk.claimed()
    desk.rows("ALTER TABLE steps RENAME TO away")

    desk.tell(PollStore())
    desk.tell(FinishSteps((finished(grant),)))
    desk.tell(demand(1))
    while_away = desk.ends.empty()
    desk.rows("ALTER TABLE away RENAME TO steps")
    desk.timers.advance(10_000_000_000)
    desk.settle()

    assert while_away
    assert desk.rows("SELECT status FROM steps") == [("SUCCESS",)]


def test_a_result_that_sqlite_cannot_take_does_not_keep_the_others_from_being_committed(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("good")
    desk.tell(Demand(0, {"inline": 8}, 8, 0, 0))
    (grant,) = desk.claimed()
    good = FinishedStep(
        grant.lease, StepReport(grant.lease.row_id, grant.lease.lease_token, "succeeded", output="ok"), "w"
    )
    # No row has such a number: SQLite counts to 2^63.
    lease = LeaseRef(2**63 + 1, "stp_x", "tsk_x", "echo", 1, "lse_x", 1, grant.lease.cluster_epoch, 1)
    bad = FinishedStep(lease, StepReport(lease.row_id, lease.lease_token, "succeeded", output="no"), "w")

    desk.tell(FinishSteps((bad, good)))

    assert desk.rows("SELECT status FROM tasks") == [("SUCCESS",)]
    assert desk.actor is not None
    assert desk.actor.thread_alive
