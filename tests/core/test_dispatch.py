"""The books of one node: plain cases, and with a store and workers whose words arrive late, in any order of events."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relaymesh.core.demand import Standing
from relaymesh.core.dispatch import (
    Ask,
    Claimed,
    Close,
    Dispatch,
    Drain,
    Drained,
    DrainTimeout,
    Effect,
    Ended,
    Event,
    GaveBack,
    Lost,
    Release,
    Revoke,
    Run,
    SetCapacity,
    Stop,
    TookOver,
    Withdraw,
    Withdrawn,
    WorkerUp,
)
from relaymesh.core.fairness import Fairness


def node(**capacities: int) -> Dispatch:
    """Return the books of a node that the store knows, with one worker per name, all in the pool ``p``."""
    books = Dispatch()
    books.handle(TookOver(0))
    for name, capacity in capacities.items():
        books.handle(WorkerUp(name, "p", capacity))
    return books


def ended(row_ids: tuple[int, ...], number: int = 2, **free: int) -> Ended:
    """These have ended; the store counts so many slots as free."""
    return Ended(row_ids, number, free)


def claimed(number: int, *row_ids: int) -> Claimed:
    return Claimed(number, {}, tuple((row_id, "p") for row_id in row_ids))


def test_the_first_demand_waits_until_the_store_knows_the_node() -> None:
    books = Dispatch()

    assert books.handle(WorkerUp("a", "p", 2)) == []
    assert books.handle(TookOver(7)) == [Ask(7, {"p": 2})]


def test_a_demand_names_the_free_slots_of_every_pool() -> None:
    books = Dispatch()
    books.handle(TookOver(0))

    assert books.handle(WorkerUp("a", "inline", 3)) == [Ask(0, {"inline": 3})]
    assert books.handle(WorkerUp("b", "process", 1)) == [Ask(0, {"inline": 3, "process": 1})]


def test_what_was_claimed_is_handed_to_idle_workers_first() -> None:
    books = node(a=3, b=3)
    books.handle(claimed(1, 1))

    assert books.handle(claimed(2, 2, 3)) == [Run("b", (2,)), Run("a", (3,)), Ask(2, {"p": 3})]


def test_a_step_that_ends_frees_its_slot_and_nothing_is_said_if_the_store_knows() -> None:
    books = node(a=1)
    books.handle(claimed(1, 1))

    assert books.handle(ended((1,), 2, p=1)) == []
    assert books.held() == ()
    assert books.free() == {"p": 1}


def test_a_count_of_the_store_that_is_not_ours_is_answered_by_a_demand() -> None:
    books = node(a=2)
    books.handle(claimed(1, 1))

    assert books.handle(ended((99,), 2, p=2)) == [Ask(2, {"p": 1})]
    assert books.handle(ended((98,), 3, p=1)) == []
    assert books.handle(ended((1,), 4)) == [Ask(4, {"p": 2})]


def test_the_same_demand_is_not_made_twice() -> None:
    books = node(a=2)

    assert books.handle(SetCapacity("a", 2)) == []
    assert books.handle(SetCapacity("a", 3)) == [Ask(0, {"p": 3})]


def test_a_demand_that_no_slot_backs_any_more_is_taken_back() -> None:
    books = node(a=2)

    assert books.handle(SetCapacity("a", 0)) == [Ask(0, {})]
    assert books.handle(SetCapacity("a", 0)) == []


def test_what_finds_no_slot_goes_back() -> None:
    books = node(a=2)
    books.handle(SetCapacity("a", 1))

    assert books.handle(claimed(1, 1, 2)) == [Run("a", (1,)), Release((2,))]


def test_a_claim_that_was_made_for_a_former_queue_goes_back() -> None:
    books = Dispatch()
    books.handle(WorkerUp("a", "p", 2))

    assert books.handle(claimed(4, 1, 2)) == [Release((1, 2))]
    assert books.handle(TookOver(4)) == [Ask(4, {"p": 2})]


def test_a_worker_that_starts_again_gives_back_what_it_held() -> None:
    books = node(a=2)
    books.handle(claimed(1, 1, 2))

    assert books.handle(WorkerUp("a", "p", 2)) == [Release((1, 2)), Ask(1, {"p": 2})]


def test_a_lost_lease_stops_its_step_and_frees_the_slot() -> None:
    books = node(a=2)
    books.handle(claimed(1, 1, 2))

    assert books.handle(Lost((2, 99))) == [Stop("a", (2,)), Ask(1, {"p": 1})]
    assert books.handle(ended((2,), 2, p=2)) == [Ask(2, {"p": 1})]


def test_what_is_given_back_after_its_lease_was_lost_is_nobodys_to_release() -> None:
    books = node(a=2)
    books.handle(claimed(1, 1, 2))
    books.handle(Lost((1,)))

    assert books.handle(GaveBack((1,))) == []
    assert books.handle(GaveBack((1, 2))) == [Release((2,)), Ask(1, {"p": 2})]


def test_a_drain_gives_back_what_has_not_begun_and_ends_with_what_runs() -> None:
    books = node(a=2)
    books.handle(claimed(1, 1, 2))

    assert books.handle(Drain()) == [Withdraw()]
    assert books.handle(Withdrawn(1)) == [Revoke("a", (1, 2))]
    assert books.handle(GaveBack((2,))) == [Release((2,))]
    assert books.handle(ended((1,))) == [Drained(1)]
    assert books.handle(ended((2,))) == []


def test_a_close_lets_all_that_was_taken_end() -> None:
    books = node(a=2)
    books.handle(claimed(1, 1, 2))

    assert books.handle(Close()) == [Withdraw()]
    assert books.handle(Withdrawn(1)) == []
    assert books.handle(ended((1, 2))) == [Drained(0)]


def test_a_drain_after_a_close_gives_back_what_has_not_begun_and_a_close_does_not_undo_it() -> None:
    books = node(a=2)
    books.handle(claimed(1, 1, 2))
    books.handle(Close())
    books.handle(Withdrawn(1))

    assert books.handle(Drain()) == [Withdraw()]
    assert books.handle(Close()) == [Withdraw()]
    assert books.handle(Withdrawn(1)) == [Revoke("a", (1, 2))]


def test_a_claim_that_comes_while_draining_goes_back_and_is_counted() -> None:
    books = node(a=2)
    books.handle(Drain())

    assert books.handle(claimed(1, 1, 2)) == [Release((1, 2))]
    assert books.handle(Withdrawn(1)) == [Drained(2)]


def test_a_word_of_withdrawal_that_overtakes_the_last_claim_counts_once_the_claim_is_here() -> None:
    books = node(a=2)
    books.handle(Drain())

    assert books.handle(Withdrawn(1)) == []
    assert books.handle(claimed(1, 1)) == [Release((1,)), Drained(1)]


def test_a_node_that_the_store_does_not_know_yet_drains_at_once() -> None:
    books = Dispatch()
    books.handle(WorkerUp("a", "p", 2))
    books.handle(Drain())

    assert books.handle(Withdrawn(0)) == [Drained(0)]
    assert books.handle(TookOver(0)) == []


def test_when_the_time_is_over_what_runs_is_stopped_and_given_back() -> None:
    books = node(a=1, b=1)
    books.handle(claimed(1, 1, 2))
    books.handle(Drain())
    books.handle(Withdrawn(1))

    assert books.handle(DrainTimeout()) == [Stop("a", (1,)), Stop("b", (2,)), Release((1, 2)), Drained(2)]
    assert books.handle(DrainTimeout()) == []


def test_the_end_of_a_drain_that_was_not_begun_changes_nothing() -> None:
    books = node(a=1)
    books.handle(claimed(1, 1))

    assert books.handle(DrainTimeout()) == []
    assert books.held() == (1,)


# Any order of events -------------------------------------------------------------------------------------------------

WORKERS = {"inline": "inline", "w1": "process", "w2": "process"}


@dataclass
class FakeStore:
    """Claims for the standing demand as the StoreActor does; both directions are first in, first out."""

    demand: Standing = field(default_factory=Standing)
    pools: dict[int, str] = field(default_factory=dict)
    inbox: deque[Effect | str] = field(default_factory=deque)
    outbox: deque[Event] = field(default_factory=deque)
    # What a step came to: once for each row that was claimed.
    out: Counter[int] = field(default_factory=Counter)

    def take(self, limit: int) -> None:
        match self.inbox.popleft():
            case "take over":
                self.demand.withdraw()
                self.outbox.append(TookOver(self.demand.number))
            case Ask(after, free):
                self.demand.take(free, after=after, limit=9, state=Fairness())
            case Withdraw():
                self.demand.withdraw()
                self.outbox.append(Withdrawn(self.demand.number))
            case Results(row_ids):
                self.commit(row_ids, limit)
            case Release(row_ids):
                self.commit(row_ids, limit, given_back=True)

    def commit(self, row_ids: tuple[int, ...], limit: int, *, given_back: bool = False) -> None:
        """Commit what ended, and claim for the slots that it leaves in the same transaction."""
        self.out.update(row_ids)
        number = self.demand.committed(self.demand.with_ended(self.pools[r] for r in row_ids if not given_back))
        self.outbox.append(Ended(row_ids, number, self.demand.free))
        self.claim(limit)

    def claim(self, limit: int) -> None:
        claimed = [pool for pool, count in self.demand.free.items() for _ in range(count)][:limit]
        if claimed:
            steps = tuple(enumerate(claimed, len(self.pools) + 1))
            self.pools.update(steps)
            self.outbox.append(Claimed(self.demand.claimed(claimed, Fairness()), self.demand.free, steps))


@dataclass(frozen=True)
class Results:
    """What workers tell the store."""

    row_ids: tuple[int, ...]


def test_a_demand_that_crosses_a_claim_on_the_way_promises_no_slot_twice() -> None:
    books, store = node(), FakeStore()
    store.inbox += books.handle(WorkerUp("a", "p", 1))
    store.take(9)
    store.claim(9)

    # The books do not know of the claim yet, so this counts the slot that it has taken.
    (crossing,) = books.handle(WorkerUp("b", "p", 1))
    store.inbox.append(crossing)
    store.take(9)
    store.claim(9)

    assert crossing == Ask(0, {"p": 2})
    assert list(store.outbox) == [claimed(1, 1)]
    assert books.handle(store.outbox.popleft()) == [Run("a", (1,)), Ask(1, {"p": 1})]


class DispatchMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.books = Dispatch()
        self.store = FakeStore()
        self.store.inbox.append("take over")
        self.capacity: dict[str, int] = {}
        self.running: dict[str, list[int]] = {name: [] for name in WORKERS}
        self.to_workers: deque[Effect] = deque()
        self.run: Counter[int] = Counter()
        self.at: dict[int, str] = {}
        self.released: Counter[int] = Counter()
        self.lost: set[int] = set()
        self.draining = self.shrunk = self.timed_out = False
        self.drained: list[Drained] = []

    def tell(self, event: Event) -> None:
        effects = self.books.handle(event)
        self.at.update({row_id: e.worker for e in effects if isinstance(e, Run) for row_id in e.row_ids})
        if isinstance(event, Claimed):
            placed = Counter(r for e in effects if isinstance(e, Run | Release) for r in e.row_ids)
            assert placed == Counter(row_id for row_id, _ in event.steps), "each is run or given back, once"
            homeless = [e for e in effects if isinstance(e, Release)]
            # A result that comes after its lease was given up leaves a slot that is free already.
            assert not homeless or self.draining or self.shrunk or self.lost, "a slot was promised twice"
        for effect in effects:
            match effect:
                case Ask(_, free):
                    assert not self.draining
                    assert free == self.books.free()
                    self.store.inbox.append(effect)
                case Withdraw():
                    self.store.inbox.append(effect)
                case Run(worker, row_ids):
                    assert not self.draining
                    assert len(self.held_by(worker)) <= self.capacity[worker]
                    self.run.update(row_ids)
                    self.to_workers.append(effect)
                case Release(row_ids):
                    self.released.update(row_ids)
                    self.store.inbox.append(effect)
                case Revoke() | Stop():
                    self.to_workers.append(effect)
                case Drained():
                    self.drained.append(effect)

    def held_by(self, worker: str) -> list[int]:
        return [row_id for row_id in self.books.held() if self.at[row_id] == worker]

    # -- workers

    @rule(name=st.sampled_from(sorted(WORKERS)), capacity=st.integers(1, 3))
    def worker_starts(self, name: str, capacity: int) -> None:
        self.running[name] = []
        self.to_workers = deque(e for e in self.to_workers if getattr(e, "worker", None) != name)
        self.shrunk |= capacity < self.capacity.get(name, 0)
        self.capacity[name] = capacity
        self.tell(WorkerUp(name, WORKERS[name], capacity))

    @precondition(lambda self: self.capacity)
    @rule(pick=st.integers(0, 2), capacity=st.integers(0, 4))
    def capacity_changes(self, pick: int, capacity: int) -> None:
        name = sorted(self.capacity)[pick % len(self.capacity)]
        self.shrunk |= capacity < self.capacity[name]
        self.capacity[name] = capacity
        self.tell(SetCapacity(name, capacity))

    @precondition(lambda self: self.to_workers)
    @rule(begun=st.integers(0, 3))
    def worker_takes(self, begun: int) -> None:
        match self.to_workers.popleft():
            case Run(worker, row_ids):
                self.running[worker] += row_ids
            case Revoke(worker, row_ids):
                back = tuple(row_id for row_id in self.running[worker][begun:] if row_id in row_ids)
                self.running[worker] = [row_id for row_id in self.running[worker] if row_id not in back]
                self.tell(GaveBack(back))
            case Stop(worker, row_ids):
                self.running[worker] = [row_id for row_id in self.running[worker] if row_id not in row_ids]

    @precondition(lambda self: any(self.running.values()))
    @rule(pick=st.integers(0, 99), count=st.integers(1, 3))
    def steps_end(self, pick: int, count: int) -> None:
        busy = [name for name, rows in self.running.items() if rows]
        name = busy[pick % len(busy)]
        ended, self.running[name] = self.running[name][:count], self.running[name][count:]
        self.store.inbox.append(Results(tuple(ended)))  # type: ignore[arg-type]

    @precondition(lambda self: len(self.books))
    @rule(pick=st.integers(0, 99))
    def lease_is_lost(self, pick: int) -> None:
        row_id = self.books.held()[pick % len(self.books)]
        self.lost.add(row_id)
        self.tell(Lost((row_id,)))

    # -- the store

    @precondition(lambda self: self.store.inbox)
    @rule(limit=st.integers(0, 9))
    def store_takes(self, limit: int) -> None:
        self.store.take(limit)

    @rule(limit=st.integers(1, 9))
    def store_claims(self, limit: int) -> None:
        self.store.claim(limit)

    @precondition(lambda self: self.store.outbox)
    @rule()
    def store_is_heard(self) -> None:
        self.tell(self.store.outbox.popleft())

    # -- the end

    @precondition(lambda self: len(self.store.pools) > 3)
    @rule(how=st.sampled_from([Drain(), Drain(), Close()]))
    def drain(self, how: Drain | Close) -> None:
        self.draining = True
        self.tell(how)

    @precondition(lambda self: self.draining)
    @rule()
    def time_is_over(self) -> None:
        self.timed_out = True
        self.tell(DrainTimeout())

    # -- what always holds

    @invariant()
    def nothing_is_given_back_twice(self) -> None:
        assert all(count == 1 for count in self.released.values())
        assert all(count == 1 for count in self.run.values())

    @invariant()
    def what_is_free_is_what_nobody_was_given(self) -> None:
        free: Counter[str] = Counter()
        for name, capacity in self.capacity.items():
            free[WORKERS[name]] += max(0, capacity - len(self.held_by(name)))
        assert self.books.free() == +free

    @invariant()
    def a_drain_is_over_once_and_then_nothing_is_held(self) -> None:
        assert len(self.drained) <= 1
        assert not self.drained or len(self.books) == 0

    def teardown(self) -> None:
        """Everybody says what he has to say, and what runs ends: then nothing is held, and nothing was lost."""
        for _ in range(10_000):
            if self.store.inbox:
                self.store.take(0)
            elif self.store.outbox:
                self.tell(self.store.outbox.popleft())
            elif self.to_workers:
                self.worker_takes(0)
            elif any(self.running.values()):
                self.steps_end(0, 3)
            else:
                break
        self.nothing_is_given_back_twice()
        assert len(self.books) == 0
        assert {row_id for row_id in self.store.pools if not self.store.out[row_id]} <= self.lost
        if self.draining:
            assert len(self.drained) == 1
            return
        # Free slots are asked for, all of them and with the right number, or nothing would ever run again.
        assert self.store.demand.stands
        assert self.store.demand.free == self.books.free()


TestDispatchMachine = DispatchMachine.TestCase
TestDispatchMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
