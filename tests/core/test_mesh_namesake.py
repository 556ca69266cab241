"""Two live nodes with one id: who waits, for how long, and what becomes of it when the other is gone."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from relaymesh.core.mesh.effect import Effect, Unopposed
from relaymesh.core.mesh.member import Member, State
from relaymesh.core.mesh.namesake import ASKED_MIN, GAP_NS_MAX, Namesake
from relaymesh.core.mesh.opinion import GENERATION_MAX
from relaymesh.core.mesh.packet import Packet, Update
from relaymesh.core.mesh.swim import Membership
from relaymesh.core.mesh.tuning import MS, SECOND, Tuning

A, B, C = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"
PATIENCE_NS = Tuning().dead_after_ns
MEET_NS = 15 * SECOND
"""In so long whoever has the other among its seeds has asked it."""


def twin(address: str, generation: int, *, seeds: tuple[str, ...] = (), seed: int = 1) -> Membership:
    me = Member("twin", address, generation, 0, State.ALIVE)
    return Membership(me, Tuning(), random.Random(seed), 0, seeds)


def run(now_ns: int, nodes: dict[str, Membership], for_ns: int) -> tuple[int, list[Effect]]:
    """Let nodes talk without delay; return the time at the end, and what they did beside talking."""
    until_ns, done = now_ns + for_ns, list[Effect]()
    while True:
        address = min(nodes, key=lambda one: nodes[one].wake_at_ns)
        if nodes[address].wake_at_ns > until_ns:
            return until_ns, done
        now_ns = max(now_ns, nodes[address].wake_at_ns)
        waiting = [(address, effect) for effect in nodes[address].wake(now_ns)]
        while waiting:
            source, effect = waiting.pop(0)
            if not isinstance(effect, Packet):
                done.append(effect)
            elif effect.to in nodes:
                waiting += [(effect.to, answer) for answer in nodes[effect.to].receive(now_ns, source, effect)]


def works(node: Membership) -> bool:
    return node.opinions.conflict is None


def test_who_gave_way_goes_on_when_the_other_has_died_in_a_generation_above_its() -> None:
    older, newer = twin(A, 1, seeds=(B,)), twin(B, 4)
    now_ns, _ = run(0, {A: older, B: newer}, MEET_NS)
    assert not works(older) and works(newer)

    now_ns, before = run(now_ns, {A: older}, PATIENCE_NS - 10 * SECOND)
    assert not works(older)
    _, after = run(now_ns, {A: older}, 10 * SECOND + GAP_NS_MAX)

    assert works(older) and older.me.generation == 5
    assert not any(isinstance(effect, Unopposed) for effect in before)
    assert Unopposed(newer.me) in after


def test_who_gave_way_waits_as_long_as_the_other_answers_also_when_that_asked_first() -> None:
    older, newer = twin(A, 1), twin(B, 2, seeds=(A,))

    run(0, {A: older, B: newer}, 20 * PATIENCE_NS)

    assert not works(older) and older.view.me.generation == 1


def test_of_equal_generations_the_one_that_gave_way_goes_on_above_the_other() -> None:
    smaller, larger = twin(A, 3), twin(B, 3, seeds=(A,))
    now_ns, _ = run(0, {A: smaller, B: larger}, MEET_NS)
    assert works(smaller) and not works(larger)

    run(now_ns, {B: larger}, PATIENCE_NS + GAP_NS_MAX)

    assert works(larger) and larger.me.generation == 4


def test_who_was_only_cut_off_gives_way_when_the_two_meet_again() -> None:
    older, newer = twin(A, 1, seeds=(B,)), twin(B, 2)
    now_ns, _ = run(0, {A: older, B: newer}, MEET_NS)
    run(now_ns, {B: newer}, 2 * PATIENCE_NS)
    now_ns, _ = run(now_ns, {A: older}, 2 * PATIENCE_NS)
    assert works(older) and works(newer)

    run(now_ns, {A: older, B: newer}, MEET_NS)

    assert works(older) and not works(newer)


def test_a_member_that_says_the_other_is_dead_ends_the_wait_at_once_also_of_equal_generations() -> None:
    for generation in (3, 7):
        smaller, larger = twin(A, generation), twin(B, 3, seeds=(A,))
        now_ns, _ = run(0, {A: smaller, B: larger}, MEET_NS)
        effects: list[Effect] = []

        larger.opinions.hear(now_ns, Update(smaller.me.but(State.SUSPECT), (1,)), effects)
        assert not works(larger)
        larger.opinions.hear(now_ns, Update(smaller.me.but(State.DEAD)), effects)

        assert works(larger) and larger.view.me.generation == generation + 1
        assert Unopposed(smaller.me) in effects


def test_a_member_that_says_the_other_lives_makes_the_wait_longer() -> None:
    older, newer = twin(A, 1, seeds=(B,)), twin(B, 2)
    now_ns, _ = run(0, {A: older, B: newer}, MEET_NS)
    for _ in range(4):
        now_ns, _ = run(now_ns, {A: older}, PATIENCE_NS - SECOND)
        older.opinions.hear(now_ns, Update(newer.me), [])

    assert not works(older)


def test_what_is_told_of_a_run_before_the_one_that_we_gave_way_to_changes_nothing() -> None:
    older, newer = twin(A, 1, seeds=(B,)), twin(B, 5)
    now_ns, _ = run(0, {A: older, B: newer}, MEET_NS)

    older.opinions.hear(now_ns, Update(Member("twin", B, 4, 0, State.DEAD)), [])

    assert not works(older) and older.view.me.generation == 1


def test_who_stood_still_has_heard_nobody_and_asks_again_before_it_goes_on() -> None:
    older, newer = twin(A, 1, seeds=(B,)), twin(B, 2)
    now_ns, _ = run(0, {A: older, B: newer}, MEET_NS)

    now_ns, effects = run(now_ns + 10 * PATIENCE_NS, {A: older}, PATIENCE_NS - 20 * SECOND)

    assert not works(older) and not any(isinstance(effect, Unopposed) for effect in effects)
    run(now_ns, {A: older}, PATIENCE_NS)
    assert works(older)


def test_who_ends_in_order_takes_no_other_generation() -> None:
    older, newer = twin(A, 1, seeds=(B,)), twin(B, 2)
    now_ns, _ = run(0, {A: older, B: newer}, MEET_NS)
    older.leave(now_ns)

    _, effects = run(now_ns, {A: older}, 2 * PATIENCE_NS)

    assert older.me.state is State.LEFT and older.me.generation == 1
    assert effects == []


def test_there_is_nothing_above_the_highest_generation_and_the_wait_goes_on() -> None:
    older, newer = twin(A, 1, seeds=(B,)), twin(B, GENERATION_MAX)
    now_ns, _ = run(0, {A: older, B: newer}, MEET_NS)

    run(now_ns, {A: older}, 2 * PATIENCE_NS)

    assert not works(older) and older.view.me.generation == 1


joined_or_parted = st.lists(st.tuples(st.booleans(), st.integers(0, 200)), max_size=6)


@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([A, C]), st.booleans(), joined_or_parted)
@settings(max_examples=60, deadline=None)
def test_of_two_that_meet_one_works_and_of_one_that_is_left_that_one(
    ours: int, theirs: int, address: str, mutual: bool, phases: list[tuple[bool, int]]
) -> None:
    a, b = twin(address, ours, seeds=(B,)), twin(B, theirs, seeds=(address,) if mutual else (), seed=2)
    now_ns = 0
    for joined, seconds in [*phases, (True, 0)]:
        if joined:
            now_ns, _ = run(now_ns, {address: a, B: b}, MEET_NS + seconds * SECOND)
            assert works(a) is not works(b)
            assert (a if works(a) else b).me.generation >= (b if works(a) else a).me.generation
        else:
            run(now_ns, {address: a}, seconds * SECOND)
            now_ns, _ = run(now_ns, {B: b}, seconds * SECOND)

    left, gone = (b, a) if works(a) else (a, b)
    run(now_ns, {left.me.address: left}, PATIENCE_NS + GAP_NS_MAX)

    assert works(left) and left.me.generation > gone.me.generation


moves = st.lists(st.tuples(st.sampled_from(["wait", "hear", "stand still"]), st.integers(0, 90_000)), max_size=60)


@given(moves, st.integers(100, 100_000))
@settings(max_examples=200, deadline=None)
def test_silence_is_never_shorter_than_the_patience_and_never_without_questions(
    moves: list[tuple[str, int]], patience_ms: int
) -> None:
    patience_ns, now_ns = patience_ms * MS, 0
    namesake = Namesake()
    other = Member("twin", B, 2, 0, State.ALIVE)
    assert namesake.lives(0, other)
    silent_ns = asked = 0
    for what, ms in moves:
        if what == "hear":
            assert not namesake.lives(now_ns, other)
            silent_ns = asked = 0
        elif what == "stand still":
            now_ns += ms * MS
            namesake.stood_still(ms * MS)
            asked = 0
        else:
            until_ns = now_ns + ms * MS
            while namesake.due_ns <= until_ns:
                due_ns = max(now_ns, namesake.due_ns)
                silent_ns, now_ns = silent_ns + due_ns - now_ns, due_ns
                if namesake.silent(now_ns, patience_ns):
                    assert silent_ns >= patience_ns and asked >= ASKED_MIN
                    return
                assert namesake.ask(now_ns, patience_ns) == B
                asked += 1
                assert now_ns < namesake.due_ns <= now_ns + GAP_NS_MAX
            silent_ns, now_ns = silent_ns + until_ns - now_ns, until_ns
        assert not namesake.silent(now_ns, patience_ns) or (silent_ns >= patience_ns and asked >= ASKED_MIN)
