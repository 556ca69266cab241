"""The keys that texts of a root are encrypted with: ``security/payload-keys.json``, readable by its owner only.

    {"schema": "relaymesh.payload.keys.v1", "active_kid": "k17…", "keys": {"k17…": base64 of 32 bytes}}

How it is written says ``relaymesh.store.secret_file``. A rotation adds a key and makes it the active one;
old ones stay until somebody has them removed (relaymesh.store.key_use).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from relaymesh.store.error import KeyringError
from relaymesh.store.seal import KEYRING
from relaymesh.store.secret_file import SecretFile
from relaymesh.wire.sealed import KID_BYTES_MAX

__all__ = [
    "KEYS_MAX",
    "Keyring",
    "PayloadKeyringError",
    "create_keyring",
    "load_keyring",
    "remove_from_keyring",
    "rotate_keyring",
]

KEYS_MAX: Final = 1_000
"""A rotation beyond this is refused."""
_SCHEMA = "relaymesh.payload.keys.v1"
_KEY_BYTES = 32
_FILE_BYTES_MAX = 1_048_576


class PayloadKeyringError(KeyringError):
    """The keyring is there and cannot be used."""

    code = "payload_keyring"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the keyring {self.path} cannot be used ({self.cause}): mend it or restore it from a snapshot"


_FILE: Final = SecretFile(
    path=KEYRING,
    guard="payload-keys.guard",
    schema=_SCHEMA,
    bytes_max=_FILE_BYTES_MAX,
    wanted=f"a JSON object of schema {_SCHEMA} with keys that are base64 of {_KEY_BYTES} bytes",
    error=PayloadKeyringError,
)


@dataclass(frozen=True, slots=True)
class Keyring:
    """kid to key of 32 bytes; ``active`` is the one that new texts are encrypted with."""

    active: str
    keys: Mapping[str, bytes] = field(repr=False)


def load_keyring(root: Path) -> Keyring | None:
    """Return the keyring of a scoped root, None when there is none.

    An active kid that is not in the ring falls back to its first key.

    Raises:
        PayloadKeyringError: what is there is no keyring.
    """
    return _FILE.load(root, _keyring_of)


def create_keyring(root: Path, now_ms: int) -> Keyring:
    """Return the keyring, made now unless somebody else has just done so.

    Raises:
        PayloadKeyringError: it cannot be written.
    """
    with _FILE.alone(root):
        found = load_keyring(root)
        if found is not None:
            return found
        kid = f"k{now_ms}"
        return _save(root, Keyring(kid, {kid: os.urandom(_KEY_BYTES)}))


def rotate_keyring(root: Path, now_ms: int) -> Keyring:
    """Add a key and make it the active one; the first one, where there is no keyring yet.

    Raises:
        PayloadKeyringError: it is damaged, full, or cannot be written; it is as it was.
    """
    with _FILE.alone(root):
        found = load_keyring(root)
        keys = dict(found.keys) if found is not None else {}
        if len(keys) >= KEYS_MAX:
            raise _FILE.problem(root, f"it holds {KEYS_MAX} keys, which is the limit")
        while (kid := f"k{now_ms}") in keys:
            now_ms += 1
        keys[kid] = os.urandom(_KEY_BYTES)
        return _save(root, Keyring(kid, keys))


def remove_from_keyring(root: Path, kid: str) -> Keyring | None:
    """Remove a key; return what is left, None when it is the active one or not there, and nothing was changed.

    Raises:
        PayloadKeyringError: it is damaged, or cannot be written; it is as it was.
    """
    with _FILE.alone(root):
        found = load_keyring(root)
        if found is None or kid == found.active or kid not in found.keys:
            return None
        return _save(root, Keyring(found.active, {name: key for name, key in found.keys.items() if name != kid}))


def _keyring_of(content: dict[str, Any]) -> Keyring:
    keys = _keys_of(content.get("keys"))
    active = content.get("active_kid")
    return Keyring(active if isinstance(active, str) and active in keys else next(iter(keys)), keys)


def _keys_of(found: object) -> dict[str, bytes]:
    if not isinstance(found, dict) or not found:
        raise ValueError("no keys")
    keys = {}
    for kid, text in found.items():
        key = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        if len(key) != _KEY_BYTES or not (kid.isascii() and 0 < len(kid) <= KID_BYTES_MAX):
            raise ValueError("no key")
        keys[kid] = key
    return keys


def _save(root: Path, ring: Keyring) -> Keyring:
    keys = {kid: base64.b64encode(key).decode() for kid, key in ring.keys.items()}
    _FILE.save(root, {"active_kid": ring.active, "keys": keys})
    return ring
