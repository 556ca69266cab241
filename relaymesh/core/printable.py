"""Foreign text (payloads, errors, names) as a terminal may show it: on one line, with nothing that would steer it."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return ``text`` on one line, with what a terminal would act on escaped.

    That is every control character, and the marks that turn the direction of writing around.
    """
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode("ascii") for mark in text)
