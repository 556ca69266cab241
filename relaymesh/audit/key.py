"""The key that seals the audit log of a root: ``security/audit-signing.key``, made once.

The file holds base64 of 32 random bytes, the seed of an Ed25519 key, and is readable by its owner only. The public key
lies beside it in ``audit-signing.pub``: who checks a log needs no secret.
"""

from __future__ import annotations

import base64
import contextlib
import os
from hashlib import blake2b
from pathlib import Path

from relaymesh.errors import RootError

__all__ = [
    "KEY_FILE",
    "PUBLIC_FILE",
    "AuditKeyError",
    "fingerprint",
    "fingerprint_of",
    "load_public",
    "load_secret",
    "make_secret",
    "seal",
    "unsealed",
]

KEY_FILE = "audit-signing.key"
PUBLIC_FILE = "audit-signing.pub"
_PREFIX = b"relaymesh-audit-seal-v1:"


class AuditKeyError(RootError):
    """The file of the audit key is there and holds none."""

    code = "audit_key"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} holds no key of 32 bytes as base64: restore it, or move it away and a new one is made"


def load_secret(security: Path) -> bytes | None:
    """Return the secret; None when there is none yet.

    Raises:
        AuditKeyError: what is there is no key.
        OSError: it cannot be read.
    """
    return _read(security / KEY_FILE)


def fingerprint(security: Path) -> str | None:
    """Return what names the secret without giving it away; None when there is none.

    Raises:
        AuditKeyError, OSError
    """
    secret = load_secret(security)
    return None if secret is None else fingerprint_of(secret)


def fingerprint_of(secret: bytes) -> str:
    """Return the fingerprint of a secret: 32 hex digits."""
    return blake2b(secret, digest_size=16, person=b"relaymesh-fprint").hexdigest()


def load_public(security: Path) -> bytes | None:
    """Return the public key, of its own file or else worked out from the secret; None when there is neither.

    Raises:
        AuditKeyError, OSError
    """
    public = _read(security / PUBLIC_FILE)
    if public is None and (secret := _read(security / KEY_FILE)) is not None:
        public = _public_of(secret)
    return public


def make_secret(security: Path) -> bytes:
    """Make the key; the caller holds the lock, so nobody else does.

    Raises:
        OSError: it cannot be written.
    """
    security.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        security.chmod(0o700)
    secret = os.urandom(32)
    _write(security / PUBLIC_FILE, _public_of(secret), 0o644)
    _write(security / KEY_FILE, secret, 0o600)
    return secret


def seal(secret: bytes, hash_: str) -> str:
    """Return the Ed25519 signature of a row's hash, as 128 hex digits."""
    from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair

    signing_key = crypto_sign_seed_keypair(secret)[1]
    return crypto_sign(_PREFIX + hash_.encode("ascii"), signing_key)[:crypto_sign_BYTES].hex()


def unsealed(public: bytes, hash_: str, signature: str) -> bool:
    """Return whether the signature is one of this hash under the key."""
    from nacl.bindings import crypto_sign_BYTES, crypto_sign_open
    from nacl.exceptions import BadSignatureError

    try:
        raw = bytes.fromhex(signature)
        if len(raw) != crypto_sign_BYTES:
            return False
        crypto_sign_open(raw + _PREFIX + hash_.encode("ascii"), public)
    except (BadSignatureError, ValueError):
        return False
    return True


def _public_of(secret: bytes) -> bytes:
    from nacl.bindings import crypto_sign_seed_keypair

    return bytes(crypto_sign_seed_keypair(secret)[0])


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, 256)  # the whole of it: a file object would cost each batch of rows twice as much
    finally:
        os.close(descriptor)
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise AuditKeyError(str(path))
    return key


def _write(path: Path, key: bytes, mode: int) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(descriptor, base64.b64encode(key) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(aside, path)
