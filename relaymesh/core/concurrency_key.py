"""The key that a step shares a limit with: a text, or what a JSON pointer finds in the step's input.

    "tenant-7"        the text itself
    "/customer/id"    begins with a slash: the value at that place of the input; a JSON string gives its characters
    "  "              no key

Keys are the root's: steps of all agents with the same key count together.
"""

from __future__ import annotations

from relaymesh.core.limit import CONCURRENCY_KEY_CHARS_MAX
from relaymesh.core.nearest import quoted
from relaymesh.core.workflow_json import TooDeepError, find, json_slice, parse_pointer, slice_text

__all__ = ["KeyTextError", "checked_key", "key_of"]


class KeyTextError(ValueError):
    """No key can be made of it; the sentence says why and what to do."""


def key_of(text: str | None, payload: str | None) -> str | None:
    """Return the key that ``text`` names, or None for none.

    payload: the step's input; None when it is known only later, as with a template.

    Raises:
        KeyTextError
    """
    if text is None or not text.strip():
        return None
    if not text.startswith("/"):
        return checked_key(text)
    if payload is None:
        raise KeyTextError(
            f"{quoted(text)} points into an input that is made of other outputs, and is not known yet: write a text"
        )
    try:
        tokens = parse_pointer(text)
    except ValueError:
        raise KeyTextError(f"{quoted(text)} is no JSON pointer: write it such as /customer/id") from None
    try:
        document = json_slice(payload)
    except TooDeepError:
        document = None
    if document is None:
        raise KeyTextError(f"{quoted(text)} points into an input that is no JSON: hand in JSON, or write a text")
    piece = find(document, tokens)
    if piece is None:
        raise KeyTextError(f"there is nothing at {quoted(text)} in the input: add it, or write a text")
    return checked_key(slice_text(piece))


def checked_key(key: str) -> str:
    """Return a key that can be stored.

    Raises:
        KeyTextError
    """
    if not key or len(key) > CONCURRENCY_KEY_CHARS_MAX:
        raise KeyTextError(f"a key of {len(key):,} characters cannot be used: take 1 to {CONCURRENCY_KEY_CHARS_MAX}")
    if any("\ud800" <= mark <= "\udfff" for mark in key):
        raise KeyTextError("the key holds half of a surrogate pair, which is no text: write the whole character")
    return key
