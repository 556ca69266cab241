"""A change of keys waits until nobody would be cut off by it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.mesh.key_seen import (
    FRESH_MS,
    MEMBERS_MAX,
    READ_MS,
    REST_MS,
    KeyMember,
    KeysSeen,
    phase,
    remove_fault,
    use_fault,
)

NOON = 1_700_000_000_000
OLD, NEW = "0000aaaa", "0000bbbb"


def far(name: str, *, alive: bool = True) -> KeyMember:
    return KeyMember(name, alive, False)


def test_a_key_is_confirmed_by_those_that_say_they_hold_it_and_those_that_use_it() -> None:
    seen = KeysSeen()
    seen.holds("a", [OLD, NEW], NOON)
    seen.sealed("b", NEW, NOON)
    seen.sealed("c", OLD, NOON)

    found = phase(seen, NEW, [far("a"), far("b"), far("c"), far("d", alive=False)], installed_ms=0, now_ms=NOON)

    assert (found.members, found.holders, found.users, found.lacking) == (3, 2, 1, ("c",))
    assert "2 of 3 ALIVE members" in use_fault(NEW, found) and "c could not" in use_fault(NEW, found)


def test_a_node_of_this_root_holds_what_it_has_had_time_to_read() -> None:
    here = KeyMember("here", True, True)

    early = phase(KeysSeen(), NEW, [here], installed_ms=NOON, now_ms=NOON + READ_MS - 1)
    late = phase(KeysSeen(), NEW, [here], installed_ms=NOON, now_ms=NOON + READ_MS)

    assert (early.lacking, early.unheard) == ((), ("here",))
    assert (late.lacking, late.unheard) == ((), ())
    assert use_fault(NEW, late) == ""


def test_a_member_of_which_nothing_is_known_lacks_nothing_and_is_waited_for() -> None:
    seen = KeysSeen()
    seen.holds("a", [OLD], NOON)
    seen.holds("b", [OLD, NEW], NOON)

    found = phase(seen, NEW, [far("a"), far("b"), far("c")], installed_ms=0, now_ms=NOON)

    assert (found.holders, found.lacking, found.unheard) == (1, ("a",), ("c",))
    assert use_fault(NEW, found) == (
        f"1 of 3 ALIVE members confirms key {NEW}, and a could not read what is sealed with it: install it there first;"
        " c has not been heard yet: install it there, and wait a minute; or use --force"
    )


def test_one_more_name_than_are_told_is_one_other() -> None:
    found = phase(KeysSeen(), NEW, [far(f"n{number}") for number in range(6)], installed_ms=0, now_ms=NOON)

    assert "n0, n1, n2, n3, n4 and 1 other have not been heard yet" in use_fault(NEW, found)


def test_an_old_key_may_go_when_it_has_rested_and_all_that_are_left_hold_the_new_one() -> None:
    seen = KeysSeen()
    seen.sealed("a", OLD, NOON)
    seen.holds("a", [NEW, OLD], NOON)
    members = [far("a"), far("b", alive=False)]

    def fault(now_ms: int) -> str:
        return remove_fault(seen, OLD, NEW, members, primary_since_ms=0, now_ms=now_ms)

    assert "a sealed with key" in fault(NOON + REST_MS - 1)
    assert "b did not confirm" in fault(NOON + REST_MS)
    seen.sealed("b", NEW, NOON + 1)
    assert fault(NOON + REST_MS) == ""


def test_a_member_that_went_on_to_another_key_no_longer_uses_the_old_one() -> None:
    seen = KeysSeen()
    seen.sealed("a", OLD, NOON)
    seen.sealed("a", NEW, NOON + 1)

    assert (seen.uses_key("a", OLD), seen.uses_key("a", NEW)) == (False, True)
    assert seen.last_used_ms(OLD) == NOON


def test_a_use_is_worth_keeping_now_and_then_only() -> None:
    seen = KeysSeen()

    assert seen.sealed("a", OLD, NOON)
    assert not seen.sealed("a", OLD, NOON + FRESH_MS - 1)
    assert seen.sealed("a", OLD, NOON + FRESH_MS)
    assert seen.holds("a", [OLD], NOON)
    assert not seen.holds("a", [OLD], NOON + 1)


def test_many_names_are_told_as_a_number() -> None:
    found = phase(KeysSeen(), NEW, [far(f"n{number}") for number in range(9)], installed_ms=0, now_ms=NOON)

    assert "n0, n1, n2, n3, n4 and 4 others" in use_fault(NEW, found)


def test_what_is_remembered_is_bounded_by_members_and_by_keys() -> None:
    seen = KeysSeen()
    for number in range(MEMBERS_MAX + 5):
        seen.sealed(f"n{number}", OLD, NOON + number)
    for number in range(20):
        seen.sealed("last", f"{number:08x}", NOON + 10**6 + number)

    assert len(seen) == MEMBERS_MAX
    assert seen.used_ms("n0", OLD) == 0
    assert len(seen.rows()["last"][2]) == 8
    assert seen.used_ms("last", f"{19:08x}") > 0


notes = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([OLD, NEW]), st.integers(0, 50), st.booleans()), max_size=20
)


def noted(steps: list[tuple[str, str, int, bool]]) -> KeysSeen:
    seen = KeysSeen()
    for node_id, key_id, at_ms, used in steps:
        if used:
            seen.sealed(node_id, key_id, at_ms * 1_000_000)
        else:
            seen.holds(node_id, [key_id], at_ms * 1_000_000)
    return seen


@given(notes, notes)
def test_two_processes_come_to_the_same_in_whichever_order_they_write(
    ours: list[tuple[str, str, int, bool]], theirs: list[tuple[str, str, int, bool]]
) -> None:
    one, other = noted(ours), noted(theirs)
    one.merge(noted(theirs).rows())
    other.merge(noted(ours).rows())

    assert one.rows() == other.rows()
    before = one.rows()
    one.merge(noted(theirs).rows())
    assert one.rows() == before


def test_that_a_member_was_seen_sealing_does_not_undo_what_it_says_it_holds() -> None:
    kept, heard = KeysSeen(), KeysSeen()
    kept.holds("a", [OLD, NEW], NOON)
    heard.sealed("a", OLD, NOON + 1)

    kept.merge(heard.rows())

    assert kept.holds_key("a", NEW)


def test_members_that_are_gone_are_forgotten() -> None:
    seen = KeysSeen()
    seen.sealed("a", OLD, NOON)
    seen.sealed("b", OLD, NOON)

    seen.forget({"b"})

    assert list(seen.rows()) == ["b"]
