"""What did the user mean? The known name nearest to a mistyped one, as the end of an error sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice

__all__ = ["did_you_mean", "nearest", "quoted"]

_CANDIDATES_MAX = 2_000  # comparing costs microseconds each, and a workflow may have 100,000 step ids
_SHOWN_CHARS_MAX = 80


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of the first 2,000 ``known`` names that ``name`` most likely stands for, or None."""
    import difflib  # only a mistake pays for it

    by_folded = {_folded(candidate): candidate for candidate in islice(known, _CANDIDATES_MAX)}
    close = difflib.get_close_matches(_folded(name[:_SHOWN_CHARS_MAX]), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "..."?``, or nothing when no known name is near."""
    close = nearest(name, known)
    return f"; did you mean {quoted(close)}?" if close is not None else ""


def quoted(name: str) -> str:
    """Return a name in double quotes, shortened, and safe to print on a terminal."""
    shown = name if len(name) <= _SHOWN_CHARS_MAX else name[:_SHOWN_CHARS_MAX] + "..."
    return f'"{shown}"' if shown.isprintable() and '"' not in shown else json.dumps(shown)


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
