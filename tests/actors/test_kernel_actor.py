"""The actor base class: one message at a time, and what happens when one goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import msgpack
import pykka
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.address import Address
from actors.base import Actor, NotTakenError
from actors.mailbox import ActorGoneError, AskTimeoutError, MailboxFullError, Overflow
from actors.metrics import UNDELIVERABLE_MAX
from actors.reply import Reply
from relaymesh.wire.codec import MalformedMessageError, Message, UnknownMessageError, encode
from relaymesh.wire.kernel import Crash, Ping
from tests.actors.fakes import PATIENCE_S, Break, Ends, Foreign, HowMany, Keep, Later, Note, Notebook, Wait


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def address() -> Address:
    return Address("notebook")


@pytest.fixture
def actor(address: Address, ends: Ends) -> Iterator[Notebook]:
    actor = Notebook()
    actor.launch(address, on_end=ends.put)
    yield actor
    actor.gate.set()
    actor.halt()
    assert actor.wait_ended(PATIENCE_S)


def ping(address: Address) -> None:
    """Return when all mail up to now has been handled."""
    assert address.ask(Ping(), PATIENCE_S) is True


def test_what_is_told_is_handled_in_the_order_in_which_it_was_told(actor: Notebook, address: Address) -> None:
    for text in ("one", "two", "three"):
        assert address.tell(Note(text))

    ping(address)

    assert actor.notes == ["one", "two", "three"]


def test_what_receive_returns_answers_an_ask(actor: Notebook, address: Address) -> None:
    address.tell(Note("one"))

    assert address.ask(HowMany(), PATIENCE_S, int) == 1


def test_an_answer_of_another_class_than_expected_is_told_to_the_asker(actor: Notebook, address: Address) -> None:
    with pytest.raises(TypeError, match="answered int instead of str"):
        address.ask(HowMany(), PATIENCE_S, str)


def test_an_error_in_a_tell_ends_the_actor_and_its_supervisor_is_told_why(
    actor: Notebook, address: Address, ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    address.tell(Break())

    word = ends.last_word()

    assert (word.name, word.incarnation, word.crashed) == ("notebook", 1, True)
    assert word.reason == "ValueError: told to break (while handling test.break)"
    assert actor.life == ["started", "crashed"]
    assert actor.wait_ended(PATIENCE_S)
    assert not address.snapshot().alive
    assert [bool(record.exc_info) for record in caplog.records] == [True], "the traceback is logged once"


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
def test_an_exit_inside_an_actor_ends_this_actor_and_no_other(
    actor: Notebook, address: Address, ends: Ends, error: str
) -> None:
    other = Notebook()
    bystander = other.launch(Address("bystander"))

    address.tell(Break(error))

    assert ends.last_word().crashed
    ping(bystander)
    other.halt()


def test_an_error_in_started_is_reported_and_the_actor_never_comes_up(address: Address, ends: Ends) -> None:
    class Unlucky(Notebook):
        def started(self) -> None:
            raise OSError("no such device")

    actor = Unlucky()
    actor.launch(address, on_end=ends.put)

    assert not actor.wait_up(PATIENCE_S)
    assert ends.last_word().reason == "OSError: no such device (while starting)"
    assert actor.wait_ended(PATIENCE_S)


def test_an_error_while_answering_goes_to_the_asker_and_the_actor_lives_on(actor: Notebook, address: Address) -> None:
    with pytest.raises(ValueError, match="told to break"):
        address.ask(Break(), PATIENCE_S)

    ping(address)
    assert address.snapshot().failed == 1


def test_an_exit_while_answering_ends_the_actor_and_not_the_asker(
    actor: Notebook, address: Address, ends: Ends
) -> None:
    with pytest.raises(ActorGoneError, match="crashed"):
        address.ask(Break("SystemExit"), PATIENCE_S)

    assert ends.last_word().crashed


def test_an_error_in_the_crash_hook_does_not_hide_the_crash(address: Address, ends: Ends) -> None:
    class Clumsy(Notebook):
        def crashed(self) -> None:
            raise RuntimeError("second fault")

    Clumsy().launch(address, on_end=ends.put)
    address.tell(Break())

    assert ends.last_word().reason.startswith("ValueError: told to break")


def test_an_error_while_stopping_is_reported_and_is_no_crash(address: Address, ends: Ends) -> None:
    class Clumsy(Notebook):
        def stopping(self) -> None:
            raise RuntimeError("cannot close")

    actor = Clumsy()
    actor.launch(address, on_end=ends.put)
    actor.halt()

    word = ends.last_word()
    assert not word.crashed
    assert "cannot close" in word.reason


def test_any_actor_crashes_when_it_is_told_to(actor: Notebook, address: Address, ends: Ends) -> None:
    address.tell(Crash("chaos"))

    assert "chaos" in ends.last_word().reason


# What nobody takes.


@pytest.mark.parametrize(
    ("data", "error", "tag"),
    [
        (b"\xc1", MalformedMessageError, ""),
        (b"", MalformedMessageError, ""),
        (msgpack.packb(["test.note", 1, [7]]), MalformedMessageError, ""),
        (msgpack.packb(["test.nobody", 1, []]), UnknownMessageError, "test.nobody"),
        (msgpack.packb(["test.note", 2, ["text"]]), UnknownMessageError, "test.note"),
        (encode(Foreign()), NotTakenError, "test.foreign"),
    ],
)
def test_what_the_actor_does_not_take_is_refused_counted_and_kept(
    actor: Notebook, address: Address, data: bytes, error: type[Exception], tag: str
) -> None:
    address.tell_bytes(data)
    with pytest.raises(error):
        address.ask_bytes(data, PATIENCE_S)
    ping(address)

    first, second = address.undeliverable()

    assert (first.actor, first.tag, first.size_bytes, first.head) == ("notebook", tag, len(data), data[:32])
    assert first.reason == second.reason
    assert first.at_ms > 0
    assert address.snapshot().refused == 2
    assert address.snapshot().handled == 1, "the ping"


def test_only_the_last_undeliverable_envelopes_are_kept(actor: Notebook, address: Address) -> None:
    for size in range(1, UNDELIVERABLE_MAX + 11):
        address.tell_bytes(b"\xc1" * size)
    ping(address)

    kept = address.undeliverable()

    assert [entry.size_bytes for entry in kept] == list(range(11, UNDELIVERABLE_MAX + 11))
    assert address.snapshot().refused == UNDELIVERABLE_MAX + 10


def test_a_flood_of_refused_messages_does_not_flood_the_log(
    actor: Notebook, address: Address, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            address.tell_bytes(b"\xc1")
        ping(address)

    assert len(caplog.records) == 10


def test_what_is_not_bytes_is_undeliverable_too(actor: Notebook, address: Address) -> None:
    actor.actor_ref.tell({"not": "bytes"})
    ping(address)

    assert [entry.reason for entry in address.undeliverable()] == [
        "these bytes are not a message: dict instead of bytes"
    ]


def envelopes() -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, and bytes that come close to a message."""
    values = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
    tags = st.sampled_from(["test.note", "test.foreign", "kernel.ping", ""])
    near = st.tuples(tags | values, st.integers(0, 2) | values, st.lists(st.text() | values, max_size=3) | values)
    cut = st.tuples(near.map(msgpack.packb), st.integers(0, 40)).map(lambda pair: pair[0][: pair[1]])
    return st.binary(max_size=200) | near.map(msgpack.packb) | cut


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=envelopes())
def test_no_bytes_whatever_end_an_actor(actor: Notebook, address: Address, ends: Ends, data: bytes) -> None:
    before = address.snapshot()

    address.tell_bytes(data)
    ping(address)

    after = address.snapshot()
    assert ends.empty()
    assert after.handled + after.refused == before.handled + before.refused + 2


# Answers that come later.


def test_an_answer_may_come_with_a_later_message(actor: Notebook, address: Address) -> None:
    first = address.ask_later(Later("first"))
    second = address.ask_later(Later("second"))
    ping(address)
    assert not first.settled

    address.tell(Keep())

    assert (first.wait(PATIENCE_S), second.wait(PATIENCE_S)) == ("first", "second")


def test_a_later_answer_to_a_tell_goes_nowhere(actor: Notebook, address: Address) -> None:
    address.tell(Later("nobody waits"))
    address.tell(Keep())

    ping(address)


def test_who_waits_for_a_later_answer_is_told_when_the_actor_crashes(actor: Notebook, address: Address) -> None:
    reply = address.ask_later(Later("never"))
    address.tell(Break())

    with pytest.raises(ActorGoneError, match="crashed"):
        reply.wait(PATIENCE_S)


def test_who_waits_for_a_later_answer_is_told_when_the_actor_stops(actor: Notebook, address: Address) -> None:
    reply = address.ask_later(Later("never"))
    ping(address)
    actor.halt()

    with pytest.raises(ActorGoneError, match="stopped"):
        reply.wait(PATIENCE_S)


def test_the_first_settlement_of_a_reply_counts() -> None:
    reply = Reply()

    assert reply.answer(1)
    assert not reply.answer(2)
    assert not reply.fail(ValueError())
    assert reply.wait(0) == 1
    assert reply.wait(0) == 1, "several may wait"


def test_an_error_after_the_promise_of_a_later_answer_reaches_the_asker(address: Address) -> None:
    class Breaks(Notebook):
        def receive(self, message: object) -> object:
            self.reply_later()
            raise ValueError("after the promise")

    actor = Breaks()
    actor.launch(address)

    with pytest.raises(ValueError, match="after the promise"):
        address.ask(HowMany(), PATIENCE_S)
    ping(address)  # and the next ask is answered at once
    actor.halt()


def test_an_ask_that_gets_no_answer_in_time_says_that_it_may_still_happen(actor: Notebook, address: Address) -> None:
    address.tell(Wait())

    with pytest.raises(AskTimeoutError, match="may still happen"):
        address.ask(HowMany(), 0.01)


def test_an_actor_that_asks_itself_is_told_at_once(address: Address) -> None:
    class Narcissus(Notebook):
        def receive(self, message: object) -> object:
            return self.address.ask(HowMany(), PATIENCE_S)

    actor = Narcissus()
    actor.launch(address)

    with pytest.raises(AskTimeoutError, match="within 0 s"):
        address.ask(HowMany(), PATIENCE_S)
    actor.halt()


# Idleness: what a store that commits in groups builds on.


class Collector(Notebook):
    """Answers all that it collected when nothing more waits."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[int] = []
        self._open: list[Reply] = []

    def receive(self, message: object) -> object:
        if isinstance(message, Wait):
            return super().receive(message)
        self._open.append(self.reply_later())
        return None

    def went_idle(self) -> None:
        if self._open:
            self.groups.append(len(self._open))
        for reply in self._open:
            reply.answer(len(self._open))
        self._open.clear()


def test_mail_that_waits_together_is_answered_together_when_the_mailbox_is_empty(address: Address) -> None:
    actor = Collector()
    actor.launch(address)
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    replies = [address.ask_later(HowMany()) for _ in range(5)]

    actor.gate.set()

    assert [reply.wait(PATIENCE_S) for reply in replies] == [5] * 5
    assert actor.groups == [5]
    actor.halt()


def test_a_refused_message_or_a_mark_behind_a_group_does_not_hold_it_up(address: Address) -> None:
    actor = Collector()
    actor.launch(address)
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    reply = address.ask_later(HowMany())
    address.tell_bytes(b"\xc1")
    actor.actor_ref.tell(None)  # leaves a mark in the queue

    actor.gate.set()

    assert reply.wait(PATIENCE_S) == 1
    actor.halt()


def test_an_error_when_going_idle_is_a_crash(address: Address, ends: Ends) -> None:
    class Fails(Notebook):
        def went_idle(self) -> None:
            if self.notes:
                raise OSError("disk full")

    actor = Fails()
    actor.launch(address, on_end=ends.put)
    address.tell(Note("x"))

    assert ends.last_word().reason == "OSError: disk full (while going idle)"
    assert actor.wait_ended(PATIENCE_S)


# How it ends, and what becomes of its mail.


def test_halt_ends_after_the_message_in_hand_and_the_next_incarnation_handles_the_rest(
    actor: Notebook, address: Address, ends: Ends
) -> None:
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    address.tell(Note("kept"))
    reply = address.ask_later(HowMany())
    actor.halt()
    actor.gate.set()
    assert not ends.last_word().crashed
    assert actor.wait_ended(PATIENCE_S)

    successor = Notebook()
    successor.launch(address, on_end=ends.put)

    assert reply.wait(PATIENCE_S) == 1
    assert actor.notes == []
    assert successor.notes == ["kept"]
    successor.halt()
    assert ends.last_word().incarnation == 2


def test_finish_ends_after_the_mail_that_waits(actor: Notebook, address: Address, ends: Ends) -> None:
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    address.tell(Note("one"))
    address.tell(Note("two"))
    actor.finish()
    actor.gate.set()

    assert not ends.last_word().crashed
    assert actor.notes == ["one", "two"]
    assert actor.life == ["started", "stopping"]


def test_a_stop_mark_of_an_earlier_incarnation_does_not_stop_the_next(
    actor: Notebook, address: Address, ends: Ends
) -> None:
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    actor.finish()
    actor.halt()
    actor.gate.set()
    ends.last_word()
    assert actor.wait_ended(PATIENCE_S)

    successor = Notebook()
    successor.launch(address, on_end=ends.put)

    ping(address)
    ping(address)
    assert ends.empty()
    successor.halt()


def test_mail_told_before_the_first_start_waits_for_it(address: Address) -> None:
    address.tell(Note("early"))
    actor = Notebook()

    actor.launch(address)

    assert address.ask(HowMany(), PATIENCE_S) == 1
    actor.halt()


def test_only_the_message_in_hand_is_lost_in_a_crash(actor: Notebook, address: Address, ends: Ends) -> None:
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    for message in (Note("before"), Break(), Note("after 1"), Note("after 2")):
        address.tell(message)
    actor.gate.set()
    ends.last_word()

    successor = Notebook()
    successor.launch(address)
    ping(address)

    assert actor.notes == ["before"]
    assert successor.notes == ["after 1", "after 2"]
    successor.halt()


def test_an_abandoned_actor_reads_no_more_mail_when_it_wakes_up(actor: Notebook, address: Address, ends: Ends) -> None:
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    actor.abandon()
    address.tell(Note("for the successor"))
    successor = Notebook()
    successor.launch(address)
    ping(address)

    actor.gate.set()
    assert actor.wait_ended(PATIENCE_S)

    assert actor.notes == []
    assert successor.notes == ["for the successor"]
    assert ends.empty(), "it reports to nobody"
    assert address.snapshot().abandoned == 1
    assert address.snapshot().alive, "the successor is"
    successor.halt()


def test_an_abandoned_actor_closes_what_it_opened_when_it_wakes_up(actor: Notebook, address: Address) -> None:
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    actor.abandon()

    actor.gate.set()

    assert actor.wait_ended(PATIENCE_S)
    assert actor.life == ["started", "crashed"]


def test_an_abandoned_actor_that_crashes_later_reports_to_nobody(address: Address, ends: Ends) -> None:
    class BreaksLate(Notebook):
        def receive(self, message: object) -> object:
            super().receive(Wait())
            raise ValueError("late")

    actor = BreaksLate()
    actor.launch(address, on_end=ends.put)
    address.tell(Note("x"))
    assert actor.waiting.wait(PATIENCE_S)
    actor.abandon()
    successor = Notebook()
    successor.launch(address)

    actor.gate.set()

    assert actor.wait_ended(PATIENCE_S)
    assert ends.empty()
    assert address.snapshot().alive
    successor.halt()


def test_an_actor_whose_supervisor_cannot_be_told_ends_all_the_same(address: Address) -> None:
    def on_end(_: object) -> None:
        raise OSError("no way to tell")

    actor = Notebook()
    actor.launch(address, on_end=on_end)
    address.tell(Break())

    assert actor.wait_ended(PATIENCE_S)
    assert actor.reported


def test_a_closed_address_drops_what_is_told_and_says_so_to_who_asks(actor: Notebook, address: Address) -> None:
    address.tell(Wait())
    assert actor.waiting.wait(PATIENCE_S)
    reply = address.ask_later(HowMany())
    address.tell(Note("x"))

    address.close()

    with pytest.raises(ActorGoneError):
        reply.wait(PATIENCE_S)
    assert not address.tell(Note("y"))
    with pytest.raises(ActorGoneError):
        address.ask(HowMany(), PATIENCE_S)
    assert address.snapshot().dropped == 2


def test_an_actor_that_fills_its_own_mailbox_is_told_instead_of_waiting_for_itself() -> None:
    class Chatterbox(Notebook):
        def receive(self, message: object) -> object:
            for _ in range(5):
                self.address.tell(Note("again"))
            return None

    address = Address("chatterbox", capacity=3, overflow=Overflow.BLOCK, block_s=PATIENCE_S)
    actor = Chatterbox()
    actor.launch(address)

    with pytest.raises(MailboxFullError):
        address.ask(HowMany(), PATIENCE_S / 2)
    actor.halt()


def test_an_actor_object_runs_once(actor: Notebook) -> None:
    with pytest.raises(AssertionError, match="runs once"):
        actor.launch(Address("second"))


def test_the_counters_go_on_over_a_restart(actor: Notebook, address: Address, ends: Ends) -> None:
    address.tell(Note("x"))
    address.tell(Break())
    ends.last_word()
    successor = Notebook()
    successor.launch(address)
    ping(address)
    successor.halt()
    assert successor.wait_ended(PATIENCE_S)

    now = address.snapshot()

    assert (now.handled, now.failed, now.restarts, now.alive, now.depth) == (3, 1, 1, False, 0)
    assert 0 < now.handling_ns_max <= now.handling_ns_total


def test_takes_may_be_one_class_a_union_or_a_tuple() -> None:
    class One(Actor):
        takes = Note

    class Two(Actor):
        takes = Note | Keep

    class Three(Actor):
        takes: tuple[type[Message], ...] = (Note, Keep, Wait)

    assert [len(kind._taken) for kind in (One, Two, Three)] == [1, 2, 3]


def test_pykka_still_behaves_as_the_kernel_assumes() -> None:
    """What ``Inbox`` and ``on_receive`` build on; a new release that changes it shows here first."""
    actor = Notebook()

    assert isinstance(actor, pykka.ThreadingActor)
    assert actor.actor_ref.actor_inbox is actor.actor_inbox
    assert not actor.actor_stopped.is_set()
