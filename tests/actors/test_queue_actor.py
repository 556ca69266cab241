"""When a QueueActor asks the store for steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.address import Address
from actors.queue import QueueActor, WorkerSlot
from relaymesh.wire import codec
from relaymesh.wire.codec import Message
from relaymesh.wire.kernel import Ping
from relaymesh.wire.store import Demand, QueueDrained, TookOver, WorkerUp
from tests.actors.fakes import PATIENCE_S, ManualTimers


class Desk:
    """A QueueActor between addresses that nobody reads, with two workers that are not up yet."""

    def __init__(self, *, one_step: bool) -> None:
        self.store = Address("store")
        self.address = Address("queue")
        self.drained: list[QueueDrained] = []
        workers = {
            "inline": WorkerSlot(Address("inline"), "inline", 2),
            "worker-1": WorkerSlot(Address("worker-1"), "process", 1),
        }
        self.actor = QueueActor(
            self.store,
            Address("lease"),
            workers,
            ManualTimers(),
            self.drained.append,
            tell_after_ns=1_000_000_000,
            one_step=one_step,
        )
        self.actor.launch(self.address)
        assert self.actor.wait_up(PATIENCE_S)

    def tell(self, *messages: Message) -> None:
        """Send; return when all was handled."""
        for message in messages:
            self.address.tell(message)
        assert self.address.ask(Ping(), PATIENCE_S) is True

    def demands(self) -> list[Demand]:
        """Return what the store was asked for since the last look."""
        found: list[Any] = []
        while self.store.depth:
            found.append(codec.decode(self.store.mailbox.queue.get_nowait()))  # type: ignore[arg-type]
        return [message for message in found if isinstance(message, Demand)]


@pytest.fixture
def open_desk() -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def opened(*, one_step: bool) -> Desk:
        desks.append(Desk(one_step=one_step))
        return desks[-1]

    yield opened
    for desk in desks:
        desk.actor.halt()
        assert desk.actor.wait_ended(PATIENCE_S)


def test_a_node_that_runs_one_step_asks_once_all_its_workers_are_up(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(one_step=True)

    desk.tell(TookOver(1, 0, 0), WorkerUp("inline", 1))
    before_the_last_is_up = desk.demands()
    desk.tell(WorkerUp("worker-1", 1))

    # A demand for the first pool alone would be answered at once, with nothing, while a step waits for the other.
    assert before_the_last_is_up == []
    assert desk.demands() == [Demand(0, {"inline": 2, "process": 1}, 1, 0, 0, once=True)]


def test_a_worker_that_starts_twice_does_not_stand_for_one_that_is_not_up(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(one_step=True)

    desk.tell(TookOver(1, 0, 0), WorkerUp("inline", 1), WorkerUp("inline", 2))

    assert desk.demands() == []


def test_a_node_that_runs_one_step_asks_when_the_store_knows_it_after_its_workers_are_up(
    open_desk: Callable[..., Desk],
) -> None:
    desk = open_desk(one_step=True)

    desk.tell(WorkerUp("inline", 1), WorkerUp("worker-1", 1))
    before_the_store_knows_us = desk.demands()
    desk.tell(TookOver(1, 0, 7))

    assert before_the_store_knows_us == []
    assert desk.demands() == [Demand(7, {"inline": 2, "process": 1}, 1, 0, 0, once=True)]


def test_a_node_that_goes_on_asks_for_each_worker_as_it_comes_up(open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(one_step=False)

    desk.tell(TookOver(1, 0, 0), WorkerUp("inline", 1))

    assert [(demand.free, demand.once) for demand in desk.demands()] == [({}, False), ({"inline": 2}, False)]
