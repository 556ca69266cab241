"""When views are compared part by part, and how much is answered to whom.

digests differ twice in a row ──▶ SYNC (digests of 32 parts) ──▶ RECORDS of those that differ ──▶ and theirs in return
"""

from __future__ import annotations

from typing import Final

from relaymesh.core.mesh import sync
from relaymesh.core.mesh.effect import Effect
from relaymesh.core.mesh.outbox import NO_NEWS, Outbox
from relaymesh.core.mesh.packet import Kind, Packet, extra_bytes
from relaymesh.core.mesh.tuning import SECOND, Tuning
from relaymesh.core.mesh.view import View

__all__ = ["RECORDS_MAX", "Repair"]

RECORDS_MAX: Final = 8
"""Datagrams that answer one request for records."""
_RECORDS_PER_SECOND: Final = 64


class Repair:
    """The repair of one node's view.

    differs: how many contacts in a row had another digest. eager_until_ns: till then the first one counts.
    """

    __slots__ = ("_outbox", "_records_left", "_records_since_ns", "_sync_after_ns", "_view", "differs", "tuning")

    def __init__(self, view: View, outbox: Outbox, tuning: Tuning, now_ns: int) -> None:
        self._view = view
        self._outbox = outbox
        self.tuning = tuning
        self.differs = 0
        self._sync_after_ns = now_ns
        self._records_left = _RECORDS_PER_SECOND
        self._records_since_ns = now_ns

    def unequal(self, now_ns: int, source: str, out: list[Effect], *, eager: bool) -> None:
        """The member at this address has another view."""
        self.differs += 1
        if (eager or self.differs >= 2) and now_ns >= self._sync_after_ns:
            self._sync_after_ns = now_ns + (self.tuning.join_sync_gap_ns if eager else self.tuning.sync_gap_ns)
            self._outbox.send(out, source, Kind.SYNC, 0, NO_NEWS, tuple(self._view.parts))

    def answer_sync(self, now_ns: int, source: str, packet: Packet, out: list[Effect]) -> None:
        assert isinstance(packet.extra, tuple)
        mask = sync.differing(self._view, packet.extra)
        if mask:
            self._send_records(now_ns, source, mask, mask, out)

    def answer_records(self, now_ns: int, source: str, packet: Packet, out: list[Effect], *, eager: bool) -> None:
        assert isinstance(packet.extra, tuple)
        wanted, more = packet.extra
        if wanted:
            self._send_records(now_ns, source, wanted, 0, out)
        unequal = packet.digest != self._view.digest
        if unequal and not more and eager and now_ns >= self._sync_after_ns:
            # The next round goes to somebody else, so that a seed does not carry all newcomers.
            self._sync_after_ns = now_ns + self.tuning.join_sync_gap_ns
            for peer in self._view.pick(1):
                self._outbox.send(out, peer.member.address, Kind.SYNC, 0, NO_NEWS, tuple(self._view.parts))

    def _send_records(self, now_ns: int, source: str, mask: int, wanted: int, out: list[Effect]) -> None:
        if now_ns - self._records_since_ns >= SECOND:
            self._records_since_ns = now_ns
            self._records_left = _RECORDS_PER_SECOND
        room = self.tuning.datagram_bytes - self._outbox.base_bytes - extra_bytes(Kind.RECORDS, (mask, False))
        chunks_max = min(RECORDS_MAX, self._records_left)
        chunks = sync.records(self._view, mask, room_bytes=room, sample=self.tuning.sample, chunks_max=chunks_max)
        self._records_left -= len(chunks)
        last = len(chunks) - 1
        for at, chunk in enumerate(chunks):
            self._outbox.send(out, source, Kind.RECORDS, 0, chunk, (wanted if at == 0 else 0, at < last))
