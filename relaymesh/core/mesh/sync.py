"""Repairing what the news missed: comparing views part by part, and sending only what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relaymesh.core.mesh.member import BUCKETS, id_hash
from relaymesh.core.mesh.packet import Update, update_bytes
from relaymesh.core.mesh.peer import Peer
from relaymesh.core.mesh.view import View

__all__ = ["Chunk", "differing", "records"]


def differing(view: View, parts: Sequence[int]) -> int:
    """Return a mask of the parts whose digests differ from these."""
    mask = 0
    for at, (ours, theirs) in enumerate(zip(view.parts, parts, strict=True)):
        if ours != theirs:
            mask |= 1 << at
    return mask


Chunk = tuple[tuple[Update, ...], int]


def records(view: View, mask: int, *, room_bytes: int, sample: int, chunks_max: int) -> list[Chunk]:
    """Return the members of these parts, cut into datagrams: updates and their size in bytes.

    No more than ``chunks_max`` datagrams at once, whole parts first: with each round fewer parts differ.
    """
    chunks: list[Chunk] = []
    chunk: list[Update] = []
    used = 2
    for update in _updates(view, mask):
        size = update_bytes(update)
        if chunk and (used + size > room_bytes or len(chunk) == sample):
            chunks.append((tuple(chunk), used if len(chunk) > 15 else used - 2))
            if len(chunks) == chunks_max:
                return chunks
            chunk, used = [], 2
        chunk.append(update)
        used += size
    if chunk:
        chunks.append((tuple(chunk), used if len(chunk) > 15 else used - 2))
    return chunks


def _updates(view: View, mask: int) -> Iterator[Update]:
    """Yield what is held of the members of these parts, part by part, those that are gone after all others."""
    if mask >> (id_hash(view.me.node_id) % BUCKETS) & 1:
        yield Update(view.me)
    parts: list[list[Peer]] = [[] for _ in range(2 * BUCKETS)]
    for peer in view.in_parts(mask):
        parts[peer.bucket + (BUCKETS if peer.member.gone else 0)].append(peer)
    for part in parts:
        for peer in part:
            yield Update(peer.member, peer.suspicion.accusers if peer.suspicion else ())
