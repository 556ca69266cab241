from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymesh.core.console_key import PENDING_BYTES_MAX, KeyDecoder

_NAMES = {"enter", "tab", "backtab", "escape", "backspace", "space", "interrupt", "redraw", "delete"}
_NAMES |= {"up", "down", "left", "right", "home", "end", "page_up", "page_down"}


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"jC?/", ["j", "C", "?", "/"]),
        (b"\t\r \x7f", ["tab", "enter", "space", "backspace"]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[Z", ["up", "down", "page_up", "backtab"]),
        ("ä€😀".encode(), ["ä", "€", "😀"]),
        (b"\x1b[1;5Cq", ["q"]),  # Ctrl with an arrow is no key of ours, and no letter C either
        (b"\x1bq", ["escape", "q"]),
    ],
)
def test_keys_have_the_names_that_the_rules_know(typed: bytes, keys: list[str]) -> None:
    assert KeyDecoder().feed(typed) == keys


def test_a_lone_escape_is_a_key_only_when_nothing_follows() -> None:
    decoder = KeyDecoder()

    assert decoder.feed(b"\x1b") == []
    assert decoder.pending
    assert decoder.flush() == ["escape"]


@given(st.binary(max_size=300), st.lists(st.integers(1, 20), max_size=40))
def test_any_bytes_in_any_pieces_give_the_same_known_keys(data: bytes, sizes: list[int]) -> None:
    whole, pieces = KeyDecoder(), KeyDecoder()
    keys: list[str] = []
    at = 0
    for size in sizes:
        keys += pieces.feed(data[at : at + size])
        at += size
    keys += pieces.feed(data[at:])

    assert whole.feed(data) == keys
    for key in keys:
        assert key in _NAMES or (len(key) == 1 and key.isprintable())


@given(st.integers(1, 3 * PENDING_BYTES_MAX))
def test_an_endless_sequence_is_dropped_up_to_its_end(length: int) -> None:
    assert KeyDecoder().feed(b"\x1b[" + b"1" * length + b"C" + b"q") == ["q"]
