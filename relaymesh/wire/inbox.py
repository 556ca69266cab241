"""Messages of the InboxActor to itself: it takes in files, and nobody else asks anything of it."""

from __future__ import annotations

from relaymesh.wire.codec import Message, message

__all__ = ["InboxGoOn", "InboxTick"]


@message("inbox.tick")
class InboxTick(Message, frozen=True):
    """Time to look whether files were handed in, or tasks of files have ended."""


@message("inbox.go_on")
class InboxGoOn(Message, frozen=True):
    """There is more to do, or the store has answered."""
