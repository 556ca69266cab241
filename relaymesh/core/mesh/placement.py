"""Who of several nodes does one thing: rendezvous hashing.

Every node that has the same list of members names the same one, and when one leaves only its things move.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["ranked"]


def _weight(node_id: str, thing: str) -> bytes:
    # The lengths keep ("ab", "c") and ("a", "bc") apart.
    return hashlib.blake2b(f"{len(node_id)}:{node_id}{thing}".encode(), digest_size=8, person=b"relaymesh.hrw").digest()


def ranked(thing: str, node_ids: Iterable[str]) -> list[str]:
    """Return the nodes in the order in which they are responsible for a thing, a step id for instance."""
    return sorted(node_ids, key=lambda node_id: (_weight(node_id, thing), node_id), reverse=True)
