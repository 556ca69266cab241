"""Who really is where it says: nonces and their echoes.

A packet of the right key may still be an old one, recorded and sent again. So a sender is unproven until it has echoed
a nonce of ours from the address that it sends from, in its present generation. What an unproven sender says is not
taken into the view, and no answer to it is longer than its own packet.

    PING(nonce) ──▶ ACK(nonce): the answerer is proven to the asker, at no extra cost
    ACK carries a challenge ──▶ ECHO(challenge): and the asker to the answerer, once per pair and generation

A challenge is a keyed hash of sender, address and generation, so that nothing has to be remembered for senders that
never answer. Its key is drawn at each start: an echo recorded before a restart proves nothing after it.
"""

from __future__ import annotations

import hashlib
import random
from typing import Final, NamedTuple

from relaymesh.core.mesh.member import Member

__all__ = ["ASKED_MAX", "Challenges", "Questions", "Relay"]

ASKED_MAX: Final = 256
_LAST_MAX: Final = 32


class Relay(NamedTuple):
    """Somebody else's probe that goes through us: where to answer, and the nonce that is waited for there."""

    address: str
    nonce: int


class Challenges:
    """The challenges of one node in one run."""

    def __init__(self, rng: random.Random) -> None:
        self._key = rng.getrandbits(256).to_bytes(32, "big")
        self._last: dict[tuple[str, int, str], int] = {}  # an echo comes soon, if it comes

    def of(self, sender: Member, source: str) -> int:
        """Return the nonce that this sender has to echo from that address; never 0."""
        which = (sender.node_id, sender.generation, source)
        nonce = self._last.get(which)
        if nonce is None:
            text = f"{sender.node_id}\0{sender.generation}\0{source}"
            digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._key).digest()
            nonce = int.from_bytes(digest, "big") or 1
            if len(self._last) >= _LAST_MAX:
                del self._last[next(iter(self._last))]
            self._last[which] = nonce
        return nonce


class Questions:
    """Nonces of ours that wait for their echo, apart from the running probe; the oldest are forgotten first.

    A nonce is good for one echo.
    """

    __slots__ = ("_asked",)

    def __init__(self) -> None:
        self._asked: dict[int, Relay | None] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def put(self, nonce: int, relay: Relay | None = None) -> None:
        if len(self._asked) >= ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[nonce] = relay

    def take(self, nonce: int) -> tuple[bool, Relay | None]:
        """Return whether it was asked and not answered yet, and on whose behalf."""
        if nonce not in self._asked:
            return False, None
        return True, self._asked.pop(nonce)

    def waits(self, nonce: int) -> bool:
        return nonce in self._asked
