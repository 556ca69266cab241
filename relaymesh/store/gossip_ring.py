"""The keys of the mesh as one root keeps them: ``security/gossip-keys.json``, readable by its owner only.

    {"schema": "relaymesh.gossip.keys.v1",
     "keys": [{"secret": …, "installed_at_ms": …, "primary_since_ms": …}, …]}      the first one is the primary

How it is written says ``relaymesh.store.secret_file``. The setting ``gossipSharedSecret`` decides which key
is used when it is set; the keys of the file open packets beside it.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from relaymesh.core.mesh.label import mesh_label
from relaymesh.core.setting import TEXT_CHARS_MAX
from relaymesh.errors import RootError
from relaymesh.store.root import GOSSIP_KEYS
from relaymesh.store.secret_file import SecretFile
from relaymesh.wire.mesh_key import KEYS_MAX, KeyRing, MeshKey

__all__ = [
    "GossipRingError",
    "RingFile",
    "RingKey",
    "RingWatch",
    "RootRing",
    "alone",
    "cluster_label",
    "load_ring",
    "ring_of",
    "save_ring",
]

_SCHEMA: Final = "relaymesh.gossip.keys.v1"
_FILE_BYTES_MAX: Final = 262_144


class GossipRingError(RootError):
    """The keys of the mesh are there and cannot be used."""

    code = "gossip_ring"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the keys of the mesh in {self.path} cannot be used ({self.cause}): mend the file, or copy it anew"


_FILE: Final = SecretFile(
    path=GOSSIP_KEYS,
    guard="gossip-keys.guard",
    schema=_SCHEMA,
    bytes_max=_FILE_BYTES_MAX,
    wanted=f"a JSON object of schema {_SCHEMA} with 1 to {KEYS_MAX} keys",
    error=GossipRingError,
)


@dataclass(frozen=True, slots=True)
class RingKey:
    """One secret of the file. primary_since_ms: when it became the one that seals, 0 for never."""

    secret: str = field(repr=False)
    installed_ms: int = 0
    primary_since_ms: int = 0

    def key(self, label: str) -> MeshKey:
        return MeshKey.derive(self.secret, label)


RingFile = tuple[RingKey, ...]
"""The keys of the file, the primary first; empty without a file."""


@dataclass(frozen=True, slots=True)
class RootRing:
    """The ring that a process of the root goes by.

    source: what decides about the primary key. differs: settings and file name different ones. file: what it says.
    """

    ring: KeyRing
    source: Literal["settings", "ring", "none"]
    differs: bool
    file: RingFile

    @property
    def signing(self) -> bool:
        return not self.ring.primary.open


def cluster_label(namespace: str, label: str) -> str:
    """Return the name of the mesh, which keys and packets are bound to. label: the setting ``meshLabel``.

    Without a secret too it is that of all roots of the namespace: who is told by hand where others are means them.
    """
    return mesh_label(namespace, label=label, signed=True, insecure=False, place="")


def ring_of(root: Path, secret: str, label: str) -> RootRing:
    """Return the ring of a scoped root. secret: the setting ``gossipSharedSecret``; label: the name of the mesh.

    Raises:
        GossipRingError: what is there is no file of keys.
    """
    file = load_ring(root)
    keys = [one.key(label) for one in file]
    if not secret:
        if not keys:
            return RootRing(KeyRing(MeshKey.derive("", label)), "none", False, file)
        return RootRing(KeyRing(keys[0], tuple(keys[1:])), "ring", False, file)
    primary = MeshKey.derive(secret, label)
    others = tuple(key for key in keys if key.key_id != primary.key_id)[: KEYS_MAX - 1]
    differs = bool(keys) and keys[0].key_id != primary.key_id
    return RootRing(KeyRing(primary, others), "settings", differs, file)


class RingWatch:
    """The ring of one root for a process that runs: read again when the file or the setting changes.

    problem: what is wrong with the file, or empty. While it cannot be read the former ring holds; at the start the
    setting alone, and without one a key that nobody has, because a mesh that was signed must not open by mistake.
    differs: setting and file name different keys; the setting decides which is used.
    """

    def __init__(self, root: Path, label: str) -> None:
        self._root = root
        self._label = label
        self._seen: tuple[str, tuple[int, int, int] | None] | None = None
        self._ring: KeyRing | None = None
        self.problem = ""
        self.differs = False

    def ring(self, secret: str) -> KeyRing:
        """Return the keys that hold now, the same object until they change; one stat."""
        facts = self._facts()
        if self._ring is None or (secret, facts) != self._seen:
            self._seen = (secret, facts)
            try:
                of_root = ring_of(self._root, secret, self._label)
                found, self.differs, self.problem = of_root.ring, of_root.differs, ""
            except GossipRingError as error:
                self.problem = str(error)
                lost = MeshKey.derive(secret or os.urandom(32).hex(), self._label)
                found = self._ring or KeyRing(lost)
            if found != self._ring:
                self._ring = found
        return self._ring

    def _facts(self) -> tuple[int, int, int] | None:
        try:
            facts = (self._root / GOSSIP_KEYS).stat()
        except OSError:
            return None
        return (facts.st_mtime_ns, facts.st_size, facts.st_ino)


def load_ring(root: Path) -> RingFile:
    """Return the keys in the file of a scoped root; none when there is no file.

    Raises:
        GossipRingError: what is there is no file of keys.
    """
    return _FILE.load(root, lambda content: _keys_of(content.get("keys"))) or ()


def save_ring(root: Path, keys: RingFile) -> None:
    """Write the keys; the caller is alone (``alone``).

    Raises:
        GossipRingError: they cannot be written; the file is as it was.
    """
    entries = [
        {"secret": key.secret, "installed_at_ms": key.installed_ms, "primary_since_ms": key.primary_since_ms}
        for key in keys
    ]
    _FILE.save(root, {"keys": entries})


def alone(root: Path) -> AbstractContextManager[None]:
    """Be the only one who changes the file.

    Raises:
        GossipRingError: another process has been changing it for 30 s.
    """
    return _FILE.alone(root)


def _keys_of(entries: Any) -> RingFile:
    if not isinstance(entries, list) or not 1 <= len(entries) <= KEYS_MAX:
        raise ValueError("keys")
    keys = tuple(_key_of(entry) for entry in entries)
    if len({key.secret for key in keys}) != len(keys):
        raise ValueError("twice")
    return keys


def _key_of(entry: Any) -> RingKey:
    if not isinstance(entry, dict):
        raise ValueError("key")
    secret, installed_ms, since_ms = (entry.get(name) for name in ("secret", "installed_at_ms", "primary_since_ms"))
    if not isinstance(secret, str) or not 0 < len(secret) <= TEXT_CHARS_MAX or secret != secret.strip():
        raise ValueError("secret")
    if type(installed_ms) is not int or type(since_ms) is not int:
        raise ValueError("instant")
    secret.encode()  # half a surrogate pair is a ValueError too
    return RingKey(secret, installed_ms, since_ms)
