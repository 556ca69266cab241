"""Opinions about members, suspicions, dwell times, news, windows, placement: the small rules of the mesh."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.mesh.health import HEALTH_MAX, Health
from relaymesh.core.mesh.liveness import Evidence, Mode, judge
from relaymesh.core.mesh.member import Member, State, merge
from relaymesh.core.mesh.opinion import Opinions
from relaymesh.core.mesh.packet import Update, update_bytes
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.placement import ranked
from relaymesh.core.mesh.proof import ASKED_MAX, Questions
from relaymesh.core.mesh.rumor import Rumors, transmit_limit
from relaymesh.core.mesh.suspicion import Suspicion, limits_ns
from relaymesh.core.mesh.tuning import SECOND, Tuning
from relaymesh.core.mesh.view import View
from relaymesh.core.mesh.window import WINDOW_BITS, WINDOWS_MAX, Freshness, Windows
from relaymesh.core.setting_table import Settings

opinions = st.builds(
    Member,
    st.just("a"),
    st.sampled_from(["10.0.0.1:1", "10.0.0.2:1"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(State),
)


def member(name: str, state: State = State.ALIVE, version: int = 0, generation: int = 1) -> Member:
    return Member(name, f"10.0.0.{len(name)}:1", generation, version, state)


@given(opinions, opinions, opinions)
def test_merging_ignores_order_and_repetition(a: Member, b: Member, c: Member) -> None:
    assert merge(a, b) == merge(b, a)
    assert merge(a, merge(b, c)) == merge(merge(a, b), c)
    assert merge(a, a) == a


@given(opinions, opinions)
def test_what_a_node_holds_after_it_heard_an_opinion_is_what_merging_gives_but_for_deaths(a: Member, b: Member) -> None:
    view = View(Member("me", "10.0.0.9:1", 1, 0, State.ALIVE), random.Random(1))
    held = Opinions(view, Rumors(), Health(SECOND), Tuning())
    view.add(a, 0)
    held.hear(0, Update(b), [])

    expected = merge(a, b)
    if expected is b and b.state is State.DEAD and not a.gone and b.order > a.order:
        expected = b.but(State.SUSPECT)  # it gets time to object first
        expected = merge(a, expected)
    assert view.peers["a"].member == expected


def test_opinions_about_two_members_are_not_merged() -> None:
    with pytest.raises(ValueError, match="two members"):
        merge(member("a"), member("bb"))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.sampled_from(State)), max_size=40))
def test_the_digest_depends_on_what_is_known_and_not_on_how_it_came(changes: list[tuple[int, int, State]]) -> None:
    me = member("me")
    grown, fresh = View(me, random.Random(1)), View(me, random.Random(2))
    for number, version, state in changes:
        name = f"n{number}"
        if name in grown.peers:
            grown.replace(grown.peers[name], member(name, state, version))
        else:
            grown.add(member(name, state, version), 0)
    for name in sorted(grown.peers):
        if not grown.peers[name].member.state.gone:
            fresh.add(grown.peers[name].member, 0)

    assert grown.digest == fresh.digest
    assert grown.parts == fresh.parts
    assert grown.live == fresh.live


def test_every_member_that_is_not_gone_is_asked_once_in_each_round() -> None:
    view = View(member("me"), random.Random(3))
    for number in range(9):
        view.add(member(f"n{number}"), 0)
    view.add(member("gone", State.DEAD), 0)
    while view.next_to_probe() is not list(view.peers.values())[-2]:
        continue  # into the first whole round
    view = View(member("me"), random.Random(3))
    for number in range(9):
        view.add(member(f"n{number}"), 0)

    asked = Counter(peer.member.node_id for _ in range(27) if (peer := view.next_to_probe()))

    assert asked == {f"n{number}": 3 for number in range(9)}


def test_a_pruned_member_comes_back_by_itself_or_in_a_later_generation_only() -> None:
    view = View(member("me"), random.Random(1))
    view.add(member("n", State.DEAD, generation=4), 0)

    pruned = view.prune(8 * SECOND, 7 * SECOND, 10)

    assert [gone.node_id for gone in pruned] == ["n"]
    assert view.buried(member("n", generation=4))
    assert not view.buried(member("n", generation=5))
    view.dig_up(member("n", generation=4))
    assert not view.buried(member("n", generation=4))


def test_two_confirmations_shorten_a_suspicion_to_its_least_time() -> None:
    least, most = limits_ns(10, SECOND)
    suspicion = Suspicion(0, (1,), members=10, interval_ns=SECOND, ceiling_ns=60 * SECOND)

    assert (least, most) == (4 * SECOND, 24 * SECOND)
    assert suspicion.deadline_ns == most
    assert not suspicion.confirm((1,))
    assert suspicion.confirm((2,))
    assert least < suspicion.deadline_ns < most
    assert suspicion.confirm((3,))
    assert suspicion.deadline_ns == least
    assert not suspicion.confirm((4,))


def test_a_suspicion_never_lasts_longer_than_the_setting_allows() -> None:
    suspicion = Suspicion(0, (1,), members=1_000, interval_ns=SECOND, ceiling_ns=10 * SECOND)

    assert suspicion.deadline_ns == 10 * SECOND


def test_a_report_of_death_leaves_time_to_refute() -> None:
    suspicion = Suspicion(0, (1,), members=100, interval_ns=SECOND, ceiling_ns=60 * SECOND)

    suspicion.reported_dead()

    assert suspicion.deadline_ns == suspicion.settled_ns == 8 * SECOND


def follow(peer: Peer, now_s: int, state: State, version: int) -> bool:
    peer.member = member("n", state, version)
    return peer.follow(now_s * SECOND, 5 * SECOND, 30 * SECOND)


def test_a_recovery_is_held_back_for_the_dwell_time() -> None:
    peer = Peer(member("n"), 0)

    follow(peer, 10, State.SUSPECT, 0)
    assert peer.shown is State.SUSPECT
    assert follow(peer, 12, State.ALIVE, 1)
    assert peer.shown is State.SUSPECT
    assert peer.shown_due_ns == 15 * SECOND
    assert not follow(peer, 15, State.ALIVE, 1)
    assert peer.shown is State.ALIVE
    follow(peer, 20, State.DEAD, 1)
    assert follow(peer, 49, State.ALIVE, 2)
    assert not follow(peer, 50, State.ALIVE, 2)


def test_a_member_that_flaps_is_held_back_longer_each_time_up_to_eight_times() -> None:
    peer = Peer(member("n"), 0)
    now, dwelt = 0, []
    for version in range(12):
        follow(peer, now, State.SUSPECT, version)
        follow(peer, now, State.ALIVE, version + 1)
        dwelt.append((peer.shown_due_ns - now * SECOND) // SECOND)
        now = peer.shown_due_ns // SECOND + 1
        follow(peer, now, State.ALIVE, version + 1)

    assert dwelt[:3] == [5, 5, 5]
    assert max(dwelt) > 5
    assert max(dwelt) <= 40


def test_news_that_were_sent_least_go_first_and_are_forgotten_at_the_limit() -> None:
    rumors = Rumors()
    rumors.limit = 2
    rumors.put(Update(member("a")))
    assert [update.member.node_id for update in rumors.take(500, 9)[0]] == ["a"]
    rumors.put(Update(member("bb")))

    assert [update.member.node_id for update in rumors.take(500, 1)[0]] == ["bb"]
    assert sorted(update.member.node_id for update in rumors.take(500, 9)[0]) == ["a", "bb"]
    assert not rumors


@given(st.lists(st.text("xyz", min_size=1, max_size=20), unique=True, max_size=60), st.integers(0, 1_300))
def test_news_never_take_more_room_than_there_is(names: list[str], room: int) -> None:
    rumors = Rumors()
    for name in names:
        rumors.put(Update(member(name), (1, 2)))

    updates, size = rumors.take(room, 64)

    assert sum(map(update_bytes, updates)) <= size <= max(room, 0)


def test_news_are_sent_more_often_in_a_larger_mesh() -> None:
    assert [transmit_limit(size) for size in (1, 10, 100, 1_000)] == [2, 5, 8, 12]


@given(st.lists(st.integers(1, 3_000), max_size=60))
def test_each_sequence_is_taken_once_and_none_below_the_window(sequences: list[int]) -> None:
    windows, taken, highest = Windows(), set(), 0
    for sequence in sequences:
        fresh = windows.take(7, 1, sequence) is Freshness.FRESH
        assert fresh == (sequence not in taken and sequence > highest - WINDOW_BITS)
        if fresh:
            taken.add(sequence)
            highest = max(highest, sequence)


def test_what_was_seen_before_a_restart_is_not_fresh_after_it() -> None:
    before, after = Windows(), Windows()
    before.take(7, 3, 50)
    after.restore(before.marks())

    assert after.take(7, 3, 50) is Freshness.REPLAYED
    assert after.take(7, 3, 49) is Freshness.REPLAYED
    assert after.take(7, 2, 99) is Freshness.FORMER
    assert after.take(7, 3, 51) is Freshness.FRESH
    assert after.take(7, 4, 1) is Freshness.FRESH


def test_windows_have_a_cap() -> None:
    windows = Windows()
    for sender in range(WINDOWS_MAX + 10):
        windows.take(sender, 1, 1)

    assert len(windows) == WINDOWS_MAX


def test_the_oldest_question_is_forgotten_first() -> None:
    questions = Questions()
    for nonce in range(1, ASKED_MAX + 2):
        questions.put(nonce)

    assert not questions.waits(1)
    assert questions.take(2) == (True, None)
    assert questions.take(2) == (False, None)


def test_one_node_takes_a_step_back_and_only_its_steps_move_when_it_goes() -> None:
    nodes = [f"n{number}" for number in range(5)]
    steps = [f"stp_{number}" for number in range(500)]
    before = {step: ranked(step, nodes)[0] for step in steps}

    after = {step: ranked(step, [node for node in nodes if node != "n2"])[0] for step in steps}

    assert all(after[step] == before[step] for step in steps if before[step] != "n2")
    assert all(50 < count < 160 for count in Counter(before.values()).values())
    assert all(ranked(step, nodes)[1] == after[step] for step in steps if before[step] == "n2")
    assert ranked("stp", []) == []


def test_most_probes_failing_holds_verdicts_back_but_not_for_ever() -> None:
    health = Health(30 * SECOND)
    for at in range(3):
        health.failed(at * SECOND)

    assert health.frozen(5 * SECOND)
    assert not health.frozen(32 * SECOND)
    health.succeeded()
    health.succeeded()
    health.succeeded()
    assert not health.frozen(6 * SECOND)


def test_health_has_a_worst_and_a_best() -> None:
    health = Health(SECOND)
    health.worse(20)
    assert health.score == HEALTH_MAX
    for _ in range(20):
        health.succeeded()
    assert health.score == 0


def evidence(mode: Mode, echoes_s: list[int], *, now_s: int = 100, **more: object) -> Evidence:
    values: dict[str, object] = {
        "now_ns": now_s * SECOND,
        "mode": mode,
        "echoes_ns": [at * SECOND for at in echoes_s],
        "voters": 1 + len(echoes_s),
        "since_ns": 0,
        "fresh_ns": 30 * SECOND,
    }
    return Evidence(**{**values, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_", "alive", "word"),
    [
        (evidence(Mode.SOLO, []), True, ""),
        (evidence(Mode.ANY, [10, 80]), True, ""),
        (evidence(Mode.ANY, [10, 20]), False, "cut off"),
        (evidence(Mode.ANY, [], now_s=20), True, ""),
        (evidence(Mode.MAJORITY, [90, 90, 1, 1]), True, ""),
        (evidence(Mode.MAJORITY, [90, 1, 1, 1]), False, "2 of 5 voters"),
        (evidence(Mode.SOLO, [], lag_ns=3 * SECOND), False, "overloaded"),
        (evidence(Mode.SOLO, [], disk_ok=False), False, "disk"),
        (evidence(Mode.SOLO, [], clock_ok=False), False, "clock"),
        (evidence(Mode.SOLO, [], replaced_by="10.0.0.9:1"), False, "10.0.0.9:1"),
    ],
)
def test_a_node_works_while_others_answer_it_and_says_why_when_it_does_not(
    given_: Evidence, alive: bool, word: str
) -> None:
    verdict = judge(given_)

    assert verdict.alive is alive
    assert word in verdict.reason


def test_the_settings_of_a_root_are_the_ceilings() -> None:
    tuning = Tuning.of(Settings())

    assert (tuning.suspect_after_ns, tuning.dead_after_ns) == (30 * SECOND, 60 * SECOND)
    assert (tuning.suspect_dwell_ns, tuning.dead_dwell_ns) == (5 * SECOND, 30 * SECOND)
    assert tuning.fanout == 3
    with pytest.raises(ValueError, match="1400"):
        Tuning(datagram_bytes=1_401)
