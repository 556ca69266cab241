"""Where the chain ends, kept beside the log, so that a writer need not read it and a cut log is noticed.

Two slots in ``audit/audit.lock``, written in turn: a crash in the middle of one leaves the other. Each is a MAC under
the audit key and a line of JSON, so that who can write the file but not read the key cannot move the end.

A head may be behind the log by the batch whose writer was killed between the two writes, never before it.
"""

from __future__ import annotations

import hmac
import os
from hashlib import blake2b

import msgspec

__all__ = ["Head", "read_head", "write_head"]

_SLOT_BYTES = 1024
_MAC_CHARS = 32


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the chain.

    number: grows with each writing. segment: of the file ``audit.log``, from 1. size: its bytes. rows: of the whole
    chain, rows of dropped segments included. hash: the last. unsealed: rows since the last seal.
    first_segment, first_prev: the oldest segment that is kept, and the hash before its first row.
    synced_*: the end as of the last flush to the disk; boot: of the machine, for what lies behind that is lost when
    the power fails.
    lost, lost_since_ms, lost_cause: records that could not be written since the last that could.
    legacy: rows at the beginning that were there before there was a chain; -1 in a head that did not count them yet.
    """

    number: int = 0
    segment: int = 1
    size: int = 0
    rows: int = 0
    hash: str = ""
    unsealed: int = 0
    sealed_at_ms: int = 0
    segment_since_ms: int = 0
    first_segment: int = 1
    first_prev: str = ""
    synced_size: int = 0
    synced_rows: int = 0
    synced_hash: str = ""
    synced_unsealed: int = 0
    synced_at_ms: int = 0
    boot: str = ""
    lost: int = 0
    lost_since_ms: int = 0
    lost_cause: str = ""
    legacy: int = -1


_DECODER = msgspec.json.Decoder(Head)  # at import: relaymesh.wire.typed says why
_ENCODER = msgspec.json.Encoder()


def read_head(descriptor: int, secret: bytes) -> Head | None:
    """Return the newest head that is whole; None when there is none."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = os.read(descriptor, 2 * _SLOT_BYTES)
    found = (_decoded(data[start : start + _SLOT_BYTES], secret) for start in (0, _SLOT_BYTES))
    return max((head for head in found if head is not None), key=lambda head: head.number, default=None)


def write_head(descriptor: int, head: Head, secret: bytes) -> None:
    """Write the head into the slot of its number."""
    text = _ENCODER.encode(head)
    data = (_mac(text, secret) + text).ljust(_SLOT_BYTES - 1) + b"\n"
    assert len(data) == _SLOT_BYTES, "every field of a head is bounded"
    os.lseek(descriptor, head.number % 2 * _SLOT_BYTES, os.SEEK_SET)
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(28, "the head could be written in part only")


def _decoded(slot: bytes, secret: bytes) -> Head | None:
    mac, text = slot[:_MAC_CHARS], slot[_MAC_CHARS:].rstrip()
    if not text or not hmac.compare_digest(mac, _mac(text, secret)):
        return None
    try:
        return _DECODER.decode(text)
    except msgspec.DecodeError:
        return None


def _mac(text: bytes, secret: bytes) -> bytes:
    return blake2b(text, digest_size=_MAC_CHARS // 2, key=secret, person=b"relaymesh-head-1").hexdigest().encode()
