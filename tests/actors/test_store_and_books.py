"""The StoreActor and the books of its queue keep one count of the free slots, whatever happens, in whatever order.

The store is real, on a real database; the books are real; the workers and the mail between them are the test's. What
happens, and which words travel together, is drawn from a seed, so a failure comes again with the same seed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from relaymesh.core import dispatch
from relaymesh.store.claim import ClaimedRow
from relaymesh.store.connection import Durability
from relaymesh.store.draft import draft_task
from relaymesh.store.error import StoreFullError, StoreIOError
from relaymesh.store.store import Store
from relaymesh.wire import codec
from relaymesh.wire.codec import Message
from relaymesh.wire.store import (
    Claimed,
    Committed,
    Demand,
    FinishSteps,
    Grant,
    NewTask,
    PollStore,
    ReleaseSteps,
    SubmitTasks,
    TakeOver,
    TookOver,
)
from tests.actors.fakes import PATIENCE_S
from tests.actors.test_store_actor import Desk, PatientStoreActor, finished

POOLS = {"echo": "light", "scarce": "light", "crunch": "heavy"}
WORKERS = {"worker-1": "light", "worker-2": "light", "worker-3": "heavy"}
SCARCE_LIMIT = 2
EVENTS = 80
SEEDS = range(4)
# A longer exchange without a new event is a livelock: each step that is left comes up a few times at most.
ROUNDS_MAX = 100
REFUSALS = 0.3
SECOND_NS = 1_000_000_000


class MoodyStore(Store):
    """A store whose disk may be full at the end of a transaction, or fail when an input is read."""

    refuses: Callable[[], bool] = staticmethod(lambda: False)

    @contextmanager
    def write(self) -> Iterator[None]:
        with super().write():
            yield
            if self.refuses():
                raise StoreFullError

    def render(self, row: ClaimedRow) -> Any:
        if self.refuses():
            raise StoreIOError("SQLITE_IOERR_READ")
        return super().render(row)


class MoodyStoreActor(PatientStoreActor):
    """A StoreActor on such a store, whose disk makes trouble while ``moody``."""

    store_class = MoodyStore
    moody = False
    chance = random.Random()

    def started(self) -> None:
        super().started()
        assert isinstance(self._store, MoodyStore)
        self._store.refuses = lambda: self.moody and self.chance.random() < REFUSALS


class StoreDesk(Desk):
    actor_class = MoodyStoreActor
    pools = POOLS
    durability = Durability.FAST  # nothing here outlives the process


class Node:
    """A store, the books of its queue, and workers that hold what the books gave them."""

    def __init__(self, root: Path, seed: int, limits: dict[str, int], *, disk_refuses: bool) -> None:
        self.random = random.Random(seed)
        self.limits, self.disk_refuses = limits, disk_refuses
        self.desk = StoreDesk(root)
        self.desk.limits = limits
        self.desk.launch()
        assert isinstance(self.desk.actor, MoodyStoreActor)
        self.store = self.desk.actor
        self.store.chance = random.Random(seed + 1)
        self.client = Store.open(root, now_ms=self.desk.needs.now_ms(), durability=Durability.FAST)
        self.books = dispatch.Dispatch()
        self.grants: dict[int, Grant] = {}
        self.running: dict[int, tuple[str, Grant]] = {}
        self.outbox: list[Message] = [TakeOver()]
        self.position = self.high_run = self.submitted = 0
        self.steps_per_claim = self.random.choice([2, 5, 512])
        self.capacity = dict.fromkeys(WORKERS, 2)
        # Whether a slot that the store may have claimed for went away since all was quiet.
        self.slots_went_away = False
        for worker, pool in WORKERS.items():
            self.tell_books(dispatch.WorkerUp(worker, pool, 2))

    def close(self) -> None:
        self.client.close()
        if self.store.thread_alive:
            self.store.halt()
            assert self.store.wait_ended(PATIENCE_S)

    # The queue, as actors/queue.py has it.

    def tell_books(self, event: dispatch.Event) -> None:
        for effect in self.books.handle(event):
            match effect:
                case dispatch.Ask(after, free):
                    self.outbox.append(Demand(after, free, self.steps_per_claim, self.position, self.high_run))
                case dispatch.Run(worker, row_ids):
                    self.running.update((row_id, (worker, self.grants[row_id])) for row_id in row_ids)
                case dispatch.Release(row_ids):
                    leases = tuple(self.grants[row_id].lease for row_id in row_ids if row_id in self.grants)
                    self.outbox.append(ReleaseSteps(leases))

    def hear(self, word: Message) -> None:
        match word:
            case Claimed(number, free, grants, position, high_run):
                self.position, self.high_run = position, high_run
                self.grants.update((grant.lease.row_id, grant) for grant in grants)
                steps = tuple((grant.lease.row_id, grant.pool) for grant in grants)
                self.tell_books(dispatch.Claimed(number, free, steps))
                held = self.books.held()
                homeless = [row_id for row_id, _ in steps if row_id not in held]
                assert not homeless or self.slots_went_away, "a slot was promised twice"
            case Committed(leases, _, number, free):
                ours = tuple(row_id for row_id, epoch in leases if self.holds(row_id, epoch))
                self.tell_books(dispatch.Ended(ours, number, free))
                for row_id in ours:  # twice if its worker started again while its result was on the way
                    self.grants.pop(row_id, None)
            case TookOver(_, _, number):
                self.tell_books(dispatch.TookOver(number))

    def holds(self, row_id: int, lease_epoch: int) -> bool:
        return row_id in self.grants and self.grants[row_id].lease.lease_epoch == lease_epoch

    # The mail. It keeps its order; who reads how much of it, and when, is chance.

    def send(self) -> None:
        """Let the store take all that waits for it as one batch."""
        messages, self.outbox = self.outbox, []
        self.desk.tell_together(*messages)

    def read(self, words_max: int | None = None) -> None:
        words = 0
        while self.desk.queue.depth and (words_max is None or words < words_max):
            self.hear(codec.decode(self.desk.queue.mailbox.queue.get_nowait()))  # type: ignore[arg-type]
            words += 1

    def settle(self) -> None:
        """Let everybody say what he has to say; fail if that does not end."""
        if self.store.moody:
            self.store.moody = False
            self.desk.timers.advance(5 * SECOND_NS)
        for _ in range(ROUNDS_MAX):
            self.send()
            self.read()
            if not self.outbox:
                # A step that ends where more run than should leaves no slot, and the store counts one.
                held = Counter(self.running[row_id][0] for row_id in self.books.held())
                self.slots_went_away = any(held[worker] > self.capacity[worker] for worker in WORKERS)
                return
        pytest.fail("the store and the queue never stop talking about what is ready")

    # What happens.

    def something_happens(self) -> None:
        self.store.moody = self.disk_refuses
        (event,) = self.random.choices(
            [
                self.tasks_are_submitted,
                self.another_process_submits,
                self.a_step_ends,
                self.steps_are_given_back,
                self.a_capacity_changes,
                self.a_lease_is_given_up_and_its_result_comes_late,
                self.a_worker_starts_again,
                self.a_few_words_are_heard,
            ],
            weights=[25, 5, 30, 8, 8, 4, 4, 16],
        )
        event()
        if self.random.random() < 0.5:
            self.send()

    def some_tasks(self) -> tuple[NewTask, ...]:
        return tuple(self.a_task() for _ in range(self.random.choice([1, 1, 2, 9])))

    def a_task(self) -> NewTask:
        self.submitted += 1
        agent, priority = self.random.choice(sorted(POOLS)), self.random.choice(["HIGH", "NORMAL", "LOW"])
        key = f"task {self.submitted}"
        return draft_task(self.desk.ids, self.client.payloads, agent, "in", priority=priority, key=key)

    def tasks_are_submitted(self) -> None:
        self.outbox.append(SubmitTasks(self.some_tasks()))

    def another_process_submits(self) -> None:
        with self.client.write():
            self.client.submit(self.some_tasks(), now_ms=self.desk.needs.now_ms())
        self.outbox.append(PollStore(hint=True))

    def a_step_ends(self) -> None:
        if self.running:
            self.report(self.random.choice(sorted(self.running)))

    def report(self, row_id: int) -> None:
        _, grant = self.running.pop(row_id)
        self.outbox.append(FinishSteps((finished(grant),)))

    def steps_are_given_back(self) -> None:
        if self.running:
            row_ids = self.random.sample(sorted(self.running), self.random.randint(1, len(self.running)))
            for row_id in row_ids:
                del self.running[row_id]
            self.tell_books(dispatch.GaveBack(tuple(row_ids)))

    def a_capacity_changes(self) -> None:
        self.set_capacity(self.random.choice(sorted(WORKERS)), self.random.choice([0, 1, 2, 6]))

    def set_capacity(self, worker: str, capacity: int) -> None:
        self.slots_went_away |= capacity < self.capacity[worker]
        self.capacity[worker] = capacity
        self.tell_books(dispatch.SetCapacity(worker, capacity))

    def a_lease_is_given_up_and_its_result_comes_late(self) -> None:
        if self.running:
            row_id = self.random.choice(sorted(self.running))
            self.slots_went_away = True  # the result counts a slot as free that is free, and may be taken, already
            self.tell_books(dispatch.Lost((row_id,)))
            del self.grants[row_id]
            self.report(row_id)

    def a_worker_starts_again(self) -> None:
        worker = self.random.choice(sorted(WORKERS))
        self.running = {row_id: held for row_id, held in self.running.items() if held[0] != worker}
        self.slots_went_away = True  # as above, for results of its former self
        self.capacity[worker] = self.random.choice([1, 2])
        self.tell_books(dispatch.WorkerUp(worker, WORKERS[worker], self.capacity[worker]))

    def a_few_words_are_heard(self) -> None:
        self.read(self.random.randint(0, 3))

    # What holds when nobody has anything left to say.

    def check(self) -> None:
        free = self.books.free()
        assert self.store.counted_free() == free, "the store and the queue count different slots"
        assert dict(self.rows("SELECT status, count(*) FROM steps WHERE status='RUNNING' GROUP BY 1")) == (
            {"RUNNING": len(self.running)} if self.running else {}
        ), "a step is RUNNING with no worker"
        running = dict(self.rows("SELECT agent_id, count(*) FROM steps WHERE status='RUNNING' GROUP BY 1"))
        for agent, count in self.rows("SELECT agent_id, count(*) FROM steps WHERE status='PENDING' GROUP BY 1"):
            at_its_limit = running.get(agent, 0) >= self.limits.get(agent, count + len(self.running))
            assert not free.get(POOLS[agent]) or at_its_limit, f"{count} steps of {agent} wait beside {free}"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.client.conn.execute(sql).fetchall()

    def run_to_the_end(self) -> None:
        for worker in WORKERS:
            self.set_capacity(worker, 3)
        self.settle()
        while self.running:
            for row_id in sorted(self.running):
                self.report(row_id)
            self.settle()
            self.check()
        assert {status for (status,) in self.rows("SELECT DISTINCT status FROM steps")} <= {"SUCCESS"}
        assert self.store.thread_alive


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("limits", [{}, {"scarce": SCARCE_LIMIT}], ids=["no limit", "an agent limit"])
@pytest.mark.parametrize("disk_refuses", [False, True], ids=["disk fine", "disk refuses"])
def test_no_slot_is_counted_twice_and_none_is_forgotten(
    tmp_path: Path, disk_refuses: bool, limits: dict[str, int], seed: int
) -> None:
    node = Node(tmp_path, seed, limits, disk_refuses=disk_refuses)
    try:
        for _ in range(EVENTS):
            node.something_happens()
            if node.random.random() < 0.25:
                node.settle()
                node.check()
        node.run_to_the_end()
    finally:
        node.close()
