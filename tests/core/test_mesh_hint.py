"""Addresses that somebody says nodes are at: bounded, the better source first, and gone when their time is over."""

from __future__ import annotations

import pytest

from relaymesh.core.mesh.hint import HINTS_MAX, Hints, Source, normal_address
from relaymesh.core.mesh.tuning import NEVER_NS, SECOND


def told(*lists: tuple[Source, tuple[str, ...]]) -> Hints:
    hints = Hints()
    for source, addresses in lists:
        hints.tell(0, source, addresses, NEVER_NS)
    return hints


def test_a_source_replaces_what_it_said_before_and_nothing_else() -> None:
    hints = told((Source.LAN, ("10.0.0.1:1", "10.0.0.2:1")), (Source.SEEDS, ("10.0.0.9:1",)))

    changed = hints.tell(0, Source.LAN, ("10.0.0.3:1",), NEVER_NS)

    assert changed
    assert hints.addresses(0) == ("10.0.0.9:1", "10.0.0.3:1")


def test_the_same_word_again_changes_nothing() -> None:
    hints = told((Source.STORE, ("10.0.0.1:1",)))

    assert not hints.tell(0, Source.STORE, ("10.0.0.1:1",), NEVER_NS)


def test_an_address_is_listed_once_from_its_best_source() -> None:
    hints = told((Source.LAN, ("10.0.0.1:1",)), (Source.SEEDS, ("10.0.0.1:1",)))

    (hint,) = hints.hints(0)

    assert hint.source is Source.SEEDS


def test_what_a_source_said_is_forgotten_when_its_time_is_over() -> None:
    hints = Hints()
    hints.tell(0, Source.LAN, ("10.0.0.1:1",), 5 * SECOND)

    assert hints.addresses(5 * SECOND - 1) == ("10.0.0.1:1",)
    assert hints.addresses(5 * SECOND) == ()


def test_however_many_are_told_the_list_is_bounded_and_seeds_stay() -> None:
    crowd = tuple(f"10.{one // 250}.{one % 250}.7:1" for one in range(1_000))

    hints = told((Source.LAN, crowd), (Source.SEEDS, ("192.0.2.1:1",)))

    assert len(hints.addresses(0)) == HINTS_MAX
    assert hints.addresses(0)[0] == "192.0.2.1:1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:17888", "127.0.0.1:17888"),
        (" 127.0.0.1:00017 ", "127.0.0.1:17"),
        ("[::1]:17888", "[::1]:17888"),
        ("[2001:DB8:0::1]:1", "[2001:db8::1]:1"),
        ("::1:17888", None),
        ("localhost:17888", None),
        ("127.0.0.1", None),
        ("127.0.0.1:0", None),
        ("127.0.0.1:65536", None),
        ("[127.0.0.1]:1", None),
        ("[fe80::1%eth0]:1", None),
        ("127.0.0.1:١", None),
        ("", None),
    ],
)
def test_an_address_has_one_way_to_be_written(text: str, address: str | None) -> None:
    assert normal_address(text) == address


def test_what_is_not_an_address_is_left_out() -> None:
    assert told((Source.COMMAND, ("localhost:1", "10.0.0.1:1", "[::1]:2"))).addresses(0) == ("10.0.0.1:1", "[::1]:2")
