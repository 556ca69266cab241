"""Messages about the mesh: where others may be, what became of members, and what of it goes to the store."""

from __future__ import annotations

from relaymesh.wire.codec import Message, message

__all__ = ["AddressHints"]


@message("gossip.hints")
class AddressHints(Message, frozen=True):
    """Addresses at which nodes may be found: the whole list of a source, in place of what it said before.

    source: number of a ``relaymesh.core.mesh.hint.Source``. addresses: as ``192.0.2.1:17888`` or ``[2001:db8::1]:17888``;
    host names are looked up by who tells them. keep_ms: for how long they are good; 0 until the source says otherwise.
    """

    source: int
    addresses: tuple[str, ...]
    keep_ms: int = 0
