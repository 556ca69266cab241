"""Events at a node that runs: passed on to members, answered to ticks within their length, kept from the machine."""

from __future__ import annotations

import random

from actors.event_port import AGAIN_MS_MIN, EventPort
from relaymesh.core.mesh.event import Event
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Kind, Packet, base_bytes, extra_bytes
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tick import Heartbeat
from relaymesh.core.mesh.tuning import SECOND, Tuning
from relaymesh.core.setting_table import Settings
from relaymesh.wire.mesh_event import pack_event, pack_heartbeat, parse_event, parse_heartbeat
from relaymesh.wire.mesh_key import KeyRing, MeshKey
from relaymesh.wire.mesh_packet import Sealer

NOON = 1_700_000_000_000
HERE, TICK = "10.0.0.1:17888", "10.9.9.9:17888"
OLD, NEW = MeshKey.derive("the old secret", "t"), MeshKey.derive("the new secret", "t")
ONE_KEY = KeyRing(OLD)


class Port:
    """A port of node a, whose machine knows some proven members."""

    def __init__(self, members: int = 3, ring: KeyRing = ONE_KEY) -> None:
        me = Member("a", HERE, 5, 0, State.ALIVE)
        self.machine = Membership(me, Tuning(), random.Random(1), 0)
        for number in range(members):
            peer = self.machine.view.add(Member(f"m{number}", f"10.0.1.{number}:1", 1, 0, State.ALIVE), 0)
            peer.proof, peer.proof_generation = peer.member.address, 1
        self.ring = ring
        self.port = EventPort(self.machine, Settings(), ring, random.Random(2), NOON)
        self.port.due(NOON, ring)

    def take(self, packet: Packet, source: str = TICK, now_ms: int = NOON) -> list[Packet]:
        data = Sealer(self.ring, "t", packet.sender.node_id).seal(packet)
        return self.port.take(now_ms, source, packet, data)


def a_tick(
    origin: str = "tick", *, hops: int = 2, beat: Heartbeat | None = None, number: int = 1, kind: int = 1
) -> Packet:
    body = pack_heartbeat(beat or Heartbeat(NOON, (("far", NOON - 5),)))
    event = pack_event(Event(origin, TICK, 0, number, kind, body))
    me = Member(origin, TICK, 0, 0, State.ALIVE)
    extra = (hops, event)
    return Packet(HERE, Kind.EVENT, me, 0, 0, (), extra, base_bytes(me) + extra_bytes(Kind.EVENT, extra))


def heard(packet: Packet) -> tuple[Event, Heartbeat]:
    assert isinstance(packet.extra, tuple)
    event = parse_event(packet.extra[1])
    return event, parse_heartbeat(event.body)


def test_a_tick_goes_on_to_members_and_is_answered_by_our_heartbeat() -> None:
    bench = Port()
    tick = a_tick()

    made = bench.take(tick)

    on, answers = [one for one in made if one.to != TICK], [one for one in made if one.to == TICK]
    assert sorted(one.to for one in on) == ["10.0.1.0:1", "10.0.1.1:1", "10.0.1.2:1"]
    assert all(one.extra == (1, tick.extra[1]) for one in on)  # type: ignore[index]
    (answer,) = answers
    event, beat = heard(answer)
    assert (event.origin, event.generation, beat.at_ms, beat.keys) == ("a", 5, NOON, (OLD.key_id,))
    assert answer.size <= tick.size


def test_the_answer_names_as_many_members_as_fit_into_the_length_of_the_packet() -> None:
    bench = Port()
    long = a_tick(beat=Heartbeat(NOON, tuple((f"far{number}", NOON) for number in range(9))))

    (answer,) = [one for one in bench.take(long) if one.to == TICK]

    assert [name for name, _ in heard(answer)[1].nodes] == ["m0", "m1", "m2"]
    assert answer.size <= long.size


def test_a_short_packet_is_not_answered_by_a_longer_one() -> None:
    bench = Port()
    bench.machine.view.me = Member("a" * 100, HERE, 5, 0, State.ALIVE)
    bench.machine.outbox.follow()

    assert [one for one in bench.take(a_tick(beat=Heartbeat(NOON)), now_ms=NOON) if one.to == TICK] == []


def test_who_is_a_member_already_or_did_not_send_it_itself_is_not_answered() -> None:
    bench = Port()

    assert TICK not in {one.to for one in bench.take(a_tick("m0"))}
    assert TICK not in {one.to for one in bench.take(a_tick("other"), source="10.0.1.1:1")}


def test_the_same_event_comes_to_nothing_the_second_time() -> None:
    bench = Port()
    bench.take(a_tick())

    assert bench.take(a_tick()) == []
    assert bench.machine.counts["events_dropped"] == 1


def test_what_is_heard_goes_to_the_store_and_never_into_the_machine() -> None:
    bench = Port()
    before = (bench.machine.view.digest, set(bench.machine.view.peers))

    bench.take(a_tick(beat=Heartbeat(NOON - 1, (("far", NOON - 5), ("m1", NOON), ("a", NOON)))))

    news = bench.port.news(NOON)
    assert news is not None
    assert dict(news.beats) == {"tick": NOON - 1, "far": NOON - 5}
    assert (bench.machine.view.digest, set(bench.machine.view.peers)) == before
    assert bench.port.news(NOON) is None


def test_an_event_of_another_kind_is_only_passed_on() -> None:
    bench = Port()

    made = bench.take(a_tick(kind=77), source="10.0.1.0:1")

    assert {one.to for one in made} <= {"10.0.1.1:1", "10.0.1.2:1"} and made
    assert bench.port.news(NOON) is None


def test_bytes_that_are_no_event_are_counted_and_nothing_else() -> None:
    bench = Port()
    me = Member("x", TICK, 0, 0, State.ALIVE)
    bad = Packet(HERE, Kind.EVENT, me, 0, 0, (), (2, b"nonsense"), 0)

    assert bench.port.take(NOON, TICK, bad, b"") == []
    assert bench.machine.counts["bad_events"] == 1


def test_a_change_of_our_keys_is_told_to_all_at_once_and_again_while_it_goes_on() -> None:
    bench = Port()
    both = ONE_KEY.install(NEW)

    told = bench.port.due(NOON + 1, both)
    quiet = bench.port.due(NOON + 2, both)
    again = bench.port.due(NOON + 1 + AGAIN_MS_MIN, both)
    done = bench.port.due(NOON + 2 + AGAIN_MS_MIN, KeyRing(NEW))
    after = bench.port.due(NOON + 10 * AGAIN_MS_MIN, bench.port._ring_now)

    assert len(told) == len(again) == len(done) == 3 and quiet == after == []
    assert heard(told[0])[1].keys == (OLD.key_id, NEW.key_id)
    assert heard(done[0])[1].keys == (NEW.key_id,)


def test_an_open_mesh_tells_nothing_of_keys() -> None:
    bench = Port(ring=KeyRing(MeshKey.derive("", "t")))

    assert bench.port.due(NOON + 10 * AGAIN_MS_MIN, bench.ring) == []


def test_which_key_proven_members_seal_with_is_noted_while_there_is_more_than_one() -> None:
    bench = Port(ring=ONE_KEY.install(NEW))
    bench.port.news(NOON)
    data = Sealer(KeyRing(OLD), "t", "m0").seal(a_tick("m0"))
    ping = a_tick("m0")._replace(sender=Member("m0", "10.0.1.0:1", 1, 0, State.ALIVE))
    stranger = a_tick("stranger")

    bench.port.used(ping, data)
    bench.port.used(stranger, data)

    news = bench.port.news(NOON + SECOND)
    assert news is not None
    assert [(row[0], row[3]) for row in news.keys] == [("m0", ((OLD.key_id.hex(), NOON + SECOND),))]
    bench.port.used(ping, data)
    assert bench.port.news(NOON + SECOND + 1) is None  # noted a moment ago


def test_with_one_key_nothing_is_noted() -> None:
    bench = Port()

    bench.port.used(a_tick("m0"), b"RM..1234")

    assert bench.port.news(NOON) is None
