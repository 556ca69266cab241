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
from relaymesh.store.error import BadTextError, KeyringError, SealError, translate

if TYPE_CHECKING:
    from relaymesh.store.keyring import Keyring

__all__ = [
    "KEYRING",
    "PayloadKeyUnknownError",
    "PayloadKeyringMissingError",
    "PayloadKeyringWrongError",
    "PayloadTamperedError",
    "Seal",
    "check_keyring",
    "forget_key",
    "has_sealed",
    "used_keys",
]

KEYRING = "security/payload-keys.json"

SETTINGS_HOLD_NS = 20_000_000
"""So long a look at the settings holds: for a program that submits many short texts each stat would count."""
_SETTINGS = "relaymesh-settings.json"
_VARIABLE = "RELAYMESH_PAYLOAD_ENCRYPTION"
_KEY = "payload_key."
_KEY_END = "payload_key/"  # behind all names that begin so

_Facts = tuple[int, int, int] | None


class PayloadKeyringMissingError(KeyringError):
    """There are encrypted texts, and the keyring is gone. A new one would not open them, so none is made."""

    code = "payload_keyring_missing"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"the keyring {self.path} is gone, and texts of this root are encrypted: restore it from a snapshot"


class PayloadKeyUnknownError(KeyringError):
    """A text was encrypted with a key that the keyring does not hold."""

    code = "payload_key_unknown"

    def __init__(self, kid: str, path: str) -> None:
        super().__init__(kid, path)
        self.kid, self.path = kid, path

    def __str__(self) -> str:
        return (
            f"a text is encrypted with the key {self.kid}, and {self.path} does not hold it: restore the right keyring"
        )


class PayloadKeyringWrongError(KeyringError):
    """The keyring is not the one that texts of this root were encrypted with. kid: a key that it should hold."""

    code = "payload_keyring_wrong"

    def __init__(self, path: str, kid: str) -> None:
        super().__init__(path, kid)
        self.path, self.kid = path, kid

    def __str__(self) -> str:
        return (
            f"the keyring {self.path} is another one than this root was encrypted with, its key {self.kid} is missing "
            "or different: put the right one back"
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
        self._read: Keyring | None = None
        self._on = False
        self._marked = ""

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
            KeyringError: the keyring cannot be used; nothing was changed.
        """
        return _seal(self.current(), kind, owner, text)

    def seal_result(self, kind: str, owner: str, text: str) -> bytes:
        """The same for what was worked out already: under the keyring of before, if it has just become unusable.

        Whoever puts that one back, as the error asks for, finds what was done meanwhile.

        Raises:
            KeyringError: there was none before.
        """
        try:
            ring = self.current()
        except KeyringError:
            if self._ring is None:
                raise
            ring = self._ring
        return _seal(ring, kind, owner, text)

    def open(self, kind: str, owner: str, data: bytes) -> str:
        """Decrypt what ``seal`` returned for this place.

        Raises:
            PayloadTamperedError: these bytes are no ciphertext of this place.
            KeyringError: the key cannot be had.
        """
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as decrypt
        from nacl.exceptions import CryptoError

        from relaymesh.wire.sealed import place, unpack

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
            KeyringError
        """
        from relaymesh.store.keyring import create_keyring, load_keyring  # most roots have none

        seen = _facts(self._keyring_path)
        if seen is None and (self._ring is not None or has_sealed(self._conn)):
            raise PayloadKeyringMissingError(self._keyring_path)
        ring = self._ring
        if ring is None or seen != self._ring_seen:
            ring = load_keyring(self._root) or create_keyring(self._root, time.time_ns() // 1_000_000)
            check_keyring(self._conn, ring, self._keyring_path)
            self._ring, self._ring_seen = ring, _facts(self._keyring_path) if seen is None else seen
        self._mark(ring)
        return ring

    def trace(self, text: str) -> dict[str, object]:
        """Return what may be kept of a text where it can be read: its length, and a hash to tell it from others.

        Of an encrypted one the hash is keyed, so that nobody can check a guess against it who has not the keyring.

        Raises:
            KeyringError
        """
        import hashlib

        data = text.encode("utf-8", "surrogatepass")
        if not self.on():
            return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        ring = self.current()
        digest = hashlib.blake2b(data, digest_size=32, key=ring.keys[ring.active], person=b"relaymesh.trace")
        return {"bytes": len(data), "kid": ring.active, "keyed_hash": digest.hexdigest()}

    def _key(self, kid: str) -> bytes:
        for ring in (self._ring, self._read):
            if ring is not None and kid in ring.keys:
                return ring.keys[kid]
        from relaymesh.store.keyring import load_keyring

        ring = load_keyring(self._root)
        if ring is None:
            raise PayloadKeyringMissingError(self._keyring_path)
        if kid not in ring.keys:
            raise PayloadKeyUnknownError(kid, self._keyring_path)
        # Good for reading this key; whether it is good for writing is found out by ``current``, which looks at all.
        check_keyring(self._conn, ring, self._keyring_path, kid=kid)
        self._read = ring
        return ring.keys[kid]

    def _mark(self, ring: Keyring) -> None:
        """Remember the key of the texts that come: before the first of them, or together with it."""
        if self._marked == ring.active or self._conn is None:
            return
        conn, kid = self._conn, ring.active
        together = conn.in_transaction
        try:
            if conn.execute("SELECT 1 FROM cluster_state WHERE state_key=?", (_KEY + kid,)).fetchone() is None:
                conn.execute(
                    "INSERT OR IGNORE INTO cluster_state(state_key, state_value, version, updated_at_ms)"
                    " VALUES (?, ?, 1, ?)",
                    (_KEY + kid, _fingerprint(ring.keys[kid]), time.time_ns() // 1_000_000),
                )
        except sqlite3.Error as error:
            raise translate(error, str(self._root)) from error
        self._marked = "" if together else kid


def has_sealed(conn: sqlite3.Connection | None) -> bool:
    """Return whether texts of this root were ever encrypted."""
    return conn is not None and used_keys(conn) > 0


def used_keys(conn: sqlite3.Connection) -> int:
    """Return how many keys texts of this root may be encrypted with."""
    sql = "SELECT count(*) FROM cluster_state WHERE state_key>=? AND state_key<?"
    (count,) = conn.execute(sql, (_KEY, _KEY_END)).fetchone()
    return int(count)


def check_keyring(conn: sqlite3.Connection | None, ring: Keyring, path: str, *, kid: str | None = None) -> None:
    """Compare a keyring with the fingerprints of the keys that were used; kid: with that of this one only.

    Raises:
        PayloadKeyringWrongError
    """
    if conn is None:
        return
    first, behind = (_KEY, _KEY_END) if kid is None else (_KEY + kid, f"{_KEY}{kid}\0")
    for name, fingerprint in conn.execute(
        "SELECT state_key, state_value FROM cluster_state WHERE state_key>=? AND state_key<?", (first, behind)
    ):
        used = name.removeprefix(_KEY)
        if used not in ring.keys or _fingerprint(ring.keys[used]) != fingerprint:
            raise PayloadKeyringWrongError(path, used)


def forget_key(conn: sqlite3.Connection, kid: str) -> None:
    """Let go of a key that nothing is encrypted with any more; the caller holds the write transaction."""
    conn.execute("DELETE FROM cluster_state WHERE state_key=?", (_KEY + kid,))


def _fingerprint(key: bytes) -> str:
    import hashlib

    return hashlib.blake2b(digest_size=16, key=key, person=b"relaymesh.kid").hexdigest()


def _seal(ring: Keyring, kind: str, owner: str, text: str) -> bytes:
    from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as encrypt

    from relaymesh.wire.sealed import NONCE_BYTES, Sealed, pack, place

    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise BadTextError from error
    nonce = os.urandom(NONCE_BYTES)
    return pack(Sealed(ring.active, nonce, encrypt(data, place(kind, owner), nonce, ring.keys[ring.active])))


def _facts(path: str) -> _Facts:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
