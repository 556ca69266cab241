"""The membership machine by hand: proofs, refutation, conflicts, leaving, standing still."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.mesh.effect import Changed, Conflicted, Effect, HeldBack, Renewed
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.packet import Kind, Packet, Update, base_bytes
from relaymesh.core.mesh.probe import QUESTIONS, pace_ns
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tuning import MS, SECOND, Tuning

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"


def node(name: str, address: str, *, generation: int = 1, seeds: tuple[str, ...] = ()) -> Membership:
    me = Member(name, address, generation, 0, State.ALIVE)
    return Membership(me, Tuning(), random.Random(name), 0, seeds)


def packets(effects: list[Effect]) -> list[Packet]:
    return [effect for effect in effects if isinstance(effect, Packet)]


def exchange(now_ns: int, nodes: dict[str, Membership], first: list[tuple[str, Packet]]) -> list[Effect]:
    """Deliver packets at once until nobody answers any more; return the other effects."""
    waiting, others = list(first), []
    for _ in range(500):
        if not waiting:
            return others
        source, packet = waiting.pop(0)
        if packet.to in nodes:
            for effect in nodes[packet.to].receive(now_ns, source, packet):
                if isinstance(effect, Packet):
                    waiting.append((packet.to, effect))
                else:
                    others.append(effect)
    raise AssertionError("they never stop")


def pair() -> tuple[Membership, Membership]:
    a, b = node("a", A, seeds=(B,)), node("b", B)
    exchange(0, {A: a, B: b}, [(A, packet) for packet in packets(a.wake(0))])
    return a, b


def run(now_ns: int, nodes: dict[str, Membership], for_ns: int) -> int:
    """Let nodes talk without delay; return the time at the end."""
    until_ns = now_ns + for_ns
    while True:
        address = min(nodes, key=lambda one: nodes[one].wake_at_ns)
        if nodes[address].wake_at_ns > until_ns:
            return until_ns
        now_ns = max(now_ns, nodes[address].wake_at_ns)
        exchange(now_ns, nodes, [(address, packet) for packet in packets(nodes[address].wake(now_ns))])


def test_two_nodes_find_each_other_through_one_seed() -> None:
    a, b = pair()

    assert a.shown_alive() == b.shown_alive() == ["a", "b"]
    assert a.view.digest == b.view.digest


def test_a_node_that_has_not_proved_itself_is_answered_no_longer_than_it_asked_and_not_believed() -> None:
    b = node("b", B)
    stranger = Member("s", A, 1, 0, State.ALIVE)
    lie = Update(Member("x", C, 1, 0, State.ALIVE))
    for kind in Kind:
        extra: object = {
            Kind.PING_REQ: ("x", C),
            Kind.SYNC: tuple([0] * 32),
            Kind.RECORDS: (1, False),
            Kind.STALE: (9, C, 0),
        }.get(kind)
        asked = Packet(B, kind, stranger, 5, 6, (lie,), extra, base_bytes(stranger) + 40)  # type: ignore[arg-type]

        answers = packets(b.receive(0, A, asked))

        assert sum(answer.size for answer in answers) <= asked.size
        assert not b.view.peers
        assert b.me.generation == 1 and b.opinions.conflict is None


def test_an_old_packet_of_a_node_that_is_known_to_have_started_again_is_not_believed() -> None:
    a, b = pair()
    old, lie = a.me, Update(Member("x", C, 1, 0, State.ALIVE))
    b.opinions.hear(SECOND, Update(Member("a", A, 2, 0, State.ALIVE)), [])
    heard_ns = b.view.peers["a"].heard_ns

    answers = packets(b.receive(2 * SECOND, A, Packet(B, Kind.PING, old, 5, 0, (lie,), None, 300)))

    assert [answer.kind for answer in answers] == [Kind.STALE]
    assert "x" not in b.view.peers
    assert b.view.peers["a"].heard_ns == heard_ns


def test_once_a_later_run_was_heard_of_nothing_recorded_of_the_earlier_one_is_believed() -> None:
    a, b = pair()
    peer = a.view.peers["b"]
    run(0, {A: a, B: b}, 5 * SECOND)
    heard_ns, digest = peer.heard_ns, a.view.digest
    lie = Update(Member("x", C, 1, 0, State.ALIVE))
    recorded = Packet(A, Kind.PING, b.me, 7, 0, (lie,), None, 300)
    assert peer.proof == B

    again = node("b", B, generation=2)
    a.receive(6 * SECOND, B, Packet(A, Kind.GOSSIP, again.me, 0, 0, (), None, 100))  # authentic, and proves nothing
    a.receive(7 * SECOND, B, recorded)

    assert (peer.heard_ns, a.view.digest) == (heard_ns, digest)
    assert "x" not in a.view.peers


def test_an_echo_from_another_address_proves_nothing() -> None:
    b = node("b", B)
    stranger = Member("s", A, 1, 0, State.ALIVE)
    (ack,) = packets(b.receive(0, A, Packet(B, Kind.PING, stranger, 5, 0, (), None, 300)))
    assert isinstance(ack.extra, int)

    b.receive(0, C, Packet(B, Kind.ECHO, stranger, ack.extra, 0, (), None, 100))
    assert not b.view.peers
    b.receive(0, A, Packet(B, Kind.ECHO, stranger, ack.extra, 0, (), None, 100))
    assert list(b.view.peers) == ["s"]


def test_who_is_suspected_refutes_with_the_next_version() -> None:
    a, b = pair()
    doubt = Update(b.me.but(State.SUSPECT), (1,))

    effects = b.receive(SECOND // 2, A, Packet(B, Kind.GOSSIP, a.me, 0, 0, (doubt,), None, 200))

    assert Renewed(b.me) in effects
    assert (b.me.version, b.me.state) == (1, State.ALIVE)
    assert b.health.score >= 1


def test_a_member_that_answers_nobody_is_suspected_then_dead_and_comes_back_after_its_dwell_time() -> None:
    a, b = pair()

    now = run(0, {A: a}, 3 * SECOND)
    assert a.shown("b") is State.SUSPECT
    now = run(now, {A: a}, 10 * SECOND)
    assert a.shown("b") is State.DEAD
    now = run(now, {A: a, B: b}, 12 * SECOND)
    assert a.view.peers["b"].member.state is State.ALIVE
    assert a.shown("b") is State.DEAD
    run(now, {A: a, B: b}, 20 * SECOND)
    assert a.shown("b") is State.ALIVE


def test_who_leaves_is_known_to_have_left_at_once() -> None:
    a, b = pair()

    effects = exchange(SECOND // 2, {A: a}, [(B, packet) for packet in packets(b.leave(SECOND // 2))])

    assert a.shown("b") is State.LEFT
    assert any(isinstance(effect, Changed) for effect in effects)
    assert a.shown_alive() == ["a"]


def test_of_two_live_nodes_with_one_id_the_later_generation_stays_and_the_other_is_told() -> None:
    a, b = pair()
    twin = node("b", C, generation=2, seeds=(A,))
    nodes = {A: a, B: b, C: twin}

    exchange(SECOND // 2, nodes, [(C, packet) for packet in packets(twin.wake(SECOND // 2))])
    told: list[Effect] = []
    for at in range(1, 5):
        for effect in packets(b.wake(at * SECOND)):
            told += exchange(at * SECOND, nodes, [(B, effect)])

    assert a.view.peers["b"].member.address == C
    assert any(isinstance(effect, Conflicted) and effect.other.address == C for effect in told)
    assert "b" not in b.shown_alive()
    assert twin.opinions.conflict is None


def test_a_node_that_lost_its_disk_takes_a_generation_above_its_former_one() -> None:
    a, _ = pair()
    a.view.replace(a.view.peers["b"], Member("b", B, 7, 0, State.ALIVE))
    again = node("b", B, generation=1, seeds=(A,))

    effects = exchange(SECOND, {A: a, B: again}, [(B, packet) for packet in packets(again.wake(SECOND))])

    assert again.me.generation == 8
    assert any(isinstance(effect, Renewed) for effect in effects)


def test_a_process_that_stood_still_does_not_blame_the_others() -> None:
    a, b = pair()
    now = run(0, {A: a, B: b}, 5 * SECOND)
    a.wake(now + SECOND)  # a question is on its way

    effects = a.wake(now + 60 * SECOND)

    assert not any(isinstance(effect, Changed) for effect in effects)
    assert a.health.score >= 1
    assert a.lag_ns > 50 * SECOND


def test_what_is_pruned_by_hand_does_not_come_back_by_hearsay() -> None:
    a, b = pair()
    run(0, {A: a}, 20 * SECOND)
    count, _ = a.prune(21 * SECOND, 0, 10)
    hearsay = Packet(A, Kind.GOSSIP, Member("c", C, 1, 0, State.ALIVE), 0, 0, (Update(b.me),), None, 200)
    a.opinions.hear(21 * SECOND, Update(hearsay.sender), [], proven_self=True)
    a.view.peers["c"].proof, a.view.peers["c"].proof_generation = C, 1

    a.receive(21 * SECOND, C, hearsay)

    assert count == 1
    assert "b" not in a.view.peers


@given(st.integers(0, 1 << 32), st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=60))
@settings(max_examples=40, deadline=None)
def test_wake_ups_that_are_early_or_doubled_send_nothing_more(seed: int, calls: list[tuple[int, bool]]) -> None:
    one, other = node("a", A, seeds=(B,)), node("a", A, seeds=(B,))
    now, sent, sent_other = 0, 0, 0
    for wait_ms, twice in calls:
        target = now + wait_ms * MS
        while one.wake_at_ns <= target:
            now = max(now, one.wake_at_ns)
            sent += len(packets(one.wake(now)))
            sent_other += len(packets(other.wake(now)))
            if twice:
                sent_other += len(packets(other.wake(now)))
        now = target
        sent_other += len(packets(other.wake(now)))

    assert sent == sent_other


def namesakes(a_generation: int, b_generation: int) -> tuple[Membership, Membership]:
    """Two nodes of one id, of which only the first knows where the other is."""
    a = node("twin", A, generation=a_generation, seeds=(B,))
    b = node("twin", B, generation=b_generation)
    exchange(0, {A: a, B: b}, [(A, packet) for packet in packets(a.wake(0))])
    return a, b


def test_of_two_nodes_with_one_id_the_earlier_generation_gives_way_whoever_asks() -> None:
    older, newer = namesakes(1, 2)

    assert older.opinions.conflict is not None and older.opinions.conflict.address == B
    assert newer.opinions.conflict is None

    newer, older = namesakes(2, 1)

    assert older.opinions.conflict is not None and older.opinions.conflict.address == A
    assert newer.opinions.conflict is None


def test_of_two_nodes_with_one_id_and_generation_the_larger_address_gives_way_whoever_asks() -> None:
    smaller, larger = namesakes(1, 1)

    assert smaller.opinions.conflict is None
    assert larger.opinions.conflict is not None

    larger = node("twin", B, seeds=(A,))
    smaller = node("twin", A)
    exchange(0, {A: smaller, B: larger}, [(B, packet) for packet in packets(larger.wake(0))])

    assert smaller.opinions.conflict is None
    assert larger.opinions.conflict is not None


def test_a_recorded_packet_of_a_later_generation_of_us_is_no_conflict() -> None:
    us = node("twin", B)
    recorded = next(p for p in packets(node("twin", A, generation=9, seeds=(B,)).wake(0)) if p.kind is Kind.PING)

    answers = packets(us.receive(0, A, recorded))

    assert us.opinions.conflict is None
    assert [packet.kind for packet in answers] == [Kind.PING]
    assert all(packet.size <= recorded.size for packet in answers)


def test_our_own_address_among_the_seeds_does_no_harm() -> None:
    us = node("a", A, seeds=(A, B))

    exchange(0, {A: us}, [(A, packet) for packet in packets(us.wake(0))])

    assert us.opinions.conflict is None
    assert not us.view.peers


def test_the_round_trip_of_a_member_is_known_after_it_answered_a_probe() -> None:
    a, b = pair()
    now_ns = a.probe.due_ns

    asked = packets(a.wake(now_ns))
    exchange(now_ns + 3 * MS, {A: a, B: b}, [(A, packet) for packet in asked])

    assert a.view.peers["b"].rtt_ns == 3 * MS


def test_a_round_trip_is_smoothed() -> None:
    a, _ = pair()
    peer = a.view.peers["b"]

    peer.answered_in(8 * MS)
    peer.answered_in(16 * MS)

    assert peer.rtt_ns == 9 * MS


def test_changed_settings_count_from_then_on() -> None:
    a, _ = pair()

    a.retune(Tuning(dead_after_ns=2 * SECOND))
    now_ns = run(0, {A: a}, 12 * SECOND)

    assert a.view.peers["b"].member.state is State.DEAD
    assert now_ns == 12 * SECOND


def test_a_recovery_that_is_held_back_is_told_once() -> None:
    a, _ = pair()
    run(0, {A: a}, 20 * SECOND)
    assert a.shown("b") is State.DEAD
    back = node("b", B, generation=2, seeds=(A,))

    effects = exchange(20 * SECOND, {A: a, B: back}, [(B, packet) for packet in packets(back.wake(20 * SECOND))])

    assert [effect.shown for effect in effects if isinstance(effect, HeldBack)] == [State.DEAD]
    assert a.counts["held_back"] == 1


def three() -> dict[str, Membership]:
    nodes = {A: node("a", A, seeds=(B,)), B: node("b", B), C: node("c", C, seeds=(B,))}
    run(0, nodes, 10 * SECOND)
    return nodes


def test_a_suspect_that_one_hears_of_is_asked_at_once_and_the_round_goes_on_as_planned() -> None:
    nodes = three()
    a, b, c = nodes.values()
    now = run(10 * SECOND, nodes, 300 * MS)
    next_ns = a.probe.due_ns
    assert now + 10 * MS < next_ns  # answered, and waits for its next turn
    doubt = Update(c.me.but(State.SUSPECT), (7,))

    a.receive(now + MS, B, Packet(A, Kind.GOSSIP, b.me, 0, 0, (doubt,), None, 200))
    assert a.wake_at_ns == now + MS
    asked = packets(a.wake(now + MS))
    assert (C, Kind.PING) in [(packet.to, packet.kind) for packet in asked]
    exchange(now + 2 * MS, nodes, [(A, packet) for packet in asked])

    assert a.shown("c") is State.SUSPECT and a.view.peers["c"].member == c.me  # refuted, and held back
    assert a.probe.due_ns == next_ns


@pytest.mark.parametrize("renewed", [False, True])
def test_a_member_that_renewed_its_record_while_it_was_asked_is_not_suspected(renewed: bool) -> None:
    a, b, _ = three().values()
    peer = a.view.peers["c"]
    while a.probe.peer is not peer or not a.probe.nonce:
        now = a.wake_at_ns
        a.wake(now)

    if renewed:
        later = Update(Member("c", C, 1, peer.member.version + 1, State.ALIVE))
        a.receive(now + MS, B, Packet(A, Kind.GOSSIP, b.me, 0, 0, (later,), None, 200))
    while a.probe.nonce and a.probe.peer is peer:
        a.wake(a.wake_at_ns)

    assert (peer.member.state is State.SUSPECT) is not renewed


def asked_until_accused(us: Membership, name: str, address: str) -> tuple[list[tuple[int, Kind]], int]:
    """Wake a node that nobody answers until it accuses that member; return what it sent for that, and when, in ms."""
    peer, sent = us.view.peers[name], []
    for _ in range(200):
        now_ns = us.wake_at_ns
        effects = packets(us.wake(now_ns))
        if us.probe.peer is peer and us.probe.nonce:
            sent += [
                ((now_ns - us.probe.began_ns) // MS, packet.kind)
                for packet in effects
                if packet.nonce == us.probe.nonce
            ]
        if peer.member.state is State.SUSPECT:
            return sent, (now_ns - us.probe.began_ns) // MS
    raise AssertionError("it never accuses")


def test_a_question_without_an_answer_is_repeated_until_its_time_is_over() -> None:
    a, _, _ = three().values()

    sent, accused_ms = asked_until_accused(a, "c", C)

    assert [at_ms for at_ms, kind in sent if kind is Kind.PING] == [0, 100, 200, 300, 400, 500, 600, 700]
    assert [at_ms for at_ms, kind in sent if kind is Kind.PING_REQ] == [400]  # of the one other that there is
    assert accused_ms == 800


def test_no_question_is_repeated_before_a_usual_answer_would_be_here() -> None:
    a, _, _ = three().values()
    a.view.peers["c"].rtt_ns = 120 * MS

    sent, accused_ms = asked_until_accused(a, "c", C)

    assert [at_ms for at_ms, kind in sent if kind is Kind.PING] == [0, 240, 400, 640]
    assert accused_ms == 800


def test_an_answer_to_a_repeated_question_ends_the_probe_and_tells_no_round_trip() -> None:
    a, b = pair()
    a.wake(a.probe.due_ns)
    a.view.peers["b"].rtt_ns = 3 * MS

    now_ns = a.probe.due_ns
    again = [packet for packet in packets(a.wake(now_ns)) if packet.nonce == a.probe.nonce]
    exchange(now_ns + 4 * MS, {A: a, B: b}, [(A, packet) for packet in again])

    assert [packet.kind for packet in again] == [Kind.PING]
    assert a.view.peers["b"].rtt_ns == 3 * MS
    assert (a.probe.nonce, a.probe.due_ns) == (0, a.probe.end_ns)


@given(timeout_ns=st.integers(1, 60 * SECOND), rtt_ns=st.integers(-1, 60 * SECOND))
def test_a_probe_asks_four_times_in_each_timeout_at_most(timeout_ns: int, rtt_ns: int) -> None:
    pace = pace_ns(timeout_ns, rtt_ns)

    assert timeout_ns // QUESTIONS <= pace
    assert pace >= 2 * rtt_ns
