"""Packets of the mesh: exact sizes, and nothing but a whole, fresh packet of a known key is taken."""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.mesh.effect import Proved
from relaymesh.core.mesh.event import HOPS_MAX
from relaymesh.core.mesh.member import BUCKETS, Member, State
from relaymesh.core.mesh.packet import Kind, Packet, Update, base_bytes, extra_bytes, untold_bytes, update_bytes
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tuning import SECOND, Tuning
from relaymesh.wire.mesh_key import KEYS_MAX, KeyRing, MeshKey
from relaymesh.wire.mesh_packet import DATAGRAM_BYTES_MAX, Opener, Refusal, Sealer, pack_address

LABEL = "blue"
RING = KeyRing(MeshKey.derive("correct horse", LABEL))
HERE, THERE = "10.0.0.1:17888", "[2001:db8::7]:17889"

addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(1, 65_535)).map(lambda at: f"{at[0]}:{at[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(1, 65_535)).map(lambda at: f"[{at[0]}]:{at[1]}"),
)
node_ids = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=30)
numbers = st.integers(0, (1 << 64) - 1)
members = st.builds(
    Member, node_ids, addresses, st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 32) - 1), st.sampled_from(State)
)
updates = st.lists(st.builds(Update, members, st.lists(numbers, max_size=3).map(tuple)), max_size=8).map(tuple)
EXTRAS = {
    Kind.PING: st.none() | st.integers(1, 400),
    Kind.CHALLENGE: st.none() | st.integers(1, 400),
    Kind.ACK: st.none() | numbers,
    Kind.PING_REQ: st.tuples(node_ids, addresses),
    Kind.SYNC: numbers.map(lambda number: (number,) * BUCKETS),
    Kind.RECORDS: st.tuples(st.integers(0, (1 << 32) - 1), st.booleans()),
    Kind.EVENT: st.tuples(st.integers(1, HOPS_MAX), st.binary(min_size=1, max_size=400)),
    Kind.STALE: st.tuples(st.integers(0, (1 << 63) - 1), addresses, st.integers(0, 3)),
}


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    kind = draw(st.sampled_from(Kind))
    sender = draw(members.filter(lambda member: member.state in (State.ALIVE, State.LEFT)))
    news = draw(updates)
    extra = draw(EXTRAS.get(kind, st.none()))
    digest = draw(st.just(0) | numbers)
    size = base_bytes(sender) + sum(map(update_bytes, news)) + extra_bytes(kind, extra) - untold_bytes(kind, digest)
    return Packet(HERE, kind, sender, draw(numbers), digest, news, extra, size)


def a_ping(node_id: str = "a", generation: int = 1) -> Packet:
    sender = Member(node_id, HERE, generation, 0, State.ALIVE)
    return Packet(HERE, Kind.PING, sender, 7, 8, (), None, base_bytes(sender))


@given(packets())
@settings(max_examples=40, deadline=None)
def test_a_packet_comes_back_as_it_was_and_is_as_long_as_the_core_says(packet: Packet) -> None:
    data = Sealer(RING, LABEL, packet.sender.node_id).seal(packet)

    assert len(data) == packet.size
    assert Opener(RING, LABEL, HERE).open(0, HERE, data) == packet


@given(st.binary(max_size=1_500))
@settings(max_examples=40, deadline=None)
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert isinstance(Opener(RING, LABEL).open(0, HERE, data), Refusal)


@given(st.recursive(st.none() | st.integers() | st.binary() | st.text(), lambda inner: st.lists(inner, max_size=9)))
@settings(max_examples=40, deadline=None)
def test_a_body_that_is_signed_but_wrong_is_refused(body: object) -> None:
    whole = Sealer(RING, LABEL, "a").seal(a_ping())
    try:
        data = whole[:32] + msgpack.packb(body)
    except OverflowError:
        return
    data += RING.primary.code(data)

    assert isinstance(Opener(RING, LABEL).open(0, HERE, data), Refusal)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_packet_with_one_flipped_bit_is_refused_and_the_whole_one_is_taken_after_it(data: st.DataObject) -> None:
    whole = Sealer(RING, LABEL, "a").seal(a_ping())
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    opener = Opener(RING, LABEL)

    assert isinstance(opener.open(0, HERE, bytes(flipped)), Refusal)
    assert len(opener.windows) == 0
    assert isinstance(opener.open(0, HERE, whole), Packet)


def test_a_packet_is_taken_once() -> None:
    data = Sealer(RING, LABEL, "a").seal(a_ping())
    opener = Opener(RING, LABEL)

    assert isinstance(opener.open(0, HERE, data), Packet)
    assert opener.open(0, HERE, data) is Refusal.REPLAYED
    assert opener.open(0, THERE, data) is Refusal.REPLAYED


def test_a_packet_of_an_earlier_run_is_refused_unless_it_asks() -> None:
    opener = Opener(RING, LABEL)
    opener.open(0, HERE, Sealer(RING, LABEL, "a").seal(a_ping(generation=2)))
    former = Sealer(RING, LABEL, "a")
    gossip = a_ping()._replace(kind=Kind.GOSSIP)

    assert opener.open(0, HERE, former.seal(gossip)) is Refusal.FORMER
    assert isinstance(opener.open(0, HERE, former.seal(a_ping())), Packet)


@pytest.mark.parametrize(
    ("ring", "label", "why"),
    [
        (KeyRing(MeshKey.derive("another secret", LABEL)), LABEL, Refusal.UNKNOWN_KEY),
        (KeyRing(MeshKey.derive("correct horse", "green")), "green", Refusal.UNKNOWN_KEY),
        (KeyRing(MeshKey.derive("", LABEL)), LABEL, Refusal.UNKNOWN_KEY),
        (KeyRing(MeshKey(b"x" * 32, RING.primary.key_id)), LABEL, Refusal.WRONG_CODE),
    ],
)
def test_a_packet_of_another_key_is_refused(ring: KeyRing, label: str, why: Refusal) -> None:
    data = Sealer(ring, label, "a").seal(a_ping())

    assert Opener(RING, LABEL).open(0, HERE, data) is why


def test_a_packet_of_another_cluster_is_refused_even_without_keys() -> None:
    unsigned = KeyRing(MeshKey.derive("", LABEL))

    assert Opener(unsigned, LABEL).open(0, HERE, Sealer(unsigned, "green", "a").seal(a_ping())) is Refusal.MALFORMED


def test_a_source_that_sends_too_much_is_not_looked_at_and_others_are() -> None:
    opener, sealer = Opener(RING, LABEL), Sealer(RING, LABEL, "a")

    answers = [opener.open(0, HERE, sealer.seal(a_ping())) for _ in range(500)]

    assert answers.count(Refusal.TOO_MANY) == 100
    assert isinstance(opener.open(0, "10.0.0.2:17888", sealer.seal(a_ping())), Packet)
    assert isinstance(opener.open(SECOND, HERE, sealer.seal(a_ping())), Packet)


def test_keys_are_changed_in_three_steps_and_every_node_reads_every_other_meanwhile() -> None:
    new = MeshKey.derive("the next one", LABEL)
    installed = RING.install(new)
    used = installed.use(new.key_id)
    only_new = used.remove(RING.primary.key_id)

    for ours, theirs in ((RING, installed), (installed, used), (used, installed), (used, only_new), (only_new, used)):
        data = Sealer(ours, LABEL, "a").seal(a_ping())
        assert isinstance(Opener(theirs, LABEL).open(0, HERE, data), Packet)
    assert installed.install(new) == installed
    assert used.use(new.key_id) == used
    with pytest.raises(ValueError, match="in use"):
        used.remove(new.key_id)
    with pytest.raises(ValueError, match="install it"):
        RING.use(new.key_id)


def test_a_ring_has_a_last_place() -> None:
    ring = RING
    for number in range(KEYS_MAX - 1):
        ring = ring.install(MeshKey.derive(f"secret {number}", LABEL))

    with pytest.raises(ValueError, match="remove one first"):
        ring.install(MeshKey.derive("one more", LABEL))


def test_a_key_does_not_show_itself() -> None:
    assert RING.primary.secret.hex() not in repr(RING)
    assert "correct horse" not in repr(RING)


@pytest.mark.parametrize("address", ["example.org:1", "10.0.0.1", "10.0.0.01:1", "[2001:DB8::7]:1", "10.0.0.1:0"])
def test_an_address_is_a_number_in_its_one_form(address: str) -> None:
    with pytest.raises(ValueError):
        pack_address(address)


def test_packets_that_are_no_packets_change_nothing_in_the_core() -> None:
    """The whole way: what a node sent is bent, cut, repeated and signed by a stranger; only the first copy counts."""
    chance = random.Random(7)
    a = Membership(Member("a", HERE, 1, 0, State.ALIVE), Tuning(), random.Random(1), 0, seeds=["10.0.0.2:17888"])
    b = Membership(Member("b", "10.0.0.2:17888", 1, 0, State.ALIVE), Tuning(), random.Random(2), 0)
    seal, opener = Sealer(RING, LABEL, "a"), Opener(RING, LABEL, "10.0.0.2:17888")
    (join,) = (effect for effect in a.wake(0) if isinstance(effect, Packet))
    data = seal.seal(join)
    assert len(data) == join.size <= DATAGRAM_BYTES_MAX
    before = (b.view.digest, dict(b.view.peers), len(b.rumors))

    for _ in range(300):
        bent = bytearray(data)
        bent[chance.randrange(len(bent))] ^= 1 << chance.randrange(8)
        assert isinstance(opener.open(0, "10.9.9.9:1", bytes(bent[: chance.randrange(len(bent) + 1)])), Refusal)
    opened = opener.open(SECOND, HERE, data)
    assert isinstance(opened, Packet)
    replies = [effect for effect in b.receive(SECOND, HERE, opened) if isinstance(effect, Packet)]
    assert opener.open(SECOND, HERE, data) is Refusal.REPLAYED

    # It has not proved itself yet: it is answered, not longer than it asked, and not believed.
    assert (b.view.digest, dict(b.view.peers), len(b.rumors)) == before
    assert [reply.kind for reply in replies] == [Kind.ACK]
    assert sum(reply.size for reply in replies) <= len(data)


def test_what_was_recorded_before_a_node_started_is_not_taken_after_its_sender_has_proved_itself() -> None:
    there = "10.0.0.2:17888"
    a = Membership(Member("a", HERE, 1, 0, State.ALIVE), Tuning(), random.Random(1), 0, seeds=[there])
    b = Membership(Member("b", there, 1, 0, State.ALIVE), Tuning(), random.Random(2), 0)
    nodes = {HERE: a, there: b}
    seals = {HERE: Sealer(RING, LABEL, "a"), there: Sealer(RING, LABEL, "b")}
    openers = {HERE: Opener(RING, LABEL, HERE), there: Opener(RING, LABEL, there)}
    recorded = [seals[HERE].seal(a_ping()) for _ in range(5)]  # b was not there yet, or has forgotten
    waiting = [(HERE, effect) for effect in a.wake(0)]

    while waiting:
        source, effect = waiting.pop(0)
        if isinstance(effect, Packet):
            opened = openers[effect.to].open(0, source, seals[source].seal(effect))
            assert isinstance(opened, Packet)
            waiting += [(effect.to, more) for more in nodes[effect.to].receive(0, source, opened)]
        elif isinstance(effect, Proved):
            openers[source].proved(effect.member)

    assert b.view.peers["a"].proof == HERE
    assert [openers[there].open(0, HERE, data) for data in recorded] == [Refusal.REPLAYED] * 5
