"""Keys of the mesh: how they come from the shared secret, and the ring in which they are changed.

    install(new) everywhere ──▶ use(new) everywhere ──▶ remove(old) everywhere

Every key of a ring opens packets, only the primary seals them, so at each step every node reads every other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

__all__ = ["KEYS_MAX", "SECRET_CHARS_MIN", "KeyRing", "MeshKey"]

KEYS_MAX: Final = 8
"""Keys of a ring, the primary included."""
SECRET_CHARS_MIN: Final = 16
"""A shorter secret can be guessed."""

_KEY_PERSON: Final = b"relaymesh.gossip"
_ID_PERSON: Final = b"relaymesh.keyid"
_MAC_PERSON: Final = b"relaymesh.gsp.1"
MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True, repr=False)
class MeshKey:
    """One key; its bytes are never shown. key_id: four bytes that name it in a packet."""

    secret: bytes
    key_id: bytes

    @classmethod
    def derive(cls, shared_secret: str, label: str) -> MeshKey:
        """Return the key that a shared secret gives in the cluster of this label.

        An empty secret gives the open key, whose code only finds damage; its id is four zeros.
        """
        if not shared_secret:
            return cls(b"", bytes(4))
        salt = hashlib.blake2b(label.encode(), digest_size=16).digest()
        material = hashlib.blake2b(shared_secret.encode(), digest_size=32).digest()
        key = hashlib.blake2b(material, digest_size=32, salt=salt, person=_KEY_PERSON).digest()
        return cls(key, hashlib.blake2b(key, digest_size=4, person=_ID_PERSON).digest())

    @property
    def open(self) -> bool:
        """Whether anybody could have made its codes."""
        return not self.secret

    def code(self, data: bytes | memoryview) -> bytes:
        """Return the authentication code of a packet up to it."""
        return hashlib.blake2b(data, digest_size=MAC_BYTES, key=self.secret, person=_MAC_PERSON).digest()

    def __repr__(self) -> str:
        return f"MeshKey({self.key_id.hex()})"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys of one node.

    Each step returns a new ring, and doing one twice changes nothing. Raises ValueError, with a sentence, for what
    would leave a node that nobody can read.
    """

    primary: MeshKey
    secondaries: tuple[MeshKey, ...] = ()

    def find(self, key_id: bytes) -> MeshKey | None:
        if key_id == self.primary.key_id:
            return self.primary
        return next((key for key in self.secondaries if key.key_id == key_id), None)

    def install(self, key: MeshKey) -> KeyRing:
        """Also open what is sealed with this key."""
        if self.find(key.key_id) is not None:
            return self
        if len(self.secondaries) + 1 >= KEYS_MAX:
            raise ValueError(f"a ring holds {KEYS_MAX} keys: remove one first")
        if key.open or self.primary.open:
            raise ValueError("an unsigned mesh has no keys to change: set gossipSharedSecret on all nodes first")
        return KeyRing(self.primary, (*self.secondaries, key))

    def use(self, key_id: bytes) -> KeyRing:
        """Seal with this key from now on; the former primary still opens."""
        key = self.find(key_id)
        if key is None:
            raise ValueError(f"no key {key_id.hex()} is installed: install it on all nodes first")
        if key is self.primary:
            return self
        others = tuple(other for other in self.secondaries if other is not key)
        return KeyRing(key, (self.primary, *others))

    def remove(self, key_id: bytes) -> KeyRing:
        """No longer open what is sealed with this key."""
        if key_id == self.primary.key_id:
            raise ValueError(f"key {key_id.hex()} is in use: use another one first")
        return KeyRing(self.primary, tuple(key for key in self.secondaries if key.key_id != key_id))
