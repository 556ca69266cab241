"""The supervision tree with real threads."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from actors.address import Address
from actors.base import Actor
from actors.mailbox import ActorGoneError
from actors.supervisor import Child, Supervisor
from actors.timer import TimerService
from actors.tree import Tree
from relaymesh.core.supervision import Backoff, Intensity, Restart, Strategy
from relaymesh.wire.kernel import Crash, Ping, Sweep
from tests.actors.fakes import PATIENCE_S, Break, HowMany, Later, Note, Notebook, Wait, eventually

AT_ONCE = Backoff(0, 0)
OFTEN = Intensity(1000, 60_000_000_000)


class Node:
    """A tree under test: its addresses, what its actors wrote, and why it gave up."""

    def __init__(self) -> None:
        self.timers = TimerService()
        self.life: list[str] = []
        self.notes: list[str] = []
        self.gave_up: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.made: dict[str, list[Actor]] = {}
        self.trees: list[Tree] = []

    def child(
        self,
        name: str,
        kind: Callable[..., Actor] = Notebook,
        restart: Restart = Restart.PERMANENT,
        *,
        start_within_s: float = PATIENCE_S,
        stop_within_s: float = PATIENCE_S,
    ) -> Child:
        def make() -> Actor:
            actor = kind(notes=self.notes, life=self.life, name=name)
            self.made.setdefault(name, []).append(actor)
            return actor

        return Child(Address(name), make, restart, start_within_s, stop_within_s)

    def start(
        self,
        *children: Child,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = OFTEN,
        timeout_s: float = PATIENCE_S,
    ) -> Tree:
        def root() -> Supervisor:
            return Supervisor(children, self.timers, strategy=strategy, intensity=intensity, backoff=AT_ONCE)

        tree = Tree(root, on_give_up=self.gave_up.put)
        self.trees.append(tree)
        tree.start(timeout_s)
        return tree

    def notebook(self, name: str) -> Notebook:
        """Return the newest actor of this name."""
        actor = self.made[name][-1]
        assert isinstance(actor, Notebook)
        return actor

    def close(self) -> None:
        for actors in self.made.values():
            for actor in actors:
                if isinstance(actor, Notebook):
                    actor.gate.set()
        for tree in self.trees:
            tree.stop_all(PATIENCE_S)
        self.timers.stop()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


def test_children_start_in_order_and_stop_in_reverse(node: Node) -> None:
    tree = node.start(node.child("a"), node.child("b"), node.child("c"))

    assert tree.stop_all(PATIENCE_S) == ()

    assert node.life == ["a started", "b started", "c started", "c stopping", "b stopping", "a stopping"]
    assert tree.over
    assert node.gave_up.empty(), "an orderly stop is no give-up"


def test_rest_for_one_restarts_the_later_siblings_too_in_order(node: Node) -> None:
    tree = node.start(node.child("a"), node.child("b"), node.child("c"), strategy=Strategy.REST_FOR_ONE)
    node.life.clear()

    tree.crash("b")

    assert eventually(lambda: node.life[-1:] == ["c started"])
    assert node.life == ["b crashed", "c stopping", "b started", "c started"]


def test_one_for_one_leaves_the_siblings_alone(node: Node) -> None:
    tree = node.start(node.child("a"), node.child("b"), node.child("c"))
    node.life.clear()

    tree.crash("b")
    tree.addresses()["b"].ask(Ping(), PATIENCE_S)

    assert node.life == ["b crashed", "b started"]


def test_what_is_told_while_an_actor_restarts_is_handled_by_its_successor(node: Node) -> None:
    a = node.child("a")
    node.start(a)

    a.address.tell(Note("before"))
    a.address.tell(Break())
    for number in range(100):
        a.address.tell(Note(str(number)))

    a.address.ask(Ping(), PATIENCE_S)
    assert node.notes == ["before", *map(str, range(100))]
    assert a.address.snapshot().restarts == 1


def test_who_asked_before_a_crash_is_answered_by_the_successor_unless_the_crash_had_the_question(node: Node) -> None:
    a = node.child("a")
    node.start(a)
    a.address.tell(Wait())
    assert node.notebook("a").waiting.wait(PATIENCE_S)
    in_hand = a.address.ask_later(Later("lost"))
    a.address.tell(Crash("chaos"))
    behind = a.address.ask_later(HowMany())

    node.notebook("a").gate.set()

    with pytest.raises(ActorGoneError):
        in_hand.wait(PATIENCE_S)
    assert behind.wait(PATIENCE_S) == 0


def failing_starts(times: int) -> Callable[..., Actor]:
    """Return a kind of notebook that fails to start so many times, then starts."""
    left = [times]

    class Stubborn(Notebook):
        def started(self) -> None:
            if left[0]:
                left[0] -= 1
                raise OSError("not yet")
            super().started()

    return Stubborn


def test_a_child_that_fails_to_start_is_tried_again_and_its_later_siblings_wait(node: Node) -> None:
    tree = node.start(node.child("a", failing_starts(3)), node.child("b"), strategy=Strategy.REST_FOR_ONE)

    assert eventually(lambda: node.life == ["a crashed"] * 3 + ["a started", "b started"])
    branch = tree.tree().children[0]
    assert (branch.state, branch.restarts, branch.reason) == ("running", 3, "OSError: not yet (while starting)")


def test_a_crash_during_a_restart_is_a_crash_like_any_other(node: Node) -> None:
    tree = node.start(
        node.child("a"), node.child("b", failing_starts(0)), node.child("c"), strategy=Strategy.REST_FOR_ONE
    )
    slow = threading.Event()

    class CrashesOnce(Notebook):
        def started(self) -> None:
            super().started()
            if not slow.is_set():
                slow.set()
                raise RuntimeError("during the restart")

    # b's next incarnation crashes while c has not been started again.
    supervisor = tree._root
    old = supervisor.children["b"]
    supervisor.children["b"] = Child(old.address, lambda: CrashesOnce(node.notes, node.life, "b"))
    node.life.clear()

    tree.crash("a")

    assert eventually(lambda: node.life[-1:] == ["c started"])
    assert node.life == [
        "a crashed",
        "c stopping",
        "b stopping",
        "a started",
        "b started",
        "b crashed",
        "b started",
        "c started",
    ]


def test_a_factory_that_raises_is_a_crash(node: Node) -> None:
    def make() -> Actor:
        raise LookupError("nothing to make it of")

    tree = node.start(node.child("a"), Child(Address("b"), make), intensity=Intensity(2, 60_000_000_000))

    assert "LookupError: nothing to make it of" in node.gave_up.get(timeout=PATIENCE_S)
    assert tree.wait(PATIENCE_S)


def test_more_restarts_than_the_intensity_stop_all_and_give_up_once(node: Node) -> None:
    tree = node.start(node.child("a"), node.child("b"), intensity=Intensity(3, 60_000_000_000))
    for _ in range(4):
        tree.crash("b", "chaos")

    reason = node.gave_up.get(timeout=PATIENCE_S)

    assert "root gives up: more than 3 restarts in 60 s; the last was b: " in reason
    assert "chaos" in reason
    assert tree.wait(PATIENCE_S)
    assert node.life[-2:] == ["b crashed", "a stopping"]
    assert node.gave_up.empty()
    assert not tree.addresses()["a"].tell(Note("too late"))
    with pytest.raises(ActorGoneError):
        tree.addresses()["a"].ask(HowMany(), PATIENCE_S)


def subtree(node: Node, *children: Child, intensity: Intensity = OFTEN) -> Child:
    return Child(
        Address("workers"),
        lambda: Supervisor(children, node.timers, intensity=intensity, backoff=AT_ONCE),
        stop_within_s=PATIENCE_S,
    )


def test_a_crash_below_a_nested_supervisor_stays_below_it(node: Node) -> None:
    tree = node.start(node.child("a"), subtree(node, node.child("w1"), node.child("w2")))
    node.life.clear()

    tree.crash("w1")
    tree.addresses()["w1"].ask(Ping(), PATIENCE_S)

    assert node.life == ["w1 crashed", "w1 started"]
    assert tree.metrics()["workers"].restarts == 0


def test_a_nested_supervisor_that_gives_up_is_restarted_with_its_children(node: Node) -> None:
    tree = node.start(
        node.child("a"), subtree(node, node.child("w1"), node.child("w2"), intensity=Intensity(0, 1_000_000_000))
    )
    node.life.clear()

    tree.crash("w1")

    assert eventually(lambda: node.life[-1:] == ["w2 started"])
    assert node.life == ["w1 crashed", "w2 stopping", "w1 started", "w2 started"]
    assert tree.metrics()["workers"].restarts == 1
    tree.addresses()["workers"].ask(Ping(), PATIENCE_S)
    assert [branch.state for branch in tree.tree().children[1].children] == ["running", "running"]


def test_a_transient_child_that_ended_takes_mail_again_when_its_supervisor_is_restarted(node: Node) -> None:
    w1 = node.child("w1", restart=Restart.TRANSIENT)
    tree = node.start(subtree(node, w1))
    node.notebook("w1").halt()
    assert eventually(lambda: w1.address.closed)

    tree.crash("workers")
    tree.addresses()["workers"].ask(Ping(), PATIENCE_S)

    assert w1.address.ask(Ping(), PATIENCE_S) is True


def test_what_children_of_a_crashed_supervisor_reported_does_not_confuse_its_successor(node: Node) -> None:
    tree = node.start(subtree(node, node.child("w1"), node.child("w2"), node.child("w3")))

    for _ in range(5):
        tree.crash("workers")
        tree.addresses()["workers"].ask(Ping(), PATIENCE_S)

    tree.addresses()["workers"].ask(Ping(), PATIENCE_S)
    assert {name: metrics.restarts for name, metrics in tree.metrics().items() if name != "root"} == {
        "workers": 5,
        "w1": 5,
        "w2": 5,
        "w3": 5,
    }


def test_a_root_that_crashes_gives_up(node: Node) -> None:
    tree = node.start(node.child("a"))

    tree._address.tell(Crash("a fault of the supervisor itself"))

    assert "a fault of the supervisor itself" in node.gave_up.get(timeout=PATIENCE_S)
    assert tree.wait(PATIENCE_S)
    assert node.life == ["a started", "a stopping"]


def test_a_child_that_hangs_is_abandoned_after_its_bound_and_the_others_stop_in_order(node: Node) -> None:
    hung = node.child("b", stop_within_s=0.05)
    tree = node.start(node.child("a"), hung, node.child("c"))
    hung.address.tell(Wait())
    assert node.notebook("b").waiting.wait(PATIENCE_S)

    assert tree.stop_all(PATIENCE_S) == ("b",)

    assert node.life[-2:] == ["c stopping", "a stopping"]
    assert tree.metrics()["b"].abandoned == 1


def test_a_sibling_that_hangs_does_not_stop_a_restart(node: Node) -> None:
    b = node.child("b", stop_within_s=0.05)
    tree = node.start(node.child("a"), b, strategy=Strategy.REST_FOR_ONE)
    hung = node.notebook("b")
    b.address.tell(Wait())
    assert hung.waiting.wait(PATIENCE_S)
    b.address.tell(Note("for the successor"))

    tree.crash("a")

    assert eventually(lambda: node.notes == ["for the successor"])
    hung.gate.set()
    assert hung.wait_ended(PATIENCE_S)
    b.address.ask(Ping(), PATIENCE_S)
    assert node.notebook("b") is not hung


class TellsItsNotes(Notebook):
    """Writes notes into its life as well, to show which incarnation got them."""

    def receive(self, message: object) -> object:
        if isinstance(message, Note):
            self.life.append(f"note {message.text}")
            return None
        return super().receive(message)  # type: ignore[arg-type]


def test_a_sibling_that_is_restarted_leaves_its_mail_to_its_successor(node: Node) -> None:
    b = node.child("b", TellsItsNotes)
    tree = node.start(node.child("a"), b, strategy=Strategy.REST_FOR_ONE)
    former = node.notebook("b")
    b.address.tell(Wait())
    b.address.tell(Note("kept"))
    assert former.waiting.wait(PATIENCE_S)
    tree.crash("a")
    assert eventually(lambda: former.stop_ordered)

    former.gate.set()
    b.address.ask(Ping(), PATIENCE_S)

    assert node.life[2:] == ["a crashed", "b stopping", "a started", "b started", "note kept"]


def test_a_child_that_does_not_come_up_in_time_counts_as_crashed(node: Node) -> None:
    first = threading.Event()

    class Slow(Notebook):
        def started(self) -> None:
            if not first.is_set():
                first.set()
                self.gate.wait(PATIENCE_S)
            super().started()

    tree = node.start(node.child("a", Slow, start_within_s=0.05))

    tree.addresses()["a"].ask(Ping(), PATIENCE_S)
    assert tree.tree().children[0].reason == "did not start within 0.05 s"
    assert tree.metrics()["a"].abandoned == 1


def test_a_stop_does_not_wait_for_a_start_that_takes_its_time(node: Node) -> None:
    begun = threading.Event()

    class Slow(Notebook):
        def started(self) -> None:
            begun.set()
            self.gate.wait(PATIENCE_S)

    tree = node.start(node.child("a"), node.child("b", Slow, stop_within_s=0.05), timeout_s=0.0)
    assert begun.wait(PATIENCE_S)

    began = time.monotonic()
    assert tree.stop_all(PATIENCE_S) == ("b",)

    assert time.monotonic() - began < PATIENCE_S / 2
    assert node.life[-1] == "a stopping"


class LosesItsInbox(Notebook):
    """Breaks Pykka's loop itself, outside of all that looks after errors."""

    def receive(self, message: object) -> object:
        if isinstance(message, Break):
            del self.actor_inbox
            return None
        return super().receive(message)  # type: ignore[arg-type]


def test_an_error_in_the_loop_itself_is_a_crash(node: Node) -> None:
    a = node.child("a", LosesItsInbox)
    tree = node.start(a)

    a.address.tell(Break())

    assert a.address.ask(Ping(), PATIENCE_S) is True
    assert "while reading its mailbox" in tree.tree().children[0].reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_without_a_word_is_noticed_by_the_sweep(node: Node) -> None:
    class Dies(LosesItsInbox):
        def _crash(self, while_: str, error: BaseException) -> None:
            raise SystemExit

    a = node.child("a", Dies)
    tree = node.start(a)
    victim = node.notebook("a")
    a.address.tell(Break())
    assert victim.wait_ended(PATIENCE_S)

    tree._address.tell(Sweep())

    assert a.address.ask(Ping(), PATIENCE_S) is True
    assert tree.tree().children[0].reason == "its thread ended without a word"


def test_an_actor_that_hangs_while_closing_after_a_crash_is_noticed_by_the_sweep(node: Node) -> None:
    first = threading.Event()

    class HangsOnce(Notebook):
        def crashed(self) -> None:
            if not first.is_set():
                first.set()
                self.gate.wait(PATIENCE_S)

    a = node.child("a", HangsOnce, stop_within_s=0.0)
    tree = node.start(a)
    tree.crash("a")
    assert first.wait(PATIENCE_S)

    tree._address.tell(Sweep())

    assert a.address.ask(Ping(), PATIENCE_S) is True
    assert tree.tree().children[0].reason == "it hangs while closing"


def test_the_sweep_comes_by_itself(node: Node) -> None:
    tree = node.start(node.child("a"))

    assert len(node.timers) == 1
    assert eventually(lambda: tree.metrics()["root"].handled >= 1)


def test_stopping_lets_a_child_handle_the_mail_that_waits(node: Node) -> None:
    a = node.child("a")
    tree = node.start(a)
    a.address.tell(Wait())
    for number in range(50):
        a.address.tell(Note(str(number)))
    stopper = threading.Thread(target=tree.stop_all, args=[PATIENCE_S])
    stopper.start()
    assert eventually(lambda: node.notebook("a").stop_ordered)

    node.notebook("a").gate.set()
    stopper.join(PATIENCE_S)

    assert len(node.notes) == 50


def test_stopping_cuts_short_a_child_that_has_too_much_mail(node: Node) -> None:
    class Slow(Notebook):
        def receive(self, message: object) -> object:
            self.gate.wait(0.01)
            return super().receive(message)  # type: ignore[arg-type]

    a = node.child("a", Slow, stop_within_s=0.2)
    tree = node.start(a)
    for number in range(1000):
        a.address.tell(Note(str(number)))

    assert tree.stop_all(PATIENCE_S) == (), "it ended in order"

    assert node.life[-1] == "a stopping"
    assert len(node.notes) < 1000
    assert a.address.snapshot().dropped == 1000 - len(node.notes)


def test_a_stop_without_grace_still_stops_all(node: Node) -> None:
    tree = node.start(node.child("a"), subtree(node, node.child("w1")), node.child("b"))

    assert tree.stop_all(0.0) == ()

    assert node.life[3:] == ["b stopping", "w1 stopping", "a stopping"]


def test_a_transient_child_that_ended_in_order_takes_no_more_mail(node: Node) -> None:
    a = node.child("a", restart=Restart.TRANSIENT)
    tree = node.start(a)

    node.notebook("a").halt()

    assert eventually(lambda: a.address.closed)
    assert not a.address.tell(Note("too late"))
    assert tree.tree().children[0].state == "ended"


def test_a_temporary_child_that_crashed_stays_away(node: Node) -> None:
    tree = node.start(node.child("a", restart=Restart.TEMPORARY))

    tree.crash("a")

    assert eventually(lambda: tree.addresses()["a"].closed)
    assert tree.metrics()["a"].restarts == 0


def test_crashing_a_name_that_nobody_has_says_so(node: Node) -> None:
    tree = node.start(node.child("a"))

    assert not tree.crash("nobody")


def test_two_children_of_one_name_are_refused(node: Node) -> None:
    with pytest.raises(ValueError, match="names of their own"):
        Supervisor([node.child("a"), node.child("a")], node.timers)


def test_what_actors_refused_can_be_looked_at_for_the_whole_tree(node: Node) -> None:
    tree = node.start(node.child("a"), subtree(node, node.child("w1")))
    for name in ("w1", "a"):
        tree.addresses()[name].tell_bytes(b"\xc1")
        tree.addresses()[name].ask(Ping(), PATIENCE_S)

    assert {entry.actor for entry in tree.undeliverable()} == {"a", "w1"}


def test_crashes_at_random_under_load_lose_only_what_was_in_hand(node: Node) -> None:
    chance = random.Random(4711)
    children = [node.child(name) for name in ("a", "b", "c")]
    tree = node.start(*children, subtree(node, node.child("w1")), strategy=Strategy.REST_FOR_ONE)
    names = ["a", "b", "c", "w1"]
    sent = 0

    for _ in range(30):
        for _ in range(20):
            sent += tree.addresses()[chance.choice(names)].tell(Note("x"))
        tree.crash(chance.choice([*names, "workers"]), "chaos")

    for name in names:
        assert tree.addresses()[name].ask(Ping(), PATIENCE_S) is True
    assert eventually(lambda: len(node.notes) == sent)
    assert node.gave_up.empty()
