"""A GossipActor on a real socket of the loopback interface, with a clock that is set; its partner is made by hand."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Iterator

import pytest

from actors.address import Address
from actors.gossip import BATCH_MAX, BIND_NS, CHECKPOINT_NS, GossipActor, Place
from actors.mesh_board import MeshBoard
from relaymesh.core.mesh.hint import Source
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Kind, Packet, Update
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tuning import MS, SECOND, Tuning
from relaymesh.core.setting_table import Settings
from relaymesh.net.gossip_socket import GossipSocket
from relaymesh.wire import codec
from relaymesh.wire.kernel import Ping
from relaymesh.wire.mesh import (
    AddressHints,
    BeginGossip,
    DatagramsArrived,
    GossipUp,
    MembersChanged,
    MeshCheckpoint,
)
from relaymesh.wire.mesh_key import KeyRing, MeshKey
from relaymesh.wire.mesh_packet import Opener, Refusal, Sealer
from tests.actors.fakes import PATIENCE_S, ManualTimers, eventually

LABEL = "test"
NOON = 1_700_000_000_000


def ring(secret: str) -> KeyRing:
    return KeyRing(MeshKey.derive(secret, LABEL))


class Bench:
    """A GossipActor. leaves: whether its end is an orderly one."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, seeded: bool = False, secret: str = "s") -> None:
        self.held = Settings(gossip_shared_secret=secret)
        self.ring = ring(secret)
        self.leaves = True
        self.news = 0
        self.verdicts: list[bool] = []
        self.board = MeshBoard(self._is_news, lambda verdict: self.verdicts.append(verdict.alive))
        self.timers = ManualTimers()
        self.membership, self.address = Address("membership"), Address("gossip")
        place = Place("a", host, port, "", LABEL, seeded)
        self.actor = GossipActor(place, self.board, self, self.timers, self.membership)
        self.actor.launch(self.address)
        assert self.actor.wait_up(PATIENCE_S)

    def _is_news(self) -> None:
        self.news += 1

    # GossipNeeds.

    def settings(self) -> Settings:
        return self.held

    def key_ring(self) -> KeyRing:
        return self.ring

    def leaving(self) -> bool:
        return self.leaves

    def now_ms(self) -> int:
        return NOON + self.timers.now_ns() // MS

    # What the test does.

    def settle(self) -> None:
        assert self.address.ask(Ping(), PATIENCE_S) is True

    def begin(self, generation: int = 1) -> None:
        assert self.address.tell(BeginGossip(generation, (), b""))
        self.settle()

    def advance(self, by_ns: int) -> None:
        """Let time pass in steps that are short enough for the machine not to take them for a standstill."""
        for _ in range(by_ns // (50 * MS)):
            self.timers.advance(50 * MS)
            self.settle()

    def told(self) -> list[codec.Message]:
        found = []
        while self.membership.depth:
            item = self.membership.mailbox.queue.get(timeout=PATIENCE_S)
            assert isinstance(item, bytes)
            found.append(codec.decode(item))
        return found


class Partner:
    """Another node, moved by the test."""

    def __init__(
        self, seed: str, *, node_id: str = "b", secret: str = "s", generation: int = 1, label: str = LABEL
    ) -> None:
        self.socket = GossipSocket("127.0.0.1", 0, lambda: True)
        self.membership = Membership(
            Member(node_id, self.socket.address, generation, 0, State.ALIVE), Tuning(), random.Random(1), 0, (seed,)
        )
        self._sealer = Sealer(ring(secret), label, node_id)
        self._opener = Opener(ring(secret), label, self.socket.address)

    def wake(self, now_ns: int) -> None:
        self._send(self.membership.wake(now_ns))

    def hear(self, now_ns: int) -> list[Packet | Refusal]:
        """Handle what has come."""
        opened = [(source, self._opener.open(now_ns, source, data)) for source, data in self.socket.take(100)]
        for source, packet in opened:
            if isinstance(packet, Packet):
                self._send(self.membership.receive(now_ns, source, packet))
        return [packet for _, packet in opened]

    def recorded(self) -> bytes:
        """Return a datagram that was sealed before, and that nobody has received."""
        me = self.membership.me
        lie = Update(Member("x", "127.0.0.1:9", 1, 0, State.ALIVE))
        return self._sealer.seal(Packet("", Kind.GOSSIP, me, 0, 0, (lie,), None, 0))

    def send_again(self, to: str, data: bytes) -> None:
        self.socket.send(to, data)

    def _send(self, effects: list[object]) -> None:
        for effect in effects:
            if isinstance(effect, Packet):
                self.socket.send(effect.to, self._sealer.seal(effect))


def meet(bench: Bench, partner: Partner) -> None:
    """Let both talk until each knows the other."""

    def known() -> bool:
        partner.wake(bench.timers.now_ns())
        bench.advance(SECOND)
        partner.hear(bench.timers.now_ns())
        bench.settle()
        return bench.board.report.live == 1 and bool(partner.membership.view.peers)

    assert eventually(known)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.actor.halt()
    assert made.actor.wait_ended(PATIENCE_S)


@pytest.fixture
def partner(bench: Bench) -> Iterator[Partner]:
    made = Partner(bench.board.address)
    yield made
    made.socket.close()


def test_a_bound_socket_asks_for_a_generation_and_says_nothing_before_it_has_one(
    bench: Bench, partner: Partner
) -> None:
    assert bench.told() == [GossipUp(bench.board.address)]
    partner.wake(0)

    assert eventually(lambda: bench.address.snapshot().handled >= 1)
    bench.settle()

    assert partner.hear(0) == []


def test_a_generation_that_does_not_come_is_asked_for_again(bench: Bench) -> None:
    bench.told()

    bench.advance(CHECKPOINT_NS + SECOND)

    assert bench.told() == [GossipUp(bench.board.address)]


def test_two_nodes_meet_and_the_membership_actor_hears_of_it(bench: Bench, partner: Partner) -> None:
    bench.begin()
    meet(bench, partner)

    changed = [one for message in bench.told() if isinstance(message, MembersChanged) for one in message.changed]

    # Of a partner that moves a second at a time and answers late more may be said, but not before.
    assert [(one.node_id, one.address, State(one.shown)) for one in changed][:1] == [
        ("b", partner.socket.address, State.ALIVE)
    ]


def test_what_was_recorded_before_a_node_started_is_not_believed_once_its_sender_is(
    bench: Bench, partner: Partner
) -> None:
    recorded = partner.recorded()
    bench.begin()
    meet(bench, partner)
    handled = bench.address.snapshot().handled

    partner.send_again(bench.board.address, recorded)

    assert eventually(lambda: bench.address.snapshot().handled > handled)
    bench.settle()
    told = [one for message in bench.told() if isinstance(message, MembersChanged) for one in message.changed]
    assert {one.node_id for one in told} == {"b"}


def test_a_hint_is_followed(bench: Bench) -> None:
    stranger = Partner("127.0.0.1:9")
    bench.begin()

    bench.address.tell(AddressHints(int(Source.LAN), (stranger.socket.address,)))
    bench.settle()
    bench.advance(SECOND)

    assert eventually(lambda: any(isinstance(one, Packet) and one.kind is Kind.PING for one in stranger.hear(0)))
    stranger.socket.close()


def test_who_has_another_secret_is_counted_and_not_answered(bench: Bench) -> None:
    stranger = Partner(bench.board.address, secret="other")
    bench.begin()

    stranger.wake(0)

    def refused() -> bool:
        bench.advance(SECOND)
        return bench.board.report.refused.get("unknown_key", 0) >= 1

    assert eventually(refused)
    assert stranger.hear(0) == []
    assert bench.board.report.live == 0
    (notice,) = bench.board.report.notices
    assert notice.startswith(f"{stranger.socket.address} calls with another secret")
    stranger.socket.close()


def test_a_mesh_of_another_name_is_not_heard(bench: Bench) -> None:
    stranger = Partner(bench.board.address, label="another")
    bench.begin()

    stranger.wake(0)

    def refused() -> bool:
        bench.advance(SECOND)
        return bench.board.report.refused.get("malformed", 0) >= 1

    assert eventually(refused)
    assert bench.board.report.live == 0
    assert "a mesh of another name" in bench.board.report.notices[0]
    stranger.socket.close()


def test_who_has_the_same_id_and_the_better_right_to_it_is_not_said_to_be_silent() -> None:
    bench = Bench(seeded=True)
    twin = Partner(bench.board.address, node_id="a", generation=7)
    bench.begin()
    bench.address.tell(AddressHints(int(Source.SEEDS), (twin.socket.address,), 0))

    def replaced() -> bool:
        twin.wake(bench.timers.now_ns())
        bench.advance(SECOND)
        twin.hear(bench.timers.now_ns())
        bench.settle()
        return "another live node has this node id" in bench.board.verdict.reason

    assert eventually(replaced)
    bench.advance(15 * SECOND)

    assert bench.board.report.notices == ()
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)
    twin.socket.close()


def test_who_gave_way_to_another_of_its_id_takes_steps_again_when_that_has_died_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(seeded=True)
    bench.held = Settings(gossip_shared_secret="s", lease_timeout_ms=1_000, suspect_after_ms=2_000, dead_after_ms=4_000)
    twin = Partner(bench.board.address, node_id="a", generation=7)
    bench.begin()
    bench.address.tell(AddressHints(int(Source.SEEDS), (twin.socket.address,), 0))

    def gave_way() -> bool:
        bench.advance(SECOND // 2)
        twin.hear(bench.timers.now_ns())
        bench.settle()
        return not bench.board.verdict.alive

    assert eventually(gave_way)
    twin.socket.close()
    bench.told()
    with caplog.at_level(logging.WARNING, "relaymesh.gossip"):
        bench.advance(8 * SECOND)

    assert bench.board.verdict.alive and bench.board.report.pause == ""
    said = [record.getMessage() for record in caplog.records if "this one takes steps again" in record.getMessage()]
    assert len(said) == 1 and twin.socket.address in said[0] and "in generation 8" in said[0]
    saved = [message for message in bench.told() if isinstance(message, MeshCheckpoint)]
    assert saved and saved[-1].own.generation == 8
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)


def test_a_seed_that_the_bound_address_does_not_reach_is_told_apart_from_one_that_does_not_answer() -> None:
    bench = Bench(seeded=True)
    bench.begin()
    bench.address.tell(AddressHints(int(Source.SEEDS), ("[::1]:9",), 0))

    bench.advance(15 * SECOND)

    (told,) = bench.board.report.notices
    assert told.startswith("nothing can be sent to [::1]:9 ") and "--gossip-bind" in told
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)


def test_that_nobody_answers_at_a_seed_is_said_once_and_not_any_more_when_somebody_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(seeded=True)
    partner = Partner(bench.board.address)
    bench.begin()
    bench.address.tell(AddressHints(int(Source.SEEDS), (partner.socket.address,), 0))
    with caplog.at_level(logging.WARNING, "relaymesh.gossip"):
        bench.advance(15 * SECOND)
    told = bench.board.report.notices
    meet(bench, partner)
    bench.advance(2 * SECOND)

    assert len(told) == 1 and told[0].startswith(f"nobody answers at {partner.socket.address}: ")
    assert [record.getMessage() for record in caplog.records] == list(told)
    assert bench.board.report.notices == ()
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)
    partner.socket.close()


def test_a_secret_that_was_changed_counts_from_then_on(bench: Bench) -> None:
    bench.begin()
    bench.ring = ring("new")

    partner = Partner(bench.board.address, secret="new")
    meet(bench, partner)

    assert bench.board.report.live == 1
    partner.socket.close()


def test_a_checkpoint_has_what_a_restart_must_know(bench: Bench, partner: Partner) -> None:
    bench.begin(7)
    meet(bench, partner)
    bench.told()

    bench.advance(CHECKPOINT_NS + SECOND)

    saved = [message for message in bench.told() if isinstance(message, MeshCheckpoint)]
    assert saved and saved[0].own.generation == 7
    assert any(len(message.marks) == 24 for message in saved)


def test_an_orderly_end_is_told_to_the_others_and_another_is_not(bench: Bench, partner: Partner) -> None:
    bench.begin()
    meet(bench, partner)

    bench.actor.finish()
    assert bench.actor.wait_ended(PATIENCE_S)

    def left() -> bool:
        partner.hear(bench.timers.now_ns())
        return partner.membership.view.peers["a"].member.state is State.LEFT

    assert eventually(left)
    assert bench.board.address == ""


def test_an_end_that_is_none_of_its_own_will_is_not_told(bench: Bench, partner: Partner) -> None:
    bench.begin()
    meet(bench, partner)
    bench.leaves = False

    bench.actor.finish()
    assert bench.actor.wait_ended(PATIENCE_S)
    partner.hear(bench.timers.now_ns())

    assert partner.membership.view.peers["a"].member.state is State.ALIVE


def test_an_address_that_cannot_be_had_is_tried_again_later_each_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "relaymesh.gossip")
    bench = Bench(host="192.0.2.1", port=17_888)

    assert "192.0.2.1 port 17888" in bench.board.problem
    for wait_ns in BIND_NS[:2]:
        bench.timers.advance(wait_ns)
        bench.settle()

    assert bench.told() == []
    assert bench.board.report.problem == bench.board.problem
    assert caplog.text.count("it is tried again, and work goes on") == 3
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)


def test_a_port_that_becomes_free_is_taken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 65_535))
        bench = Bench(port=65_535)
        assert bench.board.problem
    bench.timers.advance(BIND_NS[0])
    bench.settle()

    assert bench.board.address == "127.0.0.1:65535"
    assert bench.board.problem == ""
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)


def test_without_a_secret_only_this_machine_is_listened_to() -> None:
    bench = Bench(host="0.0.0.0", secret="")

    assert "set gossipSharedSecret" in bench.board.problem
    assert bench.board.address == ""
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)


def test_a_node_with_seeds_that_hears_from_nobody_it_knew_is_not_fit_to_work() -> None:
    bench = Bench(seeded=True)
    partner = Partner(bench.board.address)
    bench.begin()
    assert bench.board.verdict.alive
    meet(bench, partner)
    partner.socket.close()

    bench.advance(29 * SECOND)
    assert bench.board.verdict.alive
    bench.advance(5 * SECOND)

    assert not bench.board.verdict.alive
    assert "it is cut off" in bench.board.verdict.reason
    assert bench.verdicts == [False]
    bench.actor.halt()
    assert bench.actor.wait_ended(PATIENCE_S)


def test_what_people_wait_for_is_told_once(bench: Bench, partner: Partner) -> None:
    bench.begin()
    bench.advance(SECOND)
    before = bench.news

    meet(bench, partner)
    bench.advance(SECOND)
    told = bench.news
    bench.advance(3 * SECOND)

    assert before < told == bench.news


def test_a_node_without_seeds_is_never_cut_off(bench: Bench, partner: Partner) -> None:
    bench.begin()
    meet(bench, partner)
    partner.socket.close()

    bench.advance(40 * SECOND)

    assert bench.board.verdict.alive


def test_who_has_the_better_right_to_our_id_takes_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    twin = Partner("127.0.0.1:9", node_id="a", generation=5)
    bench.begin()
    bench.address.tell(AddressHints(int(Source.SEEDS), (twin.socket.address,)))

    def replaced() -> bool:
        bench.advance(SECOND)
        twin.hear(0)
        return not bench.board.verdict.alive

    assert eventually(replaced)
    assert twin.socket.address in bench.board.verdict.reason
    assert "give it another --node-id" in caplog.text
    twin.socket.close()


def test_a_flood_is_handled_in_pieces_and_garbage_changes_nothing(bench: Bench) -> None:
    bench.begin()
    handled = bench.address.snapshot().handled
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        host, _, port = bench.board.address.rpartition(":")
        for number in range(3 * BATCH_MAX):
            other.sendto(b"RM" + number.to_bytes(2, "big") + bytes(60), (host, int(port)))

    def counted() -> bool:
        bench.advance(SECOND)
        return sum(bench.board.report.refused.values()) == 3 * BATCH_MAX

    assert eventually(counted)
    assert bench.address.snapshot().failed == 0
    assert bench.address.snapshot().handled > handled
    assert bench.board.report.live == 0


def test_a_word_that_comes_too_early_is_harmless(bench: Bench) -> None:
    bench.address.tell(DatagramsArrived())
    bench.begin()
    bench.address.tell(DatagramsArrived())
    bench.begin(9)  # the second of two answers to two questions
    bench.settle()

    assert bench.address.snapshot().failed == 0
