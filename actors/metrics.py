"""What an actor counts, and what nobody took.

Counters belong to the address, so they go on over a restart. The actor's own thread writes all of them but ``dropped``,
which senders count under the mailbox's lock; readers take what they see.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["UNDELIVERABLE_MAX", "ActorMetrics", "MetricsSnapshot", "Undeliverable"]

# Per address. The oldest is forgotten first; ``refused`` goes on counting.
UNDELIVERABLE_MAX = 256


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """An envelope that the actor refused.

    tag: the message's tag as far as it could be read, else empty.
    reason: one line for people.
    size_bytes: length of the envelope.
    head: its first bytes, at most 32, so that no payload is kept.
    at_ms: wall time, for people.
    """

    actor: str
    tag: str
    reason: str
    size_bytes: int
    head: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """One actor's counters at one moment.

    depth: messages waiting now; capacity: at how many the overflow behaviour sets in.
    handled: messages taken from the mailbox that the actor takes, failed ones included.
    failed: those that raised. refused: undeliverable ones. dropped: tells that a full or closed mailbox did not keep.
    handling_ns_total, handling_ns_max: time in ``receive``, decoding included.
    restarts: starts after the first. abandoned: threads that did not end when told to and were left behind.
    alive: an incarnation is running.
    """

    depth: int
    capacity: int
    handled: int
    failed: int
    refused: int
    dropped: int
    handling_ns_total: int
    handling_ns_max: int
    restarts: int
    abandoned: int
    alive: bool


class ActorMetrics:
    """The counters behind a snapshot."""

    __slots__ = (
        "abandoned",
        "alive",
        "dropped",
        "failed",
        "handled",
        "handling_ns_max",
        "handling_ns_total",
        "refused",
        "starts",
        "undeliverable",
    )

    def __init__(self) -> None:
        self.handled = 0
        self.failed = 0
        self.refused = 0
        self.dropped = 0
        self.handling_ns_total = 0
        self.handling_ns_max = 0
        self.starts = 0
        self.abandoned = 0
        self.alive = False
        self.undeliverable: deque[Undeliverable] = deque(maxlen=UNDELIVERABLE_MAX)
