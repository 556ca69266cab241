"""Seeds as they are written: each has one form, and a bad one does not keep the others from being used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.mesh.seed import FAULTS_MAX, SEEDS_MAX, Seed, merge_seeds, parse_seed, parse_seeds


@pytest.mark.parametrize(
    ("text", "seed", "address"),
    [
        ("127.0.0.1:17888", Seed("127.0.0.1", 17888), "127.0.0.1:17888"),
        ("  [2001:DB8:0:0::1]:1 ", Seed("2001:db8::1", 1), "[2001:db8::1]:1"),
        ("Cellar-1.Example.org.:65535", Seed("cellar-1.example.org", 65535), None),
        ("localhost:80", Seed("localhost", 80), None),
    ],
)
def test_a_seed_is_read_into_its_one_form(text: str, seed: Seed, address: str | None) -> None:
    assert parse_seed(text) == seed
    assert seed.address == address
    assert parse_seed(str(seed)) == seed


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("127.0.0.1", "HOST:PORT"),
        (":17888", "HOST:PORT"),
        ("0.0.0.0:5", "name one machine"),
        ("[::]:5", "name one machine"),
        ("224.0.0.251:5353", "name one machine"),
        ("a:0", "port from 1 to 65535"),
        ("a:65536", "port from 1 to 65535"),
        ("a:١", "port from 1 to 65535"),
        ("a:+1", "port from 1 to 65535"),
        ("::1:17888", "in brackets"),
        ("[::1]", "HOST:PORT"),
        ("[::1:17888", "HOST:PORT"),
        ("[127.0.0.1]:1", "only IPv6"),
        ("[fe80::1%eth0]:1", "one interface"),
        ("fe80:zz:1", "no address"),
        ("300.1.2.3:1", "looks like an IPv4 address"),
        ("two words:1", "no host name"),
        ("-a.example:1", "no host name"),
        ("http://a:1", "no address"),
        (f"{'a' * 64}:1", "no host name"),
    ],
)
def test_what_is_no_seed_is_told_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_seed(text)


def test_a_file_has_comments_blank_lines_commas_and_a_byte_order_mark() -> None:
    found = parse_seeds("\ufeff# cellar\n\na:1, b:2 # spare\r\n  [::1]:3\na:1\n")

    assert found.entries == (Seed("a", 1), Seed("b", 2), Seed("::1", 3))
    assert found.faults == ()


def test_a_bad_line_is_told_with_its_number_and_the_others_are_used() -> None:
    found = parse_seeds("a:1\nnonsense\n# c\nb:2,c:99999")

    assert found.entries == (Seed("a", 1), Seed("b", 2))
    assert [fault.line for fault in found.faults] == [2, 4]
    assert str(found.faults[0]).startswith('line 2: "nonsense" is not')


def test_what_cannot_be_printed_is_not_told_as_it_is() -> None:
    (fault,) = parse_seeds("\x1b[31mred").faults

    assert "\x1b" not in str(fault)


def test_there_is_a_last_seed_and_a_last_fault_that_is_told() -> None:
    many = parse_seeds("\n".join(f"n{number}:1" for number in range(SEEDS_MAX + 7)))
    bad = parse_seeds("\n".join("x" for _ in range(100)))

    assert len(many.entries) == SEEDS_MAX
    assert [fault.line for fault in many.faults] == [SEEDS_MAX + 1]
    assert (len(bad.faults), bad.faulty) == (FAULTS_MAX, 100)


def test_seeds_of_several_sources_are_merged_in_order_without_repetition() -> None:
    a, b, c = Seed("a", 1), Seed("b", 1), Seed("c", 1)

    assert merge_seeds([b, a], [a, c]) == (b, a, c)


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    found = parse_seeds(text)

    assert all(parse_seed(str(seed)) == seed for seed in found.entries)
