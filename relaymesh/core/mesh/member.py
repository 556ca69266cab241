"""What all nodes agree on about one member, and which of two opinions wins.

ALIVE ──▶ SUSPECT ──▶ DEAD        the same (generation, version): only ever to the right
  ▲          │          │
  └──────────┴──────────┘         the member itself raises its version (refutation) or generation (restart)
any ──▶ LEFT                      only the member itself says so
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from functools import lru_cache
from typing import Final

__all__ = [
    "BUCKETS",
    "MARK_MASK",
    "NODE_ID_BYTES_MAX",
    "Member",
    "State",
    "address_bytes",
    "id_hash",
    "int_bytes",
    "merge",
    "text_bytes",
]

NODE_ID_BYTES_MAX: Final = 128
BUCKETS: Final = 32
MARK_MASK: Final = (1 << 64) - 1


def int_bytes(value: int) -> int:
    """Return how many bytes msgpack takes for a number that is not negative."""
    if value < 128:
        return 1
    if value < 256:
        return 2
    if value < 65_536:
        return 3
    return 5 if value < 1 << 32 else 9


def text_bytes(text: str) -> int:
    """Return how many bytes msgpack takes for a text of up to 255 bytes."""
    size = len(text) if text.isascii() else len(text.encode())
    return size + (1 if size < 32 else 2)


def address_bytes(address: str) -> int:
    """Return how many bytes an address takes: 4 or 16 and the port, with their head."""
    return 20 if address.startswith("[") else 8


class State(IntEnum):
    """What is thought of a member; the value is the rank that decides between equal versions."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3

    @property
    def gone(self) -> bool:
        return self >= State.DEAD


_SUSPECT: Final = State.SUSPECT
_DEAD: Final = State.DEAD
_LEFT: Final = State.LEFT


class Member:
    """One opinion about one member. Not changed once made, so nodes of one process may share it.

    address: where it takes packets, ``127.0.0.1:17888`` or ``[::1]:17888``.
    generation: raised at each start of the node; version: raised to refute. Both only by the node itself.
    """

    # There is one of these per member and node: each slot counts.
    __slots__ = ("_mark", "_size", "_worse", "address", "generation", "node_id", "state", "version")

    def __init__(self, node_id: str, address: str, generation: int, version: int, state: State) -> None:
        self.node_id = node_id
        self.address = address
        self.generation = generation
        self.version = version
        self.state = state
        self._mark = -1
        self._size = 0
        self._worse: Member | None = None

    @property
    def mark(self) -> int:
        """What the member adds to a digest of views; 0 when it is gone.

        Members that are gone add nothing, so that nodes which prune at different times still have equal digests.
        """
        if self._mark < 0:
            if self.gone:
                self._mark = 0
            else:
                text = f"{self.node_id}\0{self.generation}\0{self.version}\0{int(self.state)}"
                self._mark = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        return self._mark

    @property
    def order(self) -> int:
        """Generation, version and rank in one number: the larger one wins."""
        return ((self.generation << 32) | self.version) << 2 | self.state

    @property
    def gone(self) -> bool:
        """Whether it is DEAD or LEFT."""
        state = self.state
        return state is _DEAD or state is _LEFT

    @property
    def size(self) -> int:
        """Bytes that it takes in a packet as news, without accusers."""
        if not self._size:
            self._size = (
                2
                + text_bytes(self.node_id)
                + address_bytes(self.address)
                + int_bytes(self.generation)
                + int_bytes(self.version)
            )
        return self._size

    def but(self, state: State) -> Member:
        """Return the same opinion with another state, the same object each time for the next worse one."""
        if state is _SUSPECT or (state is _DEAD and self.state is _SUSPECT):
            if self._worse is None:
                self._worse = Member(self.node_id, self.address, self.generation, self.version, state)
            if self._worse.state is state:
                return self._worse
        return Member(self.node_id, self.address, self.generation, self.version, state)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (
            self is other
            or (
                self.node_id == other.node_id
                and self.version == other.version
                and self.state == other.state
                and self.generation == other.generation
                and self.address == other.address
            )
        )

    def __hash__(self) -> int:
        return hash((self.node_id, self.generation, self.version, int(self.state)))

    def __repr__(self) -> str:
        return f"Member({self.node_id} {self.address} {self.generation}.{self.version} {self.state.name})"


def merge(ours: Member, theirs: Member) -> Member:
    """Return the opinion that wins when two nodes disagree about a member.

    The larger (generation, version, rank) wins, so the result does not depend on order or repetition. Equal orders
    with different addresses, which only two nodes of one id can make, go to the smaller address.

    This is the rule. ``Opinions.hear`` has it spread over its branches, because it is called for every update of every
    packet; a test holds it to this.

    Raises:
        ValueError: the opinions are about different members.
    """
    if ours.node_id != theirs.node_id:
        raise ValueError(f"{ours.node_id} and {theirs.node_id} are two members")
    if theirs.order == ours.order:
        return theirs if theirs.address < ours.address else ours
    return theirs if theirs.order > ours.order else ours


@lru_cache(maxsize=8192)
def id_hash(node_id: str) -> int:
    """Return 64 bits that stand for a node id, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(node_id.encode(), digest_size=8, person=b"relaymesh.id").digest(), "big")
