"""What a LeaseActor tells the store and the queue; with a clock that is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from actors.address import Address
from actors.lease import SPEND_EVERY_NS, LeaseActor
from relaymesh.wire import codec
from relaymesh.wire.codec import Message
from relaymesh.wire.kernel import Ping
from relaymesh.wire.store import AttemptSpent, LeaseRef, LeasesLost, LeasesTaken, Renewed, RenewLeases, SpendSteps
from relaymesh.wire.work import StepProgress
from tests.actors.fakes import PATIENCE_S, ManualTimers

SECOND = 1_000_000_000
PERIOD = 2 * SECOND


class Desk:
    """A LeaseActor between addresses that nobody reads, so that their mail can be looked at."""

    def __init__(self) -> None:
        self.store, self.queue = Address("store"), Address("queue")
        self.timers = ManualTimers()
        self.address = Address("lease")
        self.actor = LeaseActor(15_000, self.store, self.queue, self.timers)
        self.actor.launch(self.address)

    def take(self, *row_ids: int) -> None:
        now_ns = self.timers.now_ns()
        self.tell(LeasesTaken(tuple((row_id, f"lse.{row_id}", 1, 1) for row_id in row_ids), now_ns))

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.address.tell(message)
        assert self.address.ask(Ping(), PATIENCE_S) is True

    def wait(self, for_ns: int) -> None:
        self.timers.advance(for_ns)
        self.tell()

    def mail(self, address: Address, kind: type[Message]) -> list[Any]:
        """Take the mail that waits at an address; return what is of this kind."""
        found = []
        while address.depth:
            found.append(codec.decode(address.mailbox.queue.get_nowait()))  # type: ignore[arg-type]
        return [message for message in found if isinstance(message, kind)]


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.actor.halt()
    assert desk.actor.wait_ended(PATIENCE_S)


def progress_of(desk: Desk) -> list[tuple[int, str]]:
    return [word for renewal in desk.mail(desk.store, RenewLeases) for word in renewal.progress]


def test_the_last_word_of_a_step_goes_with_the_renewal_of_its_lease(desk: Desk) -> None:
    desk.take(1)

    desk.tell(StepProgress(1, "lse.1", "10 %"), StepProgress(1, "lse.1", "20 %"))
    desk.wait(PERIOD)

    assert progress_of(desk) == [(1, "20 %")]


def test_a_word_under_another_lease_token_is_not_stored(desk: Desk) -> None:
    desk.take(1)

    desk.tell(StepProgress(1, "lse.of-before", "99 %"))
    desk.wait(PERIOD)

    assert progress_of(desk) == []


def test_a_word_is_never_written_without_the_renewal_that_proves_its_lease(desk: Desk) -> None:
    desk.take(1)
    desk.wait(PERIOD * 3 // 4)
    desk.take(2)

    desk.tell(StepProgress(2, "lse.2", "first"), StepProgress(3, "lse.3", "not ours"))
    desk.wait(PERIOD // 4)
    first = desk.mail(desk.store, RenewLeases)
    desk.wait(PERIOD)
    second = desk.mail(desk.store, RenewLeases)

    for renewal in (*first, *second):
        assert {row_id for row_id, _ in renewal.progress} <= {lease[0] for lease in renewal.leases}
    assert [word for renewal in (*first, *second) for word in renewal.progress] == [(2, "first")]


def test_the_queue_hears_in_a_sentence_why_a_step_must_stop(desk: Desk) -> None:
    desk.take(1)

    desk.tell(Renewed((), ((1, 1),), desk.timers.now_ns()))

    (lost,) = desk.mail(desk.queue, LeasesLost)
    assert lost.reason == "another node has taken the step"


def test_a_cancelled_step_stops_for_the_reason_of_the_cancel(desk: Desk) -> None:
    desk.take(1)

    desk.tell(Renewed((), ((1, 1),), 0, cancelled=((1, "wrong order"),)))

    (lost,) = desk.mail(desk.queue, LeasesLost)
    assert lost.reason == "the task was cancelled: wrong order"


def test_a_step_whose_lease_was_not_renewed_in_time_stops_for_that_reason(desk: Desk) -> None:
    desk.take(1)

    desk.wait(15 * SECOND)

    (lost,) = desk.mail(desk.queue, LeasesLost)
    assert lost.reason == "the lease could not be renewed in time"


def test_what_attempts_have_spent_goes_to_the_store_in_one_write_of_the_last_words(desk: Desk) -> None:
    lease, other = (LeaseRef(row, f"stp_{row}", "tsk", "a", 1, f"lse.{row}", 1, 1, 0) for row in (1, 2))

    desk.tell(*(AttemptSpent(lease, "w1", (("units:a", amount),)) for amount in (1, 2)))
    desk.tell(AttemptSpent(other, "w2", (("units:a", 7),)))
    assert desk.mail(desk.store, SpendSteps) == []
    desk.wait(SPEND_EVERY_NS)
    (told,) = desk.mail(desk.store, SpendSteps)
    desk.wait(10 * SPEND_EVERY_NS)

    assert [(attempt.worker, attempt.spent) for attempt in told.attempts] == [
        ("w1", (("units:a", 2),)),
        ("w2", (("units:a", 7),)),
    ]
    assert desk.mail(desk.store, SpendSteps) == []
