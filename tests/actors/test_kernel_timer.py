"""Timers: when which message is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.address import Address
from actors.mailbox import Overflow
from actors.timer import FULL_MAILBOX_RETRY_NS, TimerHeap, TimerService, TooManyTimersError
from relaymesh.wire.codec import decode, encode
from relaymesh.wire.kernel import Ping
from tests.actors.fakes import PATIENCE_S, ManualTimers, Note, eventually

SECOND = 1_000_000_000


def received(address: Address) -> list[str]:
    """Return and take away the notes that wait at an address without an actor."""
    notes = []
    while not address.mailbox.queue.empty():
        item = address.mailbox.queue.get()
        assert isinstance(item, bytes)
        note = decode(item)
        assert isinstance(note, Note)
        notes.append(note.text)
    return notes


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    yield
    assert not any(thread.name == "timer" for thread in threading.enumerate())


@pytest.fixture
def timers() -> ManualTimers:
    return ManualTimers()


@pytest.fixture
def address() -> Address:
    return Address("target")


def test_messages_come_in_the_order_of_their_due_times(timers: ManualTimers, address: Address) -> None:
    timers.after(3 * SECOND, address, Note("third"), key="c")
    timers.after(1 * SECOND, address, Note("first"), key="a")
    timers.after(2 * SECOND, address, Note("second"), key="b")

    timers.jump(5 * SECOND)

    assert received(address) == ["first", "second", "third"]


def test_timers_of_one_instant_come_in_the_order_in_which_they_were_set(timers: ManualTimers, address: Address) -> None:
    for number in range(20):
        timers.after(SECOND, address, Note(str(number)), key=str(number))

    timers.advance(SECOND)

    assert received(address) == [str(number) for number in range(20)]


def test_nothing_comes_early(timers: ManualTimers, address: Address) -> None:
    timers.after(SECOND, address, Note("x"), key="a")

    timers.advance(SECOND - 1)
    assert received(address) == []

    timers.advance(1)
    assert received(address) == ["x"]
    assert timers.heap.next_due_ns() is None


def test_setting_a_timer_again_replaces_it(timers: ManualTimers, address: Address) -> None:
    first = timers.after(SECOND, address, Note("old"), key="a")
    timers.after(2 * SECOND, address, Note("new"), key="a")

    timers.advance(3 * SECOND)

    assert received(address) == ["new"]
    assert not first.cancel()


def test_two_targets_may_use_one_key(timers: ManualTimers, address: Address) -> None:
    other = Address("other")
    timers.after(SECOND, address, Note("mine"), key="a")
    timers.after(SECOND, other, Note("theirs"), key="a")

    timers.advance(SECOND)

    assert (received(address), received(other)) == (["mine"], ["theirs"])


def test_a_cancelled_timer_sends_nothing(timers: ManualTimers, address: Address) -> None:
    timer = timers.after(SECOND, address, Note("x"), key="a")
    timers.every(SECOND, address, Note("y"), key="b")

    assert timer.cancel()
    assert not timer.cancel()
    assert timers.cancel(address, "b")
    assert not timers.cancel(address, "b")

    timers.advance(5 * SECOND)
    assert received(address) == []


def test_cancelling_after_it_fired_says_so(timers: ManualTimers, address: Address) -> None:
    timer = timers.after(SECOND, address, Note("x"), key="a")
    timers.advance(SECOND)

    assert not timer.cancel()


def test_a_periodic_timer_does_not_drift_when_it_is_served_late(timers: ManualTimers, address: Address) -> None:
    timers.every(10, address, Note("tick"), key="a")

    timers.jump(13)
    assert received(address) == ["tick"]
    assert timers.heap.next_due_ns() == 20


def test_missed_periods_are_skipped_and_not_made_up_for(timers: ManualTimers, address: Address) -> None:
    timers.every(10, address, Note("tick"), key="a")

    timers.jump(57)

    assert received(address) == ["tick"]
    assert timers.heap.next_due_ns() == 60


def test_a_one_shot_that_finds_the_mailbox_full_is_tried_again(timers: ManualTimers) -> None:
    address = Address("small", capacity=1, overflow=Overflow.DROP_NEW)
    address.tell(Note("in the way"))
    timers.after(SECOND, address, Note("x"), key="a")

    timers.advance(SECOND)
    assert received(address) == ["in the way"]

    timers.advance(FULL_MAILBOX_RETRY_NS)
    assert received(address) == ["x"]


def test_a_one_shot_that_is_set_anew_while_it_waits_for_room_comes_once(timers: ManualTimers) -> None:
    address = Address("small", capacity=1)
    address.tell(Note("in the way"))
    timers.after(SECOND, address, Note("old"), key="a")
    timers.advance(SECOND)
    received(address)

    timers.after(SECOND, address, Note("new"), key="a")
    timers.advance(2 * SECOND)

    assert received(address) == ["new"]


def test_a_one_shot_that_is_set_anew_just_as_it_finds_the_mailbox_full_comes_once(timers: ManualTimers) -> None:
    class SetsAnew:
        name, closed = "target", False
        got: ClassVar[list[bytes]] = []

        def offer_bytes(self, data: bytes) -> bool:
            if data == encode(Note("old")):
                timers.after(5 * SECOND, self, Note("new"), key="a")
                return False
            self.got.append(data)
            return True

    target = SetsAnew()
    timers.after(SECOND, target, Note("old"), key="a")

    timers.advance(10 * SECOND)

    assert target.got == [encode(Note("new"))]
    assert len(timers.heap) == 0


def test_a_tick_that_finds_the_mailbox_full_is_skipped(timers: ManualTimers) -> None:
    address = Address("small", capacity=1, overflow=Overflow.BLOCK, block_s=PATIENCE_S)
    timers.every(SECOND, address, Note("tick"), key="a")

    timers.advance(10 * SECOND)

    assert received(address) == ["tick"]
    assert len(timers.heap) == 1


def test_timers_of_a_closed_address_go_away(timers: ManualTimers, address: Address) -> None:
    timers.every(SECOND, address, Note("tick"), key="a")
    timers.after(SECOND, address, Note("x"), key="b")
    address.close()

    timers.advance(5 * SECOND)

    assert len(timers.heap) == 0
    assert timers.heap.next_due_ns() is None


def test_the_number_of_timers_is_bounded_and_replacing_is_always_possible(address: Address) -> None:
    heap = TimerHeap(limit=2)
    heap.set(address, "a", b"", 1, 0)
    heap.set(address, "b", b"", 1, 0)

    with pytest.raises(TooManyTimersError, match="2 timers are set"):
        heap.set(address, "c", b"", 1, 0)
    heap.set(address, "b", b"", 2, 0)

    assert len(heap) == 2


def test_replacing_one_timer_for_ever_does_not_grow_the_heap(address: Address) -> None:
    heap = TimerHeap()

    for due_ns in range(10_000):
        heap.set(address, "lease", b"", SECOND + due_ns, 0)

    assert len(heap._heap) < 200


@settings(deadline=None, max_examples=200)
@given(
    orders=st.lists(
        st.tuples(st.sampled_from(["after", "every", "cancel", "pass"]), st.sampled_from("abc"), st.integers(1, 20)),
        max_size=40,
    )
)
def test_timers_agree_with_a_list_that_is_searched(orders: list[tuple[str, str, int]]) -> None:
    timers, address = ManualTimers(), Address("target")
    model: dict[str, tuple[int, int]] = {}  # key: due, period
    expected: list[str] = []
    for order, key, ns in orders:
        match order:
            case "after":
                timers.after(ns, address, Note(key), key=key)
                model[key] = (timers.now_ns() + ns, 0)
            case "every":
                timers.every(ns, address, Note(key), key=key)
                model[key] = (timers.now_ns() + ns, ns)
            case "cancel":
                assert timers.cancel(address, key) == (model.pop(key, None) is not None)
            case "pass":
                until = timers.now_ns() + ns
                timers.advance(ns)
                for now in range(until - ns + 1, until + 1):
                    for due_key in [k for k, (due, _) in model.items() if due == now]:
                        expected.append(f"{now} {due_key}")
                        period = model[due_key][1]
                        if period:
                            model[due_key] = (now + period, period)
                        else:
                            del model[due_key]

    assert sorted(received(address)) == sorted(entry.split()[1] for entry in expected)
    assert len(timers.heap) == len(model)
    assert timers.heap.next_due_ns() == min((due for due, _ in model.values()), default=None)


# The thread.


def test_the_service_sends_in_order_from_one_thread() -> None:
    now_ns = [0]
    timers, address = TimerService(clock=lambda: now_ns[0]), Address("target")
    for number in reversed(range(50)):
        timers.after(SECOND + number, address, Note(str(number)), key=str(number))
    assert [thread.name for thread in threading.enumerate()].count("timer") == 1

    now_ns[0] = 2 * SECOND
    timers.after(0, address, Note("last"), key="wakes the thread")

    assert eventually(lambda: address.depth == 51)
    assert received(address) == [*map(str, range(50)), "last"]
    timers.stop()


def test_an_earlier_timer_wakes_the_thread_that_waits_for_a_later_one() -> None:
    looked = threading.Event()

    def clock() -> int:
        if threading.current_thread().name == "timer":
            looked.set()
        return 0

    timers, address = TimerService(clock=clock), Address("target")
    timers.after(3600 * SECOND, address, Note("in an hour"), key="late")
    assert looked.wait(PATIENCE_S)
    with timers._changed:
        pass  # the thread holds this from looking until it waits

    timers.after(0, address, Note("now"), key="early")

    assert eventually(lambda: address.depth == 1)
    timers.stop()


def test_a_target_that_fails_costs_the_others_nothing() -> None:
    class Broken:
        name, closed = "broken", False

        def offer_bytes(self, data: bytes) -> bool:
            raise RuntimeError("broken target")

    timers, address = TimerService(), Address("target")
    timers.after(0, Broken(), Note("x"), key="a")
    timers.after(0, address, Note("y"), key="a")

    assert eventually(lambda: address.depth == 1)
    timers.stop()


def test_a_stopped_service_sends_nothing_and_its_thread_is_over() -> None:
    timers, address = TimerService(), Address("target")
    timers.every(1_000_000, address, Note("tick"), key="a")
    assert eventually(lambda: address.depth > 0)

    timers.stop(PATIENCE_S)
    depth = address.depth
    timers.after(0, address, Note("late"), key="b")

    assert timers._thread is not None
    assert not timers._thread.is_alive()
    assert address.depth == depth


def test_periods_that_divide_each_other_come_in_one_wake_up() -> None:
    at_ns = [7]
    timers, slow, fast = TimerService(clock=lambda: at_ns[0]), Address("slow"), Address("fast")
    second = timers.every(SECOND, slow, Note("slow"), key="a")
    at_ns[0] = 300_000_001
    quarter = timers.every(SECOND // 4, fast, Note("fast"), key="a")

    assert second.due_ns == SECOND
    assert quarter.due_ns == 2 * SECOND // 4
    timers.stop()


def test_a_period_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        TimerService().every(0, Address("target"), Ping(), key="a")
