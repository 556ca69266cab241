"""The three priorities of a step, and the words that users write for them."""

from __future__ import annotations

from typing import Final, Literal

from relaymesh.core.nearest import quoted
from relaymesh.errors import InputError

__all__ = ["PRIORITIES", "Priority", "PriorityError", "normalize_priority"]

Priority = Literal["HIGH", "NORMAL", "LOW"]

PRIORITIES: Final[tuple[Priority, ...]] = ("HIGH", "NORMAL", "LOW")
"""Most urgent first."""

_BY_WORD: Final[dict[str, Priority]] = {"high": "HIGH", "normal": "NORMAL", "low": "LOW", "": "NORMAL"}


class PriorityError(InputError):
    """A priority that is none of the three words."""

    code = "bad_priority"


def normalize_priority(text: str | None) -> Priority:
    """Return the stored form of a priority; any case, and blank or None means NORMAL.

    Raises:
        PriorityError: it is another word.
    """
    priority = _BY_WORD.get(text.strip().lower()) if text is not None else "NORMAL"
    if priority is None:
        assert text is not None
        raise PriorityError(f"unknown priority {quoted(text)}; write high, normal or low")
    return priority
