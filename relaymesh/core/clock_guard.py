"""Whether the wall clock can be believed right now.

The monotonic clock of one boot never jumps. Between two ticks both clocks should advance alike; when they do not,
somebody set the wall clock (or the machine slept), and every age computed from a stored wall time is wrong by as
much::

              the advances differ by > max(2 s, half a lease)
    BELIEVED ────────────────────────────────────────────────▶ DOUBTED ◀──┐
        ▲                                                         │  └────┘ again
        │   this tick and the next are over, and one lease timeout has passed
        └─────────────────────────────────────────────────────────┘

    no state yet, or a state of another boot ──▶ BELIEVED (there is nothing to compare with)

One lease timeout is enough for every living owner to write a time of the new clock. The state is a small value, so that
one-shot commands on one machine can hand it on to each other through the store.

What it cannot see: jumps below the threshold that follow each other, and a jump that is undone before the next tick. A
running node does not depend on it for either (reclaim.py judges by the monotonic clock after its first scan).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["JUMP_MS_MIN", "ClockState", "Reading", "Verdict", "jump_threshold_ms", "tick"]

JUMP_MS_MIN: Final = 2000
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks, read one right after the other.

    boot_id: names the boot of this machine that ``mono_ns`` counts in. Where the platform has none, give a value that
        is unique to the process: then processes simply learn nothing from each other.
    """

    wall_ms: int
    mono_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the guard remembers: the last reading, and for how long the wall clock stays doubted.

    doubted_ticks: further ticks that must pass; doubted_until_ns: monotonic time before which it stays doubted.
    """

    wall_ms: int
    mono_ns: int
    boot_id: str
    doubted_ticks: int = 0
    doubted_until_ns: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do this tick.

    believed: wall time may be used to judge leases.
    jumped_by_ms: how far the wall clock jumped since the last tick (negative: back), 0 when it did not; raise an alert
        when it is not 0.
    """

    state: ClockState
    believed: bool
    jumped_by_ms: int = 0


def jump_threshold_ms(lease_timeout_ms: int) -> int:
    """Return by how much the two advances may differ before it counts as a jump."""
    return max(JUMP_MS_MIN, lease_timeout_ms // 2)


def tick(state: ClockState | None, reading: Reading, lease_timeout_ms: int) -> Verdict:
    """Compare the clocks with the last tick's.

    Judge ages with the ``wall_ms`` of the same reading, or a jump may slip in between.
    """
    if state is None or state.boot_id != reading.boot_id or reading.mono_ns < state.mono_ns:
        return Verdict(ClockState(reading.wall_ms, reading.mono_ns, reading.boot_id), believed=True)
    mono_advance_ms = (reading.mono_ns - state.mono_ns) // _NS_PER_MS
    drift_ms = reading.wall_ms - state.wall_ms - mono_advance_ms
    jumped = abs(drift_ms) > jump_threshold_ms(lease_timeout_ms)
    if jumped:
        doubted_ticks, doubted_until_ns = 1, reading.mono_ns + lease_timeout_ms * _NS_PER_MS
        believed = False
    else:
        doubted_ticks, doubted_until_ns = max(0, state.doubted_ticks - 1), state.doubted_until_ns
        believed = state.doubted_ticks == 0 and reading.mono_ns >= state.doubted_until_ns
    return Verdict(
        ClockState(reading.wall_ms, reading.mono_ns, reading.boot_id, doubted_ticks, doubted_until_ns),
        believed=believed,
        jumped_by_ms=drift_ms if jumped else 0,
    )
