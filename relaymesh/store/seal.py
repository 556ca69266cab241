"""Seal: encrypts and decrypts the texts of one root, when its settings say so.

    settings file changed? ──▶ payloadEncryption on?      one stat, at most every 20 ms
    keyring file changed?  ──▶ read it again              one stat before each text that is encrypted

So a rotation reaches a running process before its next write, and a switch within 20 ms. Decrypting looks at the
keyring only when it meets a key that it does not know. Not thread-safe: it belongs to one connection.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from relaymesh.errors import RelayMeshError
from relaymesh.store.error import BadTextError, SealError, translate
from relaymesh.wire.sealed import NONCE_BYTES, Sealed, pack, place, unpack

if TYPE_CHECKING:
    from relaymesh.store.keyring import Keyring

__all__ = [
    "KEYRING",
    "PayloadKeyUnknownError",
    "PayloadKeyringMissingError",
    "PayloadTamperedError",
    "Seal",
    "has_sealed",
]

KEYRING = "security/payload-keys.json"

SETTINGS_HOLD_NS = 20_000_000
"""So long a look at the settings holds: for a program that submits many short texts each stat would count."""
_SETTINGS = "relaymesh-settings.json"
_VARIABLE = "RELAYMESH_PAYLOAD_ENCRYPTION"
_MARK = "payload_keys"

_Facts = tuple[int, int, int] | None


class PayloadKeyringMissingError(SealError):
    """There are encrypted texts, and the keyring is gone. A new one would not open them, so none is made."""

    code = "payload_keyring_missing"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"the keyring {self.path} is gone, and texts of this root are encrypted: restore it from a snapshot"


class PayloadKeyUnknownError(SealError):
    """A text was encrypted with a key that the keyring does not hold."""

    code = "payload_key_unknown"

    def __init__(self, kid: str, path: str) -> None:
        super().__init__(kid, path)
        self.kid, self.path = kid, path

    def __str__(self) -> str:
        return (
            f"a text is encrypted with the key {self.kid}, and {self.path} does not hold it: restore the right keyring"
        )


class PayloadTamperedError(SealError):
    """Encrypted bytes were changed, or belong somewhere else, or the key of this name is another one."""

    code = "payload_tampered"

    def __init__(self, kind: str, owner: str) -> None:
        super().__init__(kind, owner)
        self.kind, self.owner = kind, owner

    def __str__(self) -> str:
        return (
            f"the encrypted {self.kind} of {self.owner} cannot be opened: it was changed or moved, or the keyring is "
            "of another root; restore both from a snapshot"
        )


class Seal:
    """See the module. conn: of the root, to remember there that it holds encrypted texts; None only for reading."""

    def __init__(self, root: Path, conn: sqlite3.Connection | None) -> None:
        self._root = root
        self._conn = conn
        self._settings_path, self._keyring_path = str(root / _SETTINGS), str(root / KEYRING)
        self._settings_seen: _Facts | str = "never"
        self._look_at_ns = 0
        self._ring_seen: _Facts = None
        self._ring: Keyring | None = None
        self._on = False
        self._marked = False

    def on(self) -> bool:
        """Return whether new texts are to be encrypted."""
        now_ns = time.monotonic_ns()
        if now_ns < self._look_at_ns:
            return self._on
        self._look_at_ns = now_ns + SETTINGS_HOLD_NS
        seen = _facts(self._settings_path)
        if seen != self._settings_seen:
            self._on = self._ask_settings(seen)
            self._settings_seen = seen
        return self._on

    def _ask_settings(self, seen: _Facts) -> bool:
        if seen is None and not os.environ.get(_VARIABLE, "").strip():
            return False
        from relaymesh.settings import load_settings

        try:
            return load_settings(self._root).payload_encryption
        except RelayMeshError:
            # A bad file keeps what was known. Who knows nothing yet does not let go of a protection that was on.
            return self._on if self._settings_seen != "never" else os.path.exists(self._keyring_path)

    def seal(self, kind: str, owner: str, text: str) -> bytes:
        """Encrypt a text with the active key, for this place only.

        Raises:
            SealError: the keyring cannot be used.
        """
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

        ring = self.current()
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise BadTextError from error
        nonce = os.urandom(NONCE_BYTES)
        return pack(Sealed(ring.active, nonce, encrypt(data, place(kind, owner), nonce, ring.keys[ring.active])))

    def open(self, kind: str, owner: str, data: bytes) -> str:
        """Decrypt what ``seal`` returned for this place.

        Raises:
            PayloadTamperedError, PayloadKeyUnknownError, SealError
        """
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
        from nacl.exceptions import CryptoError

        sealed = unpack(data)
        if sealed is None:
            raise PayloadTamperedError(kind, owner)
        key = self._key(sealed.kid)
        try:
            return decrypt(sealed.ciphertext, place(kind, owner), sealed.nonce, key).decode()
        except (CryptoError, UnicodeDecodeError) as error:
            raise PayloadTamperedError(kind, owner) from error

    def current(self) -> Keyring:
        """Return the keyring as it is on the disk now, made if the root has never had one.

        Raises:
            SealError
        """
        from relaymesh.store.keyring import create_keyring, load_keyring  # most roots have none

        seen = _facts(self._keyring_path)
        if seen is None and (self._ring is not None or has_sealed(self._conn)):
            raise PayloadKeyringMissingError(self._keyring_path)
        ring = self._ring
        if ring is None or seen != self._ring_seen:
            ring = load_keyring(self._root) or create_keyring(self._root, time.time_ns() // 1_000_000)
            self._ring, self._ring_seen = ring, _facts(self._keyring_path) if seen is None else seen
        self._mark()
        return ring

    def _key(self, kid: str) -> bytes:
        key = self._ring.keys.get(kid) if self._ring is not None else None
        if key is None:
            from relaymesh.store.keyring import load_keyring

            seen = _facts(self._keyring_path)
            ring = load_keyring(self._root)
            if ring is None:
                raise PayloadKeyringMissingError(self._keyring_path)
            self._ring, self._ring_seen = ring, seen
            key = ring.keys.get(kid)
        if key is None:
            raise PayloadKeyUnknownError(kid, self._keyring_path)
        return key

    def _mark(self) -> None:
        """Remember in the database that texts are encrypted from here on: before the first, or together with it."""
        if self._marked or self._conn is None:
            return
        together = self._conn.in_transaction
        try:
            if not has_sealed(self._conn):
                self._conn.execute(
                    "INSERT OR IGNORE INTO cluster_state(state_key, state_value, version, updated_at_ms)"
                    " VALUES (?, '1', 1, ?)",
                    (_MARK, time.time_ns() // 1_000_000),
                )
        except sqlite3.Error as error:
            raise translate(error, str(self._root)) from error
        self._marked = not together


def has_sealed(conn: sqlite3.Connection | None) -> bool:
    """Return whether texts of this root were ever encrypted."""
    if conn is None:
        return False
    return conn.execute("SELECT 1 FROM cluster_state WHERE state_key=?", (_MARK,)).fetchone() is not None


def _facts(path: str) -> _Facts:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
