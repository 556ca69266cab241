"""The owner's side of leases, alone and against a store and a judge in any order of events."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from relaymesh.core.lease import (
    Abandon,
    AbandonReason,
    Claimed,
    Effect,
    Event,
    Finished,
    Leases,
    Lost,
    Renew,
    Renewed,
    RenewFailed,
    Tick,
    renew_period_ns,
    trust_margin_ns,
)
from relaymesh.core.reclaim import Expire, Reclaim, RunningRow, Scanned

MS = 1_000_000
LEASE_MS = 3_000
PERIOD = 1_000 * MS
TRUST = 2_250 * MS


def leases() -> Leases:
    return Leases(lease_timeout_ms=LEASE_MS)


def claim(row_id: int = 1, *, epoch: int = 1, asked_at_ns: int = 0) -> Claimed:
    return Claimed(row_id, f"lease_{row_id}_{epoch}", epoch, 1, asked_at_ns)


def renewed_rows(effects: list[Effect]) -> list[int]:
    return [lease.row_id for effect in effects if isinstance(effect, Renew) for lease in effect.leases]


def test_a_claim_is_trusted_from_the_moment_we_asked_not_from_the_answer() -> None:
    machine = leases()

    machine.handle(2_000 * MS, claim(asked_at_ns=0))

    assert machine.trusted(TRUST - 1, 1, 1)
    assert not machine.trusted(TRUST, 1, 1)


def test_a_renewal_is_trusted_from_the_moment_we_asked() -> None:
    machine = leases()
    machine.handle(0, claim())

    machine.handle(1_900 * MS, Renewed((1,), asked_at_ns=1_000 * MS))

    assert machine.trusted(1_000 * MS + TRUST - 1, 1, 1)
    assert not machine.trusted(1_000 * MS + TRUST, 1, 1)


def test_an_answer_that_was_overtaken_takes_no_trust_back() -> None:
    machine = leases()
    machine.handle(0, claim())

    machine.handle(1_900 * MS, Renewed((1,), asked_at_ns=1_000 * MS))
    machine.handle(1_901 * MS, Renewed((1,), asked_at_ns=500 * MS))

    assert machine.trusted(1_000 * MS + TRUST - 1, 1, 1)


def test_a_lease_is_renewed_after_a_third_of_it_and_not_before() -> None:
    machine = leases()
    machine.handle(0, claim())

    assert machine.handle(PERIOD - 1, Tick()) == []
    assert machine.handle(PERIOD, Tick()) == [Renew((claim(),), PERIOD)]
    assert machine.handle(PERIOD + 1, Tick()) == []


def test_a_step_that_ended_before_its_first_renewal_is_never_renewed() -> None:
    machine = leases()
    machine.handle(0, claim())

    machine.handle(10 * MS, Finished(1, 1))

    assert machine.wake_at_ns is None
    assert machine.handle(PERIOD, Tick()) == []


def test_one_batch_takes_all_that_is_due_within_half_a_period() -> None:
    machine = leases()
    for row_id, asked_at_ns in [(1, 0), (2, 500 * MS), (3, 501 * MS)]:
        machine.handle(asked_at_ns, claim(row_id, asked_at_ns=asked_at_ns))

    effects = machine.handle(PERIOD, Tick())

    assert renewed_rows(effects) == [1, 2]
    assert len(effects) == 1


def test_no_lease_waits_longer_than_a_period_for_its_renewal() -> None:
    machine = leases()
    machine.handle(0, claim(1))
    machine.handle(600 * MS, claim(2, asked_at_ns=600 * MS))
    machine.handle(PERIOD, Tick())

    assert machine.wake_at_ns == 600 * MS + PERIOD
    # The other one would be due within half a period, so it comes along: from here on both share a batch.
    assert renewed_rows(machine.handle(1_600 * MS, Tick())) == [1, 2]


def test_the_trust_ends_when_no_answer_comes() -> None:
    machine = leases()
    machine.handle(0, claim())
    machine.handle(PERIOD, Tick())
    machine.handle(2 * PERIOD, Tick())

    assert machine.wake_at_ns == TRUST
    assert machine.handle(TRUST, Tick()) == [Abandon(1, 1, AbandonReason.TRUST_RAN_OUT)]
    assert len(machine) == 0
    assert machine.handle(TRUST + 1, Tick()) == []


def test_a_store_that_failed_is_asked_again_sooner_but_gains_no_trust() -> None:
    machine = leases()
    machine.handle(0, claim())
    machine.handle(PERIOD, Tick())

    machine.handle(PERIOD + 10 * MS, RenewFailed(asked_at_ns=PERIOD))

    assert machine.wake_at_ns == PERIOD + 10 * MS + PERIOD // 4
    assert renewed_rows(machine.handle(PERIOD + 10 * MS + PERIOD // 4, Tick())) == [1]
    assert not machine.trusted(TRUST, 1, 1)


def test_a_failed_answer_to_an_older_question_changes_nothing() -> None:
    machine = leases()
    machine.handle(0, claim())
    machine.handle(PERIOD, Tick())
    machine.handle(2 * PERIOD, Tick())

    machine.handle(2 * PERIOD + 1, RenewFailed(asked_at_ns=PERIOD))

    assert machine.handle(2 * PERIOD + PERIOD // 4 + 1, Tick()) == [Abandon(1, 1, AbandonReason.TRUST_RAN_OUT)]


def test_a_lost_step_is_abandoned_at_once() -> None:
    machine = leases()
    machine.handle(0, claim())

    assert machine.handle(1, Lost(1, 1)) == [Abandon(1, 1, AbandonReason.LOST)]
    assert not machine.trusted(1, 1, 1)
    assert machine.handle(2, Lost(1, 1)) == []


@pytest.mark.parametrize("news", [Lost(1, 1), Finished(1, 1)])
def test_news_about_a_former_lease_of_a_step_does_not_touch_the_present_one(news: Event) -> None:
    machine = leases()
    machine.handle(0, claim(epoch=1))
    machine.handle(1, Finished(1, 1))
    machine.handle(2, claim(epoch=2, asked_at_ns=2))

    assert machine.handle(3, news) == []
    assert machine.trusted(3, 1, 2)
    assert not machine.trusted(3, 1, 1)


def test_a_newer_claim_of_a_step_that_is_still_held_stops_the_older_run() -> None:
    machine = leases()
    machine.handle(0, claim(epoch=1))

    assert machine.handle(1, claim(epoch=3, asked_at_ns=1)) == [Abandon(1, 1, AbandonReason.LOST)]
    assert machine.handle(2, claim(epoch=2, asked_at_ns=2)) == []
    assert machine.trusted(2, 1, 3)


def test_a_node_that_was_stopped_past_its_leases_abandons_them_before_it_does_anything_else() -> None:
    machine = leases()
    machine.handle(0, claim(1))
    machine.handle(0, claim(2))

    effects = machine.handle(60_000 * MS, Tick())

    assert effects == [Abandon(row_id, 1, AbandonReason.TRUST_RAN_OUT) for row_id in (1, 2)]


def test_answers_about_steps_that_are_no_longer_held_are_ignored() -> None:
    machine = leases()

    assert machine.handle(0, Renewed((1, 2), 0)) == machine.handle(0, RenewFailed(0)) == []
    assert machine.handle(0, Lost(9, 9)) == machine.handle(0, Finished(9, 9)) == machine.handle(0, Tick()) == []


@pytest.mark.parametrize(
    ("lease_ms", "period_ms", "margin_ms"),
    [
        (100, 33.333333, 25),
        (3_000, 1_000, 750),
        (4_000, 1_333.333333, 1_000),
        (15_000, 2_000, 1_500),
        (60_000, 2_000, 6_000),
    ],
)
def test_the_margins_scale_with_the_lease(lease_ms: int, period_ms: float, margin_ms: float) -> None:
    assert renew_period_ns(lease_ms) / MS == pytest.approx(period_ms)
    assert trust_margin_ns(lease_ms) / MS == margin_ms


@pytest.mark.parametrize("lease_ms", [0, -1, 99])
def test_a_lease_that_is_too_short_to_be_kept_is_refused(lease_ms: int) -> None:
    with pytest.raises(ValueError, match="at least 100"):
        Leases(lease_timeout_ms=lease_ms)


events = st.one_of(
    st.builds(claim, st.integers(1, 4), epoch=st.integers(1, 5), asked_at_ns=st.integers(0, 9_000 * MS)),
    st.builds(Renewed, st.lists(st.integers(1, 4), max_size=4).map(tuple), st.integers(0, 9_000 * MS)),
    st.builds(RenewFailed, st.integers(0, 9_000 * MS)),
    st.builds(Lost, st.integers(1, 4), st.integers(1, 5)),
    st.builds(Finished, st.integers(1, 4), st.integers(1, 5)),
    st.just(Tick()),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2_000 * MS), events), max_size=40))
def test_any_order_of_events_is_taken_and_a_timely_wake_never_misses_the_end_of_a_trust(
    moves: list[tuple[int, Event]],
) -> None:
    machine, now_ns, epochs = leases(), 0, dict[int, set[int]]()
    for advance_ns, event in moves:
        now_ns += advance_ns
        if isinstance(event, Claimed):
            event = replace(event, asked_at_ns=min(event.asked_at_ns, now_ns))
            epochs.setdefault(event.row_id, set()).add(event.lease_epoch)
        elif isinstance(event, Renewed | RenewFailed):
            event = replace(event, asked_at_ns=min(event.asked_at_ns, now_ns))

        effects = machine.handle(now_ns, event)

        for effect in effects:
            if isinstance(effect, Abandon):
                assert not machine.trusted(now_ns, effect.row_id, effect.lease_epoch)
        wake_at_ns = machine.wake_at_ns
        assert (wake_at_ns is None) == (len(machine) == 0)
        if wake_at_ns is not None and wake_at_ns > now_ns:
            before = machine.handle(wake_at_ns - 1, Tick())
            assert not any(isinstance(effect, Renew) for effect in before)
            now_ns = wake_at_ns - 1


# The whole protocol. Owners, a store and a judge with clocks of their own; every message waits as long as Hypothesis
# likes, and time passes in steps that land on both sides of every limit.

RATES = (0.99, 0.995, 1.0, 1.005, 1.01)
STEPS_MS = (1, 30, 200, 333, 500, 740, 760, 990, 1_000)


@dataclass
class Row:
    status: str = "PENDING"
    owner: int = -1
    token: str = ""
    lease_epoch: int = 0
    updated_at_ms: int = 0


@dataclass
class Owner:
    rate: float
    machine: Leases
    running: dict[int, Claimed] = field(default_factory=dict)
    to_store: deque[object] = field(default_factory=deque)
    from_store: deque[Event] = field(default_factory=deque)
    fenced: list[Claimed] = field(default_factory=list)


@dataclass(frozen=True)
class AskClaim:
    row_id: int
    asked_at_ns: int


@dataclass(frozen=True)
class Commit:
    lease: Claimed


class World(RuleBasedStateMachine):
    """One step, two owners, one judge. True time is the store's."""

    lease_ms = 1_000

    @initialize(rates=st.lists(st.sampled_from(RATES), min_size=3, max_size=3))
    def start(self, rates: list[float]) -> None:
        self.true_ns = 10**9
        self.rows = {1: Row()}
        self.owners = [Owner(rate, Leases(lease_timeout_ms=self.lease_ms)) for rate in rates[:2]]
        self.judge_rate = rates[2]
        self.judge = Reclaim(lease_timeout_ms=self.lease_ms)
        self.scan_asked_at_ns: int | None = None
        self.scan_rows: list[RunningRow] | None = None
        self.committed: set[tuple[int, int]] = set()

    def clock(self, rate: float) -> int:
        return int(self.true_ns * rate)

    def feed(self, owner: Owner, event: Event) -> None:
        for effect in owner.machine.handle(self.clock(owner.rate), event):
            if isinstance(effect, Renew):
                owner.to_store.append(effect)
            else:
                lease = owner.running.pop(effect.row_id)
                assert lease.lease_epoch == effect.lease_epoch
                owner.fenced.append(lease)

    @rule(advance_ms=st.sampled_from(STEPS_MS))
    def time_passes(self, advance_ms: int) -> None:
        self.true_ns += advance_ms * MS

    @rule(k=st.integers(0, 1))
    def an_owner_asks_for_the_step(self, k: int, row_id: int = 1) -> None:
        owner = self.owners[k]
        if row_id not in owner.running and not any(isinstance(ask, AskClaim) for ask in owner.to_store):
            owner.to_store.append(AskClaim(row_id, self.clock(owner.rate)))

    @rule(k=st.integers(0, 1))
    def an_owner_ticks(self, k: int) -> None:
        self.feed(self.owners[k], Tick())

    @rule(k=st.integers(0, 1), asks=st.booleans())
    def everything_is_delivered_at_once(self, k: int, asks: bool) -> None:
        """The usual case, which single deliveries would reach too seldom."""
        self.feed(self.owners[k], Tick())
        if asks:
            self.an_owner_asks_for_the_step(k)
        while self.owners[k].to_store:
            self.the_store_takes_one_message(k)
        while self.owners[k].from_store:
            self.an_owner_hears_one_answer(k)

    @rule(k=st.integers(0, 1))
    def an_owner_presents_its_result(self, k: int, row_id: int = 1) -> None:
        owner = self.owners[k]
        lease = owner.running.get(row_id)
        if lease is not None and owner.machine.trusted(self.clock(owner.rate), row_id, lease.lease_epoch):
            # From here on the step does not run on this owner any more.
            del owner.running[row_id]
            self.feed(owner, Finished(row_id, lease.lease_epoch))
            owner.to_store.append(Commit(lease))

    @rule(k=st.integers(0, 1))
    def a_paused_owner_wakes_up_and_presents_what_it_had(self, k: int) -> None:
        owner = self.owners[k]
        if owner.fenced:
            owner.to_store.append(Commit(owner.fenced.pop()))

    @rule(k=st.integers(0, 1), fails=st.booleans())
    def the_store_takes_one_message(self, k: int, fails: bool = False) -> None:
        owner = self.owners[k]
        if not owner.to_store:
            return
        match owner.to_store.popleft():
            case AskClaim(row_id, asked_at_ns):
                row = self.rows[row_id]
                if row.status == "PENDING" and not fails:
                    row.status, row.owner = "RUNNING", k
                    row.lease_epoch += 1
                    row.token = f"t{k}.{row.lease_epoch}"
                    self.touch(row)
                    owner.from_store.append(Claimed(row_id, row.token, row.lease_epoch, 1, asked_at_ns))
            case Renew(batch, asked_at_ns):
                if fails:
                    owner.from_store.append(RenewFailed(asked_at_ns))
                    return
                kept = [lease for lease in batch if self.stands(lease)]
                for lease in kept:
                    self.touch(self.rows[lease.row_id])
                owner.from_store.append(Renewed(tuple(lease.row_id for lease in kept), asked_at_ns))
                owner.from_store.extend(Lost(lease.row_id, lease.lease_epoch) for lease in batch if lease not in kept)
            case Commit(lease):
                if self.stands(lease):
                    assert (lease.row_id, lease.lease_epoch) not in self.committed
                    self.committed.add((lease.row_id, lease.lease_epoch))
                    self.rows[lease.row_id].status = "PENDING"

    def stands(self, lease: Claimed) -> bool:
        row = self.rows[lease.row_id]
        return row.status == "RUNNING" and (row.token, row.lease_epoch) == (lease.token, lease.lease_epoch)

    def touch(self, row: Row) -> None:
        row.updated_at_ms = max(self.true_ns // MS, row.updated_at_ms + 1)

    @rule(k=st.integers(0, 1))
    def an_owner_hears_one_answer(self, k: int) -> None:
        owner = self.owners[k]
        if not owner.from_store:
            return
        event = owner.from_store.popleft()
        self.feed(owner, event)
        if isinstance(event, Claimed) and owner.machine.trusted(
            self.clock(owner.rate), event.row_id, event.lease_epoch
        ):
            owner.running[event.row_id] = event
        elif isinstance(event, Claimed):
            # The answer came too late to start: the next tick abandons it, and nothing ran.
            self.feed(owner, Finished(event.row_id, event.lease_epoch))

    @rule()
    def one_part_of_a_scan(self) -> None:
        """The judge asks; the store reads; the judge receives: with anything in between."""
        if self.scan_asked_at_ns is None:
            self.scan_asked_at_ns = self.clock(self.judge_rate)
        elif self.scan_rows is None:
            self.scan_rows = [
                RunningRow(row_id, row.token, row.updated_at_ms, f"node-{row.owner}", row.lease_epoch)
                for row_id, row in self.rows.items()
                if row.status == "RUNNING"
            ]
        else:
            scanned = Scanned(self.scan_rows, self.scan_asked_at_ns, None)
            for expire in self.judge.handle(self.clock(self.judge_rate), scanned):
                self.reclaim(expire)
            self.scan_asked_at_ns = self.scan_rows = None

    @rule()
    def the_judge_scans_at_once(self) -> None:
        if self.scan_asked_at_ns is None:
            for _ in range(3):
                self.one_part_of_a_scan()

    def reclaim(self, expire: Expire) -> None:
        row, seen = self.rows[expire.row.row_id], expire.row
        if (row.status, row.token, row.updated_at_ms) == ("RUNNING", seen.token, seen.updated_at_ms):
            row.status = "PENDING"

    @invariant()
    def no_two_owners_trust_one_step_at_one_time(self) -> None:
        for row_id in self.rows:
            believers = [
                k
                for k, owner in enumerate(self.owners)
                if (lease := owner.running.get(row_id)) is not None
                and owner.machine.trusted(self.clock(owner.rate), row_id, lease.lease_epoch)
            ]
            assert len(believers) <= 1, believers

    @invariant()
    def who_trusts_a_step_is_its_owner_in_the_store(self) -> None:
        for owner in self.owners:
            for row_id, lease in owner.running.items():
                if owner.machine.trusted(self.clock(owner.rate), row_id, lease.lease_epoch):
                    assert self.stands(lease)


World.TestCase.settings = settings(deadline=None, max_examples=50, stateful_step_count=40)
TestNoTwoOwnersTrustOneStep = World.TestCase


@pytest.mark.parametrize("seed", range(8))
def test_no_two_owners_trust_one_step_in_long_histories(seed: int) -> None:
    """What Hypothesis is too polite for: thousands of steps of weighted chance on one world."""
    rng = random.Random(seed)
    world = World()
    world.start(rng.choices(RATES, k=3))
    for _ in range(3_000):
        k = rng.randrange(2)
        match rng.choices(range(9), weights=(6, 6, 6, 2, 2, 2, 2, 1, 1))[0]:
            case 0:
                world.time_passes(rng.choice(STEPS_MS))
            case 1:
                world.everything_is_delivered_at_once(k, asks=rng.random() < 0.5)
            case 2:
                world.the_judge_scans_at_once()
            case 3:
                world.an_owner_ticks(k)
            case 4:
                world.the_store_takes_one_message(k, fails=rng.random() < 0.2)
            case 5:
                world.an_owner_hears_one_answer(k)
            case 6:
                world.one_part_of_a_scan()
            case 7:
                world.an_owner_presents_its_result(k)
            case _:
                world.a_paused_owner_wakes_up_and_presents_what_it_had(k)

        world.no_two_owners_trust_one_step_at_one_time()
        world.who_trusts_a_step_is_its_owner_in_the_store()
    assert world.rows[1].lease_epoch > 40
