"""How much one piece of a clean-up may take, and what is old enough to go.

Whoever removes many rows holds the writer for as long as one transaction takes. So it is done in pieces, which are
bounded twice. Within a piece nothing more is begun once ``WORK_NS`` have passed, whatever it was sized for: what is
left then is the commit. And the size of the next follows from how long the last one held the writer, commit included:

    longer than TARGET_NS     rows' = what would have fitted, at most half, ROWS_MIN at least
    not longer, and full      rows' = rows + ROWS_STEP, ROWS_MAX at most
    not longer, not full      rows' = rows: nothing was learnt

Additive increase, multiplicative decrease (Chiu and Jain 1989): a piece that was too long makes the next one smaller at
once, and many writers that do so share a disk without falling into step. A commit costs its trip to the disk however
few rows it has: below ROWS_MIN a piece gains nothing, and a slow disk would make a clean-up last for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

__all__ = [
    "HOLD_NS_MAX",
    "KEEP",
    "ROWS_FIRST",
    "ROWS_MAX",
    "ROWS_MIN",
    "ROWS_STEP",
    "TARGET_NS",
    "WORK_NS",
    "Ages",
    "Kept",
    "Pace",
    "ages_of",
    "is_spent",
    "next_pace",
    "pause_ns",
]

HOLD_NS_MAX: Final = 50_000_000
"""What a piece must not exceed: 50 ms with the writer held."""
TARGET_NS: Final = 18_000_000
"""What a piece is sized for; a commit on a slow disk, and rows twice as heavy, still stay below the bound."""
WORK_NS: Final = 12_000_000
"""After so long within a transaction a piece ends: the rest of the target is for its commit."""
ROWS_STEP: Final = 64
"""How much a piece may grow beyond the last."""
ROWS_MIN: Final = 32
"""A few milliseconds of work, also where each row has a long payload."""
ROWS_FIRST: Final = ROWS_MIN
ROWS_MAX: Final = 4_096
KEEP: Final = 0
"""An age of nought keeps things for ever."""


@dataclass(frozen=True, slots=True)
class Pace:
    """rows: how many the next piece may remove."""

    rows: int = ROWS_FIRST


@dataclass(frozen=True, slots=True)
class Ages:
    """Instants, in ms: what ended before goes. None keeps it for ever.

    A task whose idempotency key is still held stays, whatever its age: its key must go first.
    """

    done_before_ms: int | None = None
    dead_before_ms: int | None = None
    keys_before_ms: int | None = None
    conflicts_before_ms: int | None = None
    results_before_ms: int | None = None
    messages_before_ms: int | None = None
    logs_before_ms: int | None = None
    segments_before_ms: int | None = None


class Kept(Protocol):
    """The settings that say how long things are kept, in ms."""

    @property
    def done_retention_ms(self) -> int: ...
    @property
    def dead_retention_ms(self) -> int: ...
    @property
    def result_retention_ms(self) -> int: ...
    @property
    def message_retention_ms(self) -> int: ...
    @property
    def conflict_retention_ms(self) -> int: ...
    @property
    def log_retention_ms(self) -> int: ...
    @property
    def idempotency_key_retention_ms(self) -> int: ...
    @property
    def audit_segment_retention_ms(self) -> int: ...


def ages_of(kept: Kept, now_ms: int) -> Ages:
    """Return what is old at this instant; ``KEEP`` keeps things for ever."""

    def before_ms(age_ms: int) -> int | None:
        return None if age_ms == KEEP else max(0, now_ms - age_ms)

    return Ages(
        done_before_ms=before_ms(kept.done_retention_ms),
        dead_before_ms=before_ms(kept.dead_retention_ms),
        keys_before_ms=before_ms(kept.idempotency_key_retention_ms),
        conflicts_before_ms=before_ms(kept.conflict_retention_ms),
        results_before_ms=before_ms(kept.result_retention_ms),
        messages_before_ms=before_ms(kept.message_retention_ms),
        logs_before_ms=before_ms(kept.log_retention_ms),
        segments_before_ms=before_ms(kept.audit_segment_retention_ms),
    )


def next_pace(pace: Pace, *, rows: int, took_ns: int) -> Pace:
    """Return how much the next piece may take, after one that removed ``rows`` and held the writer for ``took_ns``."""
    if rows <= 0:
        return pace  # nothing was learnt
    if took_ns > TARGET_NS:
        return Pace(max(ROWS_MIN, min(pace.rows // 2, rows * TARGET_NS // took_ns)))
    return Pace(min(ROWS_MAX, pace.rows + ROWS_STEP)) if rows >= pace.rows else pace


def is_spent(spent_ns: int) -> bool:
    """Return whether a piece ends here, that has worked for so long within its transaction."""
    return spent_ns >= WORK_NS


def pause_ns(took_ns: int) -> int:
    """Return how long the writer is left to others after a piece: at least as long as it was held."""
    return max(took_ns, 1_000_000)
