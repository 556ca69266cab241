"""What travels between nodes, and how many bytes it takes on the wire.

    PING ──▶ ACK             is it there? carries news both ways; an ACK to an unproven sender asks for an ECHO
    PING_REQ ──▶ RELAYED     ask it for me; NACK: I have asked, it has not answered yet
    GOSSIP                   news only
    CHALLENGE ──▶ ECHO       prove that you are where you say
    SYNC ──▶ RECORDS         digests of 32 parts of the view; the members of those that differ
    STALE                    a later generation of your id is known here
    EVENT                    news about the mesh as a whole, passed on over several hops (event.py)

Sizes are exact, so the core can pack datagrams without encoding them; ``relaymesh.wire.mesh`` is held to them by tests.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple, cast

from relaymesh.core.mesh.member import Member, address_bytes, int_bytes, text_bytes

__all__ = [
    "ACCUSERS_MAX",
    "OVERHEAD_BYTES",
    "Kind",
    "Packet",
    "Update",
    "base_bytes",
    "extra_bytes",
    "make_packet",
    "make_update",
    "untold_bytes",
    "update_bytes",
]

OVERHEAD_BYTES: Final = 48
"""Header and authentication code of every packet."""
ACCUSERS_MAX: Final = 3


class Kind(IntEnum):
    """What a packet is; the number stands in its header."""

    PING = 1
    ACK = 2
    PING_REQ = 3
    NACK = 4
    GOSSIP = 5
    CHALLENGE = 6
    ECHO = 7
    SYNC = 8
    RECORDS = 9
    STALE = 10
    RELAYED = 11
    EVENT = 12


class Update(NamedTuple):
    """News about a member. accusers: hashes of the ids of those who suspect it, at most three."""

    member: Member
    accusers: tuple[int, ...] = ()


# Half the price of calling the class, and this is called for every change that each node hears of.
make_update = cast("Callable[[type[Update], tuple[Member, tuple[int, ...]]], Update]", tuple.__new__)


Extra = int | tuple[Any, ...] | None


class Packet(NamedTuple):
    """One datagram, to be sent or received.

    to: the address that it goes to. sender: the sender's opinion about itself.
    nonce: PING, PING_REQ: to be echoed; ACK, RELAYED, NACK, ECHO, STALE: the echo; CHALLENGE: to be echoed.
    digest: of the sender's view, 0 when it does not tell; then an ACK and a STALE are nine bytes shorter.
    extra: PING and CHALLENGE: bytes of padding, or None. ACK: a challenge, or None. PING_REQ: (id, address) of the
        member to ask. SYNC: the digests of the parts. RECORDS: (mask of parts that are wanted in return, more follow).
        STALE: (generation, address, state) that is known here. EVENT: (hops left, the event as bytes).
    size: bytes of the whole datagram.
    """

    to: str
    kind: Kind
    sender: Member
    nonce: int
    digest: int
    updates: tuple[Update, ...]
    extra: Extra
    size: int


# Half the price of calling the class, and this is called for every packet.
Fields = tuple[str, Kind, Member, int, int, tuple[Update, ...], Extra, int]
make_packet = cast("Callable[[type[Packet], Fields], Packet]", tuple.__new__)


def base_bytes(sender: Member) -> int:
    """Return the size of a packet of this sender that carries no updates and no extra."""
    # array head, version, id, address, state, nonce, digest, empty updates, no extra
    return (
        OVERHEAD_BYTES
        + 1
        + int_bytes(sender.version)
        + text_bytes(sender.node_id)
        + address_bytes(sender.address)
        + 1
        + 10
        + 10
        + 1
        + 1
    )


def untold_bytes(kind: Kind, digest: int) -> int:
    """Return how much shorter an ACK or STALE is that does not tell a digest, as those to unproven senders."""
    return 0 if digest or (kind is not Kind.ACK and kind is not Kind.STALE) else 9


def extra_bytes(kind: Kind, extra: Extra) -> int:
    """Return what an extra adds to a packet."""
    if extra is None:
        return 0
    if isinstance(extra, int):
        if kind is Kind.ACK:
            return 9  # 8 bytes with their head, in place of one byte for none
        return extra + (1 if extra < 256 else 2)
    if kind is Kind.PING_REQ:
        return text_bytes(extra[0]) + address_bytes(extra[1])
    if kind is Kind.SYNC:
        return 8 * len(extra) + (1 if 8 * len(extra) < 256 else 2)
    if kind is Kind.RECORDS:
        return int_bytes(extra[0]) + 1
    if kind is Kind.EVENT:
        return int_bytes(extra[0]) + len(extra[1]) + (2 if len(extra[1]) < 256 else 3)
    assert kind is Kind.STALE
    return int_bytes(extra[0]) + address_bytes(extra[1]) + 1


def update_bytes(update: Update) -> int:
    """Return what one update adds to a packet; two more for all of them when there are more than 15."""
    member, accusers = update
    return member.size + (2 + 8 * len(accusers) if accusers else 1)
