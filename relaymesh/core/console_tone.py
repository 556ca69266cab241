"""How good or bad a thing is that the console shows; which colour that is, is a matter of drawing.

A word stands beside every colour, so that nothing is lost where there are no colours.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = ["LATE_HEARTBEAT_MS", "LATE_LEASE_MS", "Tone", "member_word", "tone_of_age", "tone_of_state"]

LATE_HEARTBEAT_MS: Final = 10_000
LATE_LEASE_MS: Final = 15_000
"""A lease that was not renewed for so long is late: nodes renew several times within the shortest lease."""


class Tone(Enum):
    """From good to bad; PLAIN says nothing, FAINT is over or unimportant."""

    PLAIN = "plain"
    FAINT = "faint"
    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"


_STATES: Final = {
    "ALIVE": Tone.GOOD,
    "SUSPECT": Tone.WARN,
    "DEAD": Tone.BAD,
    "ENDED": Tone.BAD,
    "LEFT": Tone.FAINT,
    "DRAINED": Tone.WARN,
    "STOPPING": Tone.WARN,
    "UNKNOWN": Tone.BAD,
    "RUNNING": Tone.BUSY,
    "PENDING": Tone.PLAIN,
    "RETRYING": Tone.WARN,
    "SUCCESS": Tone.GOOD,
    "DEAD_LETTER": Tone.BAD,
    "CANCELLED": Tone.FAINT,
    "warning": Tone.WARN,
    "critical": Tone.BAD,
}


def tone_of_state(state: str) -> Tone:
    """Return the tone of a state of a member, a step or an alert; PLAIN for a word that nobody knows."""
    return _STATES.get(state, Tone.PLAIN)


def tone_of_age(age_ms: int, late_ms: int) -> Tone:
    """Return the tone of something that should be renewed: WARN when late, BAD from twice of that."""
    if age_ms < late_ms:
        return Tone.PLAIN
    return Tone.WARN if age_ms < 2 * late_ms else Tone.BAD


def member_word(status: str, *, process_alive: bool | None, drained: bool, stopping: bool = False) -> str:
    """Return the state of a member in one word.

    ENDED: it still counts as ALIVE or SUSPECT, but its process on this machine is known to have ended.
    STOPPING: it lives, was told to end, and waits for what runs.
    """
    if status in ("ALIVE", "SUSPECT") and process_alive is False:
        return "ENDED"
    if status == "ALIVE" and stopping:
        return "STOPPING"
    if status == "ALIVE" and drained:
        return "DRAINED"
    return status
