"""Counts in sentences: "1 step is", "2 steps are"."""

from __future__ import annotations

__all__ = ["counted", "verb"]


def counted(number: int, one: str, many: str = "") -> str:
    """Return the number with its noun, such as ``1,000 steps``. many: the plural, where it is not ``one`` and an s."""
    return f"{number:,} {verb(number, one, many or f'{one}s')}"


def verb(number: int, one: str, many: str) -> str:
    """Return the word that goes with the number: ``verb(1, "is", "are")``."""
    return one if number == 1 else many
