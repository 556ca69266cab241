"""From what a user writes to the key that is stored."""

from __future__ import annotations

import pytest

from relaymesh.core.concurrency_key import KeyTextError, key_of

INPUT = '{"customer": {"id": "c-7", "size": 12.50}, "tags": ["a/b"]}'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (None, None),
        ("  ", None),
        ("tenant-7", "tenant-7"),
        ("/customer/id", "c-7"),
        ("/customer/size", "12.50"),
        ("/customer", '{"id": "c-7", "size": 12.50}'),
        ("/tags/0", "a/b"),
    ],
)
def test_a_text_stands_for_itself_and_a_pointer_for_what_it_finds(text: str | None, key: str | None) -> None:
    assert key_of(text, INPUT) == key


@pytest.mark.parametrize(
    ("text", "payload", "says"),
    [
        ("/customer/name", INPUT, "nothing at"),
        ("/customer", "plain text", "no JSON"),
        ("/customer", None, "not known yet"),
        ("/bad~2", INPUT, "no JSON pointer"),
        ("x" * 257, INPUT, "257 characters"),
        ("/e", '{"e": ""}', "0 characters"),
        ("half \ud800", INPUT, "surrogate"),
        ("/a", "[" * 100 + "]" * 100, "no JSON"),
    ],
)
def test_what_gives_no_key_is_refused_with_what_to_do(text: str, payload: str | None, says: str) -> None:
    with pytest.raises(KeyTextError, match=says):
        key_of(text, payload)
