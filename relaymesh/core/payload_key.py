"""When an old payload key may be removed: some time after it was last used to encrypt."""

from __future__ import annotations

from typing import Final

__all__ = ["REST_MS", "made_at_ms", "rest_ms"]

REST_MS: Final = 600_000
"""A text that was encrypted just before a rotation is committed within this: a commit waits for a minute at most."""


def made_at_ms(kid: str) -> int | None:
    """Return when a key was made, which its name says; None for a name that somebody else has given."""
    digits = kid[1:]
    return int(digits) if kid.startswith("k") and digits.isascii() and digits.isdecimal() else None


def rest_ms(active_kid: str, now_ms: int) -> int:
    """Return how long keys older than the active one have still to rest, 0 for those that have rested."""
    made_ms = made_at_ms(active_kid)
    return 0 if made_ms is None else min(REST_MS, max(0, made_ms + REST_MS - now_ms))
