"""The keys of the mesh as one root keeps them: ``security/gossip-keys.json``, readable by its owner only.

    {"schema": "relaymesh.gossip.keys.v1",
     "keys": [{"secret": …, "installed_at_ms": …, "primary_since_ms": …}, …]}      the first one is the primary

It is written aside, synced and renamed, by one process at a time. The setting ``gossipSharedSecret`` decides which key
is used when it is set; the keys of the file open packets beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from relaymesh.core.mesh.label import mesh_label
from relaymesh.core.setting import TEXT_CHARS_MAX
from relaymesh.errors import RootError
from relaymesh.file_lock import Hold, holding
from relaymesh.store.durable import sync_folder, write_file
from relaymesh.store.root import GOSSIP_KEYS
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
_GUARD: Final = "gossip-keys.guard"
_FILE_BYTES_MAX: Final = 262_144
_WAIT_S: Final = 30.0


class GossipRingError(RootError):
    """The keys of the mesh are there and cannot be used."""

    code = "gossip_ring"

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(path, cause)
        self.path, self.cause = path, cause

    def __str__(self) -> str:
        return f"the keys of the mesh in {self.path} cannot be used ({self.cause}): mend the file, or copy it anew"


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
    path = root / GOSSIP_KEYS
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise GossipRingError(str(path), error.strerror or type(error).__name__) from error
    try:
        content = json.loads(data) if len(data) <= _FILE_BYTES_MAX else None
        keys = _keys_of(content)
    except (ValueError, RecursionError):
        # Not chained: what json says about a document quotes it, and this one is all secrets.
        raise GossipRingError(
            str(path), f"expected a JSON object of schema {_SCHEMA} with 1 to {KEYS_MAX} keys"
        ) from None
    return keys


def save_ring(root: Path, keys: RingFile) -> None:
    """Write the keys; the caller is alone (``alone``).

    Raises:
        GossipRingError: they cannot be written; the file is as it was.
    """
    path = root / GOSSIP_KEYS
    entries = [
        {"secret": key.secret, "installed_at_ms": key.installed_ms, "primary_since_ms": key.primary_since_ms}
        for key in keys
    ]
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)  # the one mode that Windows knows as well
        with contextlib.suppress(OSError):
            path.parent.chmod(0o700)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            left.unlink(missing_ok=True)  # of a writer that was killed: we are alone here
        write_file(path, json.dumps({"schema": _SCHEMA, "keys": entries}, indent=2).encode() + b"\n")
        sync_folder(path.parent.parent)
    except OSError as error:
        raise GossipRingError(str(path), error.strerror or type(error).__name__) from error


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Be the only one who changes the file.

    Raises:
        GossipRingError: another process has been changing it for 30 s.
    """
    path = root / GOSSIP_KEYS
    try:
        with holding(root / "run" / _GUARD, Hold.EXCLUSIVE, wait_s=_WAIT_S) as ours:
            if not ours:
                raise GossipRingError(str(path), "another process has been changing it for 30 s")
            yield
    except OSError as error:
        raise GossipRingError(str(path), error.strerror or type(error).__name__) from error


def _keys_of(content: Any) -> RingFile:
    if not isinstance(content, dict) or content.get("schema") != _SCHEMA:
        raise ValueError("schema")
    entries = content.get("keys")
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
