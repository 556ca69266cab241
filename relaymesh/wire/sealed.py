"""The bytes of an encrypted text, in a row or in a file.

    1 byte      version, 1
    1 byte      length of the kid, 1 to 32
    n bytes     kid: which key of the ring, ASCII
    24 bytes    nonce, random
    the rest    XChaCha20-Poly1305 ciphertext and its tag of 16 bytes

What is authenticated beside the text is where it belongs (``place``), so that it cannot be moved to another row.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["KID_BYTES_MAX", "NONCE_BYTES", "Sealed", "head", "kid_of", "pack", "place", "unpack"]

KID_BYTES_MAX: Final = 32
NONCE_BYTES: Final = 24
_VERSION = 1
_TAG_BYTES = 16


class Sealed(NamedTuple):
    """A ciphertext, and which key and nonce open it."""

    kid: str
    nonce: bytes
    ciphertext: bytes


def head(kid: str) -> bytes:
    """Return how the bytes begin that were sealed with this key."""
    name = kid.encode("ascii")
    if not 0 < len(name) <= KID_BYTES_MAX:
        raise ValueError("a kid has 1 to 32 characters")
    return bytes((_VERSION, len(name))) + name


def pack(sealed: Sealed) -> bytes:
    """Return the bytes of a ciphertext."""
    return head(sealed.kid) + sealed.nonce + sealed.ciphertext


def unpack(data: bytes) -> Sealed | None:
    """Return the parts, None when these bytes cannot be a ciphertext of ours."""
    if len(data) < 2 or data[0] != _VERSION or not 0 < data[1] <= KID_BYTES_MAX:
        return None
    start = 2 + data[1]
    end = start + NONCE_BYTES
    name = data[2:start]
    if len(data) < end + _TAG_BYTES or not name.isascii():
        return None
    return Sealed(name.decode("ascii"), data[start:end], data[end:])


def kid_of(data: bytes) -> str | None:
    """Return which key these bytes were sealed with, None when they are no ciphertext; the first 34 are enough."""
    if len(data) < 2 or data[0] != _VERSION or not 0 < data[1] <= KID_BYTES_MAX or len(data) < 2 + data[1]:
        return None
    name = data[2 : 2 + data[1]]
    return name.decode("ascii") if name.isascii() else None


def place(kind: str, owner: str) -> bytes:
    """Return what binds a text to its place. kind: the column it is in; owner: id of the step or schedule."""
    return b"relaymesh.sealed.v1\0" + kind.encode() + b"\0" + owner.encode()
