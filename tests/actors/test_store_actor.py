"""What the StoreActor does around a crash of itself or of the queue, and when the database refuses."""

from __future__ import annotations

import random
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.address import Address
from actors.store import StoreActor
from actors.store_needs import NodeFacts
from relaymesh.core.ident import Ids
from relaymesh.core.mesh.local import MemberRules
from relaymesh.core.retry import RetryPolicy
from relaymesh.store.claim import ClaimedRow
from relaymesh.store.connection import Durability
from relaymesh.store.draft import draft_task
from relaymesh.store.error import StoreIOError
from relaymesh.store.root import DATABASE
from relaymesh.store.store import Store
from relaymesh.wire import codec
from relaymesh.wire.codec import Message
from relaymesh.wire.kernel import Crash, Ping
from relaymesh.wire.store import (
    Claimed,
    Committed,
    Demand,
    FinishedStep,
    FinishSteps,
    Grant,
    LeaseRef,
    NewTask,
    PollStore,
    ReleaseSteps,
    RenewLeases,
    StoreAnswer,
    SubmitTasks,
    TakeOver,
    TookOver,
    WriteNode,
)
from relaymesh.wire.work import StepReport
from tests.actors.fakes import PATIENCE_S, Ends, ManualTimers, Wait

POLICY = RetryPolicy()


class Needs:
    """The rest of the node."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self.lost = self.renewals = 0
        self.commits: list[int] = []
        self.refusals = self.astray = 0
        self.rules = MemberRules()
        self.pauses: list[str] = []
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

    def committed(self, spent_ns: int, writes: int, finished: object, claimed: object) -> None:
        self.commits.append(writes)

    def renewed(self, leases: int) -> None:
        self.renewals += leases

    def refused(self) -> None:
        self.refusals += 1

    def lost_generation(self) -> None:
        self.lost += 1

    def lost_root(self) -> None:
        self.astray += 1

    def member_rules(self) -> MemberRules:
        return self.rules

    def paused(self, reason: str) -> None:
        self.pauses.append(reason)


class PatientStoreActor(StoreActor):
    """A StoreActor that stands still when told to Wait: what is sent meanwhile comes as one batch."""

    takes = StoreActor.takes | Wait
    store_class = Store

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.gate, self.waiting, self.quiet = threading.Event(), threading.Event(), threading.Event()

    def started(self) -> None:
        super().started()
        self._store.close()
        facts = self._facts
        self._store = self.store_class.open(facts.root, now_ms=self._needs.now_ms(), durability=facts.durability)
        self._store.state.remembers = self._store.latencies.later = True

    def receive(self, message: Any) -> None:
        if isinstance(message, Wait):
            self.waiting.set()
            self.gate.wait(PATIENCE_S)
        else:
            super().receive(message)

    def went_idle(self) -> None:
        super().went_idle()
        if not self._left_to_do():
            self.quiet.set()

    def counted_free(self) -> dict[str, int]:
        """Return the slots that the store may claim for; ask only while nothing is on its way to it."""
        return dict(self._claims.demand.free)

    def transactions(self) -> int:
        return self._store.transactions


class ForgetfulStore(Store):
    """A store on a disk that fails to give one step's input, once."""

    failed = False

    def render(self, row: ClaimedRow) -> Any:
        if not self.failed:
            self.failed = True
            raise StoreIOError("SQLITE_IOERR_READ")
        return super().render(row)


class ForgetfulStoreActor(PatientStoreActor):
    store_class = ForgetfulStore


class Desk:
    """A StoreActor on a real database, between addresses that nobody reads."""

    actor_class = PatientStoreActor
    pools: Mapping[str, str] = {"echo": "inline"}
    durability = Durability.FULL

    def __init__(self, root: Path) -> None:
        self.root = root
        self.limits: dict[str, int] = {}
        self.queue, self.lease = Address("queue"), Address("lease")
        self.address = Address("store")
        self.needs = Needs()
        self.timers = ManualTimers()
        self.ends = Ends()
        self.actor: PatientStoreActor | None = None
        self.last_number = 0
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
            pools=dict(self.pools),
            limits=self.limits,
            policy_of=lambda _: POLICY,
            durability=self.durability,
        )
        self.actor = self.actor_class(facts, self.needs, self.timers, self.queue, self.lease)
        self.actor.launch(self.address, on_end=self.ends.put)
        assert self.actor.wait_up(PATIENCE_S)

    def tell(self, *messages: Message) -> None:
        """Send; return when all was handled and committed."""
        for message in messages:
            self.address.tell(message)
        self.settle()

    def hold(self, *messages: Message) -> None:
        """Make the actor stand still, and send; ``let_go`` has it take all of this at once."""
        assert self.actor is not None
        self.actor.gate.clear()
        self.actor.waiting.clear()
        self.address.tell(Wait())
        assert self.actor.waiting.wait(PATIENCE_S)
        for message in messages:
            self.address.tell(message)

    def let_go(self) -> None:
        assert self.actor is not None
        self.actor.gate.set()

    def tell_together(self, *messages: Message) -> None:
        """Send as one batch; return when it was handled and committed."""
        self.hold(*messages)
        self.let_go()
        self.settle()

    def settle(self) -> None:
        assert self.actor is not None
        assert self.address.ask(Ping(), PATIENCE_S) is True
        # From here on the actor has received all; it is quiet once it has found nothing more to do.
        self.actor.quiet.clear()
        self.address.tell(Ping())
        assert self.actor.quiet.wait(PATIENCE_S)

    def crash(self) -> None:
        self.address.tell(Crash("now"))
        assert self.ends.last_word().crashed

    def draft(self, *payloads: str) -> tuple[NewTask, ...]:
        """Return tasks to store; the idempotency key is the beginning of the payload."""
        files = Store.open(self.root, now_ms=self.needs.now_ms())
        try:
            return tuple(
                draft_task(self.ids, files.payloads, "echo", payload, priority="NORMAL", key=payload[:40])
                for payload in payloads
            )
        finally:
            files.close()

    def submit(self, *payloads: str) -> None:
        self.address.ask(SubmitTasks(self.draft(*payloads)), PATIENCE_S, StoreAnswer)

    def submit_from_another_process(self, *payloads: str) -> None:
        other = Store.open(self.root, now_ms=self.needs.now_ms())
        with other.write():
            other.submit(self.draft(*payloads), now_ms=self.needs.now_ms())
        other.close()

    def claimed(self) -> list[Grant]:
        return [grant for message in self.mail(Claimed) for grant in message.grants]

    def mail(self, kind: type[Message]) -> list[Any]:
        found = []
        while self.queue.depth:
            found.append(codec.decode(self.queue.mailbox.queue.get_nowait()))  # type: ignore[arg-type]
            if isinstance(found[-1], Claimed | Committed | TookOver):
                self.last_number = found[-1].number
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


def demand(after: int = 0, slots: int = 8, limit: int = 8) -> Demand:
    return Demand(after, {"inline": slots}, limit, 0, 0)


def test_leases_that_were_renewed_are_counted_and_those_of_others_are_not(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand())
    desk.submit("a", "b")
    leases = [grant.lease for grant in desk.claimed()]

    words = [(lease.row_id, lease.lease_token, lease.lease_epoch, lease.cluster_epoch) for lease in leases]
    desk.tell(RenewLeases((*words, (99, "lse_of-another", 1, 1)), 0))

    assert len(leases) == 2
    assert desk.needs.renewals == 2


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


@pytest.mark.skipif(sys.platform == "win32", reason="a file that is open cannot be moved there")
@pytest.mark.parametrize("copied_back", [False, True])
def test_a_heartbeat_ends_a_node_whose_database_was_moved_away(desk: Desk, copied_back: bool) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(WriteNode("node-1", 1, "ALIVE", "{}"))
    assert desk.needs.astray == 0
    database = desk.root / DATABASE
    database.rename(database.with_name("elsewhere"))
    if copied_back:
        shutil.copy(database.with_name("elsewhere"), database)

    desk.tell(WriteNode("node-1", 1, "ALIVE", "{}"))

    assert desk.needs.astray >= 1


def test_a_claim_that_a_later_generation_refuses_ends_the_node_at_once(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    other = Store.open(desk.root, now_ms=desk.needs.now_ms())
    with other.write():
        other.register_node("node-1", pid=2, host="here", agents="{}", now_ms=desk.needs.now_ms())
    other.close()
    desk.submit("a")

    desk.tell(demand())
    desk.submit("b")

    assert desk.needs.lost == 1
    assert desk.claimed() == []
    assert desk.rows("SELECT event_type, worker_id FROM lease_conflicts") == [("claim_conflict", "node-1")]


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


def test_a_new_task_does_not_overtake_one_that_another_process_committed_without_a_word(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand(0, 1))
    desk.tell(PollStore())
    desk.submit_from_another_process("older")

    desk.submit("newer")

    assert [grant.payload for grant in desk.claimed()] == ["older"]


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


def test_a_slot_of_a_step_that_is_given_back_counts_once_when_the_new_demand_comes_with_it(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("a", "b", "c", "d", "e", "f")
    desk.tell(demand(0, 2))
    given_back, _ = desk.claimed()

    desk.tell_together(ReleaseSteps((given_back.lease,)), demand(desk.last_number, 1))

    assert len(desk.claimed()) == 1
    assert desk.rows("SELECT count(*) FROM steps WHERE status='RUNNING'") == [(2,)]


def test_a_step_that_is_given_back_brings_no_grant_while_its_slot_is_not_demanded(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("a", "b", "c")
    desk.tell(demand(0, 1))
    (grant,) = desk.claimed()

    desk.tell(ReleaseSteps((grant.lease,)))
    before_the_demand = desk.claimed()
    desk.tell(demand(desk.last_number, 1))

    assert before_the_demand == []
    assert len(desk.claimed()) == 1


def test_the_end_of_a_step_at_its_agents_limit_lets_the_next_be_claimed_in_the_same_transaction(desk: Desk) -> None:
    desk.limits = {"echo": 2}
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("first", "second", "third")
    desk.tell(demand(0, 5))
    first, _second = desk.claimed()
    assert desk.actor is not None
    before = desk.actor.transactions()

    desk.tell(FinishSteps((finished(first),)))

    # Nobody polled, and nobody told the store of a free slot: three were free all the time.
    assert [grant.payload for grant in desk.claimed()] == ["third"]
    assert desk.actor.transactions() == before + 1


def test_slots_that_the_limit_of_one_claim_leaves_free_are_claimed_for_without_another_word(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("a", "b", "c", "d", "e")

    desk.tell(demand(0, 5, limit=2))

    assert [len(message.grants) for message in desk.mail(Claimed)] == [2, 2, 1]


def test_a_hint_is_enough_to_find_what_another_process_committed(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.tell(demand())
    desk.submit_from_another_process("theirs")

    desk.tell(PollStore(hint=True))

    assert [grant.payload for grant in desk.claimed()] == ["theirs"]


def test_hundreds_of_steps_without_their_input_are_refused_one_after_the_other_and_crash_nothing(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit(*(f"lost {number}" for number in range(500)))
    lose_the_inputs(desk)

    desk.tell(demand(0, 1))

    assert desk.ends.empty()
    assert desk.rows("SELECT status, count(*) FROM steps GROUP BY status") == [("DEAD_LETTER", 500)]
    assert desk.claimed() == []


def test_what_a_claim_cannot_hold_is_claimed_next_without_another_word(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    # Two of these are more than one claim holds (CLAIM_CHARS_MAX), so the third goes back.
    desk.submit(*(f"{number}" * (9 * 1024 * 1024) for number in range(3)))

    desk.tell(demand(0, 3))

    assert [len(message.grants) for message in desk.mail(Claimed)] == [2, 1]
    assert desk.rows("SELECT DISTINCT status FROM steps") == [("RUNNING",)]


def test_a_step_whose_input_could_not_be_read_is_claimed_again_without_another_word(desk: Desk) -> None:
    desk.actor_class = ForgetfulStoreActor
    desk.launch()
    desk.tell(TakeOver())
    desk.submit("a", "b")
    desk.tell(demand(0, 2))
    while_the_disk_rests = len(desk.claimed())

    desk.timers.advance(1_000_000_000)
    desk.settle()

    assert while_the_disk_rests == 1
    assert [grant.payload for grant in desk.claimed()] == ["a"]


def test_a_step_whose_input_is_refused_by_the_last_claim_before_the_end_is_not_left_running(desk: Desk) -> None:
    desk.launch()
    desk.tell(TakeOver())
    desk.submit_from_another_process("lost")
    lose_the_inputs(desk)
    assert desk.actor is not None

    desk.hold(PollStore(hint=True), demand())
    desk.actor.finish()
    desk.let_go()

    assert desk.actor.wait_ended(PATIENCE_S)
    assert desk.rows("SELECT status FROM steps") == [("DEAD_LETTER",)]


def lose_the_inputs(desk: Desk) -> None:
    conn = sqlite3.connect(desk.root / DATABASE)
    with conn:
        conn.execute("UPDATE steps SET payload=NULL, payload_path='payloads/no/such-file.json'")
    conn.close()


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
