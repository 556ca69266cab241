"""Bounded mailboxes: what happens when there is no room."""

from __future__ import annotations

import threading

import pytest

from actors.address import Address
from actors.mailbox import MailboxFullError, Overflow
from relaymesh.wire.kernel import Ping
from tests.actors.fakes import PATIENCE_S, HowMany, Note, Notebook, eventually


def full(overflow: Overflow, *, block_s: float = 0.0, capacity: int = 2) -> Address:
    """Return an address without an actor, with as many notes in its mailbox as it takes."""
    address = Address("full", capacity=capacity, overflow=overflow, block_s=block_s)
    for number in range(capacity):
        assert address.tell(Note(str(number)))
    return address


def read(address: Address) -> list[str]:
    """Return the notes that an actor finds there."""
    actor = Notebook()
    actor.launch(address)
    assert address.ask(Ping(), PATIENCE_S) is True
    actor.halt()
    assert actor.wait_ended(PATIENCE_S)
    return actor.notes


def test_refuse_raises_to_the_sender_and_keeps_what_waits() -> None:
    address = full(Overflow.REFUSE)

    with pytest.raises(MailboxFullError, match="full has 2 messages waiting"):
        address.tell(Note("2"))

    assert address.depth == 2
    assert address.snapshot().dropped == 0


def test_drop_new_drops_and_counts_the_new_message() -> None:
    address = full(Overflow.DROP_NEW)

    assert not address.tell(Note("2"))

    assert address.snapshot().dropped == 1
    address.mailbox.queue.get()  # make room for the ping
    assert read(address) == ["1"]


def test_drop_oldest_drops_and_counts_the_oldest_message() -> None:
    address = full(Overflow.DROP_OLDEST, capacity=3)

    assert address.tell(Note("3"))
    assert address.tell(Note("4"))

    assert address.snapshot().dropped == 2
    assert address.depth == 3
    address.mailbox.queue.get()
    assert read(address) == ["3", "4"]


def test_drop_oldest_tells_who_asked_and_keeps_the_order_to_stop() -> None:
    address = Address("a", capacity=1, overflow=Overflow.DROP_OLDEST)
    reply = address.ask_later(HowMany())

    address.tell(Note("newest"))

    with pytest.raises(MailboxFullError):
        reply.wait(PATIENCE_S)

    actor = Notebook()
    actor.launch(address)
    address.tell(Note("gate"))
    actor.finish()
    for number in range(20):
        address.tell(Note(str(number)))
    assert actor.wait_ended(PATIENCE_S)


def test_block_waits_for_room() -> None:
    address = full(Overflow.BLOCK, block_s=PATIENCE_S)
    sent = threading.Event()

    def send() -> None:
        address.tell(Note("2"))
        sent.set()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert eventually(lambda: address.mailbox.waiting == 1)
    actor = Notebook()
    actor.launch(address)

    assert sent.wait(PATIENCE_S)
    assert address.ask(HowMany(), PATIENCE_S) == 3
    actor.halt()


def test_block_gives_up_after_its_bound() -> None:
    address = full(Overflow.BLOCK, block_s=0.01)

    with pytest.raises(MailboxFullError):
        address.tell(Note("2"))

    assert address.depth == 2


def test_closing_wakes_senders_that_wait_for_room() -> None:
    address = full(Overflow.BLOCK, block_s=100 * PATIENCE_S)
    results: list[bool] = []
    sender = threading.Thread(target=lambda: results.append(address.tell(Note("2"))), daemon=True)
    sender.start()
    assert eventually(lambda: address.mailbox.waiting == 1)

    address.close()
    sender.join(PATIENCE_S)

    assert results == [False]
    assert address.depth == 0
    assert address.snapshot().dropped == 3


@pytest.mark.parametrize("overflow", [Overflow.REFUSE, Overflow.DROP_NEW])
def test_an_ask_is_never_dropped_in_silence(overflow: Overflow) -> None:
    address = full(overflow)

    with pytest.raises(MailboxFullError):
        address.ask(HowMany(), PATIENCE_S)


def test_an_offer_neither_waits_nor_raises_nor_drops() -> None:
    address = full(Overflow.BLOCK, block_s=PATIENCE_S)

    assert not address.offer_bytes(b"x")
    assert address.depth == 2
    assert address.snapshot().dropped == 0


def test_many_senders_that_block_lose_nothing_and_exceed_the_bound_by_at_most_one_each() -> None:
    address = Address("busy", capacity=8, overflow=Overflow.BLOCK, block_s=PATIENCE_S)
    senders, each = 6, 200
    deepest = 0

    class Watches(Notebook):
        def receive(self, message: object) -> object:
            nonlocal deepest
            deepest = max(deepest, self.address.depth)
            return super().receive(message)  # type: ignore[arg-type]

    actor = Watches()
    actor.launch(address)
    threads = [
        threading.Thread(target=lambda: [address.tell(Note("x")) for _ in range(each)], daemon=True)
        for _ in range(senders)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert address.ask(HowMany(), PATIENCE_S) == senders * each
    assert deepest <= 8 + senders
    actor.halt()


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"block_s": -1.0}])
def test_a_mailbox_without_room_is_refused_at_construction(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        Address("none", **arguments)  # type: ignore[arg-type]
