"""Variables of the environment that look like one of ours and are none, which would be ignored in silence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from relaymesh.core.nearest import nearest, quoted
from relaymesh.core.setting_table import table

__all__ = ["STRAYS_MAX", "misspelled"]

STRAYS_MAX: Final = 8
"""Sentences at most; further variables are left out."""
_PREFIX: Final = "RELAYMESH_"
_OTHERS: Final = ("LOG_FILE", "LOG_FORMAT", "LOG_LEVEL", "OTLP_ENDPOINT", "SPAN_FILE", "DEBUG")


def misspelled(variables: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for each name that is near a variable that counts, and is none itself.

    Names that are near nothing may be somebody's own: nothing is said about them. No value is ever read.
    """
    strange = sorted(name for name in variables if name.startswith(_PREFIX))
    if not strange:
        return ()
    known = [setting.variable.removeprefix(_PREFIX) for setting in table()] + list(_OTHERS)
    found = []
    for name in strange:
        short = name.removeprefix(_PREFIX)
        meant = None if short in known else nearest(short, known)
        if meant is not None:
            found.append(
                f"the environment variable {quoted(name)} means nothing, and is ignored: is {_PREFIX}{meant} meant?"
            )
    return tuple(found[:STRAYS_MAX])
