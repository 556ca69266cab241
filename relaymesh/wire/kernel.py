"""Messages of the actor kernel itself: every actor takes the first two, supervisors the rest."""

from __future__ import annotations

from relaymesh.wire.codec import Message, message

__all__ = ["ChildEnded", "Crash", "Ping", "Refused", "Sweep", "Woke"]


@message("kernel.crash")
class Crash(Message, frozen=True):
    """Make the actor raise, as if a fault of its own had hit it (tests, chaos)."""

    reason: str


@message("kernel.ping")
class Ping(Message, frozen=True):
    """Asked of an actor: the answer True means that all mail before it was handled."""


@message("kernel.child_ended")
class ChildEnded(Message, frozen=True):
    """An actor's last word to its supervisor.

    crashed: False when it ended in order without having been told to.
    reason: one line for people.
    """

    name: str
    incarnation: int
    crashed: bool
    reason: str


@message("kernel.sweep")
class Sweep(Message, frozen=True):
    """Look for children whose thread died without a word."""


@message("kernel.woke")
class Woke(Message, frozen=True):
    """A restart's backoff is over."""


@message("kernel.refused")
class Refused(Message, frozen=True):
    """The answer to a message from another process that was not carried out; ``code`` is that of the error."""

    code: str
